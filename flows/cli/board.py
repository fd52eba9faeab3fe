"""What goes on, shown at a terminal from the first moment on: what is waited for, and the stages as a list."""

import sys
import time
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.text import Text

from flows.cli.tables import from_here, wrapped
from tasks.machine import progress
from tasks.machine.telling import Watcher
from tasks.machine.words import duration

TAKE_LONG = {
    "retrain", "tune", "predict", "evaluate", "inspect", "show", "report", "verify", "register", "trigger", "status",
    "notify", "schedule", "unschedule", "skip", "pause", "resume", "mirror", "maintain", "demo", "up",
}  # fmt: skip
SHOW_OTHERWISE = {"--help", "-h", "--verbose", "-v", "--quiet", "-q"}
WIDEST = 100  # columns: seconds stand at the right, and must not be far
FREE = 3  # for the terminal's ^C, which would begin another line and stay there
NAME, SECONDS = 11, 8
MARKS = {True: ("✓", "green"), False: ("✗", "red")}
ASCII_MARKS = {True: ("+", "green"), False: ("x", "red")}
FRAMES, ASCII_FRAMES = "⠋⠙⠸⠴⠦⠇", "|/-\\"
PER_SECOND = 6  # drawing takes a millisecond, of a core that the run could use


class Board(Watcher):
    """A list on standard error: a line of each stage that has ended, and below them the one that goes on."""

    def __init__(self, console: Console, doing: str) -> None:
        self._console = console
        self._stage, self._said, self._notes = "", doing, list[str]()
        self._began = time.monotonic()
        self._is_ascii = not console.encoding.startswith("utf")
        self._live = Live(
            self, console=console, refresh_per_second=PER_SECOND, transient=True, redirect_stdout=False
        )  # what is printed on stdout is for others
        self._live.start(refresh=True)

    def wait(self, doing: str) -> None:
        """Say what is done between stages, at once: what is imported meanwhile may leave no time to."""
        self._stage, self._said, self._began = "", doing, time.monotonic()
        self._live.refresh()

    def line(self, line: str, short: str | None) -> None:
        """What was told, of the stage or beside it, paths as a person types them."""
        line = from_here(line)
        if short:
            self._said = short
        elif short is None and self._stage:
            self._notes.append(line)
        elif short is None and _in_a_run():  # elsewhere Prefect takes no prints: it is on the terminal already
            said = "\n".join(wrapped(line, self._console.width - FREE, widest=self._console.width - FREE))
            self._print([Text(f"\n{said}", "bold")])  # set apart: it is of no stage above

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._stage, self._said, self._notes, self._began = stage, "", [], time.monotonic()

    def end(self, stage: str, is_done: bool) -> None:
        """Its line, and what was told beside it, stay."""
        mark, colour = (ASCII_MARKS if self._is_ascii else MARKS)[is_done]
        spent = duration(time.monotonic() - self._began)
        rows = [self._row(Text(mark, colour), stage, self._said, spent)]
        rows += [self._row("", "", note, "") for note in self._notes]
        self._notes = []
        self.wait("the next stage" if is_done else "the end of the run")
        self._print(rows)

    def close(self) -> None:
        """Take away what goes on; what has ended stays."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """What goes on, whole lines of it only, for this is drawn anew."""
        seconds = time.monotonic() - self._began
        frames = ASCII_FRAMES if self._is_ascii else FRAMES
        frame = Text(frames[int(seconds * PER_SECOND) % len(frames)], "bold")
        spent = f"{seconds:.0f} s" if seconds >= 1 else ""
        rows = [self._row(frame, self._stage, self._said, spent)]
        rows += [self._row("", "", note, "") for note in self._notes[-3:]]
        for text in rows:
            for line in text.split("\n"):
                line.truncate(console.width - FREE, overflow="ellipsis")
                yield line

    def _row(self, mark: Text | str, stage: str, said: str, spent: str) -> Text:
        """A line, or more where ``said`` is long: broken between words, and where words are too long, not at all."""
        indent = 2 + (NAME if stage or not mark else 0)
        room = min(self._console.width - FREE, WIDEST) - indent - SECONDS
        first, *more = wrapped(said, room, widest=self._console.width - FREE)
        row = Text.assemble(mark or " ", " ", (f"{stage:<{indent - 2}}", "bold"), first)
        if spent:
            row.append(f"{'':<{max(0, room - cell_len(first))}}{spent:>{SECONDS}}")
        for line in more:
            row.append(f"\n{'':<{indent}}{line}")
        return row

    def _print(self, rows: Sequence[Text]) -> None:
        for row in rows:
            self._console.print(row, soft_wrap=True)


def _in_a_run() -> bool:
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None


_board: Board | None = None


def begin(arguments: Sequence[str]) -> None:
    """Show that a command that takes long has begun, before its libraries are imported."""
    global _board
    if arguments[:1] and arguments[0] in TAKE_LONG and progress.is_watched and SHOW_OTHERWISE.isdisjoint(arguments):
        _board = Board(progress.CONSOLE, "starting")


def wait(doing: str) -> None:
    """Say what is waited for, where it is shown."""
    if _board:
        _board.wait(doing)


def shown() -> Board | None:
    """The list, where there is one."""
    return _board


def end() -> None:
    """Make room for what the command has to say."""
    global _board
    board, _board = _board, None
    if board:
        board.close()
