"""What a person sees of a command that takes long: at a terminal a list of stages, else one line per fact."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows.cli.tables import fit
from flows.server import environment
from tasks.machine import progress, telling
from tasks.machine.words import duration

SECONDS = 6  # columns that they have, so that no line breaks elsewhere on a faster machine
WIDEST = 100  # columns: seconds stand at the right, and must not be far
STAGE = 10
MARKS = {True: ("✓", "green"), False: ("✗", "red")}
ASCII_MARKS = {True: ("+", "green"), False: ("x", "red")}


class StageLines(telling.Watcher):
    """Show what stages tell, a line each, led by the stage; Prefect's lines about states stay in its own log."""

    def line(self, line: str, short: str | None) -> None:
        """Print one line."""
        if _in_a_run():  # outside Prefect takes no prints: the line is on the terminal already
            from prefect.context import TaskRunContext

            stage = TaskRunContext.get()
            lead = Text(f"{stage.task.name:<{STAGE}} " if stage else "", style="bold")
            progress.CONSOLE.print(lead + Text(line), soft_wrap=True)


class StageList(telling.Watcher):
    """A line of each stage that has ended, and below them, with a spinner, what goes on."""

    def __init__(self, console: Console, doing: str) -> None:
        self._console = console
        self._stage, self._said, self._notes, self._began = "", "", list[str](), time.monotonic()
        is_utf8 = console.encoding.startswith("utf")
        self._marks = MARKS if is_utf8 else ASCII_MARKS
        self._progress = Progress(
            SpinnerColumn("dots" if is_utf8 else "line", style="bold"),
            TextColumn(f"{{task.fields[stage]:<{STAGE}}}", style="bold", markup=False),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # what is printed there is for others
        )
        self._task = self._progress.add_task(doing, total=None, stage="")
        self._progress.start()

    def wait(self, doing: str, stage: str = "") -> None:
        """Say what is done, at once: what is imported meanwhile may leave no time to."""
        self._stage, self._said, self._began = stage, "", time.monotonic()
        self._progress.reset(self._task, description=doing, stage=stage)
        self._progress.refresh()

    def line(self, line: str, short: str | None) -> None:
        """What was told, of the stage, or beside it in a line of its own."""
        if short:
            self._said = short
            self._progress.update(self._task, description=short)
        elif short is None and (self._stage or _in_a_run()):  # elsewhere it is on the terminal already
            self._notes.append(line)

    def begin(self, stage: str) -> None:
        """A stage begins."""
        self._print_notes()
        self.wait("", stage)

    def end(self, stage: str, is_done: bool) -> None:
        """Its line, and what was told beside it, stay."""
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=1)
        row.add_column(width=STAGE, style="bold")
        row.add_column(ratio=1, overflow="fold")
        row.add_column(justify="right", no_wrap=True, min_width=SECONDS)
        spent = duration(time.monotonic() - self._began)
        row.add_row(Text(*self._marks[is_done]), Text(stage), Text(self._said), spent)
        self._console.print(row, width=min(self._console.width - 1, WIDEST))
        self._print_notes()
        self.wait("the next stage" if is_done else "the end of the run")

    def close(self) -> None:
        """Take away what goes on; what has ended stays."""
        self._print_notes()
        self._progress.stop()

    def _print_notes(self) -> None:
        """Below the line of the stage that told them."""
        for note in self._notes:
            self._console.print(fit(note, self._console), soft_wrap=True)
        self._notes.clear()


def _in_a_run() -> bool:
    context = sys.modules.get("prefect.context")
    return context is not None and bool(context.FlowRunContext.get() or context.TaskRunContext.get())


_shown: StageList | None = None


def wait(doing: str) -> None:
    """Say what is waited for, where a person watches."""
    global _shown
    if _shown:
        _shown.wait(doing)
    elif progress.is_watched:
        _shown = StageList(progress.CONSOLE, doing)


def is_shown() -> bool:
    """Whether what goes on is shown, with the seconds that it takes."""
    return _shown is not None


def end() -> None:
    """Make room for what the command has to say."""
    global _shown
    shown, _shown = _shown, None
    if shown:
        shown.close()


@contextmanager
def compact(verbose: bool, stages: bool = True) -> Iterator[None]:
    """Show stages, but for ``verbose``, and not Prefect's own log; without ``stages`` nothing of what they tell.

    To be entered before Prefect is imported, which reads its settings then.
    """
    if not verbose:
        environment.hush_prefect()
    if verbose or not stages:
        end()
        yield
        return
    wait("waiting for Prefect and its server")
    watcher = _shown or StageLines()
    telling.watchers.append(watcher)
    try:
        yield
    finally:
        telling.watchers.remove(watcher)
        end()
