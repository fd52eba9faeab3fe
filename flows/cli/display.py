"""Output for people: facts, tables, and the stages of a long command as a list or as lines."""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import TextWrapper

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from flows.server import environment
from tasks.machine import progress, run_messages
from tasks.machine.words import escape_control_characters, format_duration
from tasks.store.page_rendering import Code, Page, PagePicture, PageTable, Section, Strong, list_parts, list_sections
from tasks.store.page_rendering import Text as PageText

LABEL = 12  # columns for the label of a fact
STAGE = 10  # for the name of a stage
SECONDS = 6  # for the seconds of a stage, fixed so that lines break alike on faster machines
WIDEST = 100  # columns: seconds are right-aligned, and must not be too far away
MARKS = {True: ("✓", "green"), False: ("✗", "red")}  # of success and failure
ASCII_MARKS = {True: ("+", "green"), False: ("x", "red")}
NUMBER = re.compile(r"[-+]?[\d,]+(\.\d+)?(e[-+]\d+)?%?")

# Pages


def open_stdout() -> Console:
    """Standard output, plain in CI, where the log is read like a file."""
    return Console(highlight=False, force_terminal=False if "CI" in os.environ else None)


def print_page(page: Page) -> None:
    """Print a page: an empty line is between its sections. Pictures are left out."""
    console = open_stdout()
    for heading in (page.title, page.headline):
        if heading:
            _print_text(Strong(join_parts(heading)), console)
    for number, section in enumerate(list_sections(page)):
        if number or page.title:
            console.print()
        if section.title:
            _print_text(Strong(section.title), console)
        for block in section.blocks:
            if isinstance(block, PageTable):
                print_table(block, console) if block.head else _print_facts(block, console)
            elif block and not isinstance(block, PagePicture):
                _print_text(block, console)


def draw_facts(facts: Iterable[tuple[str, PageText]], commands: Iterable[str] = ()) -> Page:
    """A page of labelled facts, and of commands to try next."""
    steps = [("" if number else "try next", Code(command)) for number, command in enumerate(commands)]
    return draw_blocks(PageTable((*facts, *steps)))


def draw_blocks(*blocks: PageText | PageTable) -> Page:
    """A page of one section without a title."""
    return Page(sections=(Section("", blocks),))


def _print_text(text: PageText, console: Console, lead: str = "") -> None:
    """Print a line after its ``lead``; a command stays on one line so that it can be copied."""
    words = join_parts(text)
    shown = Text(words) if isinstance(text, Code) else fit(words, console, len(lead))
    shown.stylize("bold" if isinstance(text, Strong) else "")
    console.print(Text.assemble((lead, "bold"), shown), soft_wrap=True)


def join_parts(text: PageText) -> str:
    """A line of a page as plain text."""
    return "".join(part for _, part, _ in list_parts(text))


def _print_facts(table: PageTable, console: Console) -> None:
    """Print each label with its value, if it has one."""
    labels = [join_parts(label) for label, *_ in table.rows]
    width = max(LABEL, *(len(label) + 1 for label in labels))
    for label, (_, value, *_) in zip(labels, table.rows, strict=True):
        if value:
            _print_text(value, console, f"{label:<{width}}")


def print_table(table: PageTable, console: Console) -> None:
    """Print cells in full even if the output is not a terminal; columns without values are left out.

    Numbers are right-aligned. A narrow terminal also omits the spare columns.
    """
    rows = [[_read_cell(cell) for cell in row] for row in table.rows]
    shown = [at for at, _ in enumerate(table.head) if any(row[at] for row in rows)]
    for left_out in (None, *table.spare):
        shown = [at for at in shown if table.head[at] != left_out]
        drawn = Table(box=None, pad_edge=False)
        for at in shown:
            is_number = all(NUMBER.fullmatch(row[at].plain) for row in rows if row[at])
            drawn.add_column(table.head[at], justify="right" if is_number else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(row[at] for at in shown))
        width = console.measure(drawn, options=console.options.update(max_width=10_000)).maximum  # without line breaks
        if not console.is_terminal:  # it has no width, and its reader wants full names
            console.width = max(console.width, width)
        if width <= console.width:
            break
    console.print(drawn)


def _read_cell(cell: PageText) -> Text:
    """A cell for Rich, which interprets no text from data."""
    return Text.assemble(*((words, "bold" if element == "strong" else "") for element, words, _ in list_parts(cell)))


def fit(text: str, console: Console, indent: int = 0) -> Text:
    """``text`` without control characters, wrapped to the terminal, with later lines indented by ``indent``.

    A word longer than a line, such as a path, is left to the terminal, so that it can be copied.
    """
    text = escape_control_characters(text)
    if not console.is_terminal:
        return Text(text)
    wrap = TextWrapper(max(20, console.width - indent), break_long_words=False, break_on_hyphens=False).wrap
    return Text(f"\n{'':<{indent}}".join(line for part in from_here(text).split("\n") for line in wrap(part) or [""]))


def from_here(text: str) -> str:
    """``text`` with paths relative to the working folder, for a terminal: a pipe's reader may be in another folder."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # the working folder was removed
        return text
    # Not within another path, such as /backup/data/x seen from /data.
    return text if here == os.sep else re.sub(rf"(?<![\w./~+@%-]){re.escape(here)}{os.sep}", "", text)


def print_line(text: str) -> None:
    """Print a line without control characters."""
    console = open_stdout()
    console.print(fit(text, console), soft_wrap=True)


# Progress


class StageLines(run_messages.Watcher):
    """Print the messages of stages, one line each, with the stage first; Prefect's state lines stay in its own log."""

    def line(self, line: str, short: str | None) -> None:
        """Print one line."""
        if _in_a_run():  # outside of a run the line is already on the terminal
            from prefect.context import TaskRunContext

            stage = TaskRunContext.get()
            lead = f"{stage.task.name:<{STAGE}} " if stage else ""
            progress.CONSOLE.print(Text.assemble((lead, "bold"), line), soft_wrap=True)


class StageList(run_messages.Watcher):
    """One line for each finished stage, and below them the current one with a spinner."""

    def __init__(self, console: Console, doing: str) -> None:
        self._console = console
        self._stage, self._said, self._notes, self._began = "", "", list[str](), time.monotonic()
        self._marks = MARKS if console.encoding.startswith("utf") else ASCII_MARKS
        self._progress = Progress(
            SpinnerColumn("dots" if self._marks is MARKS else "line", style="bold"),
            TextColumn(f"{{task.fields[stage]:<{STAGE}}}", style="bold", markup=False),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # a pipe or a file gets lines as they are
        )
        self._task = self._progress.add_task(doing, total=None, stage="")
        self._progress.start()

    def wait(self, doing: str, stage: str = "") -> None:
        """Show the current activity at once: a following import may leave no time for it."""
        self._stage, self._said, self._began = stage, "", time.monotonic()
        self._progress.reset(self._task, description=doing, stage=stage)
        self._progress.refresh()

    def line(self, line: str, short: str | None) -> None:
        """Show a message of the stage in its line, or as a note below."""
        if short:
            self._said = short
            self._progress.update(self._task, description=short)
        elif short is None and (self._stage or _in_a_run()):  # elsewhere it is already on the terminal
            self._notes.append(line)

    def begin(self, stage: str) -> None:
        """Start a stage."""
        self._print_notes()
        self.wait("", stage)

    def end(self, stage: str, is_done: bool) -> None:
        """Print the final line of a stage, and its notes."""
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=1)
        row.add_column(width=STAGE, style="bold")
        row.add_column(ratio=1, overflow="fold")
        row.add_column(justify="right", no_wrap=True, min_width=SECONDS)
        spent = format_duration(time.monotonic() - self._began)
        row.add_row(Text(*self._marks[is_done]), Text(stage), Text(self._said), spent)
        self._console.print(row, width=min(self._console.width - 1, WIDEST))
        self._print_notes()
        self.wait("the next stage" if is_done else "the end of the run")

    def close(self) -> None:
        """Remove the current activity; finished stages stay."""
        self._print_notes()
        self._progress.stop()

    def _print_notes(self) -> None:
        """Print the notes below the line of their stage."""
        for note in self._notes:
            self._console.print(fit(note, self._console), soft_wrap=True)
        self._notes.clear()


def _in_a_run() -> bool:
    context = sys.modules.get("prefect.context")
    return context is not None and bool(context.FlowRunContext.get() or context.TaskRunContext.get())


_shown: StageList | None = None


def wait(doing: str) -> None:
    """Show what the command waits for, if a person watches."""
    global _shown
    if _shown:
        _shown.wait(doing)
    elif progress.is_watched:
        _shown = StageList(progress.CONSOLE, doing)


def is_shown() -> bool:
    """Whether the current activity is shown, with its duration."""
    return _shown is not None


def end() -> None:
    """Clear the progress for the command's output."""
    global _shown
    shown, _shown = _shown, None
    if shown:
        shown.close()


@contextmanager
def compact(verbose: bool, stages: bool) -> Iterator[None]:
    """Show stages instead of Prefect's own log, unless ``verbose``; without ``stages`` hide their messages as well.

    This must be entered before Prefect is imported, which then reads its settings.
    """
    if not verbose:
        environment.hush_prefect()
    if verbose or not stages:
        end()
        yield
        return
    wait("waiting for Prefect and its server")
    run_messages.watcher = _shown or StageLines()
    try:
        yield
    finally:
        run_messages.watcher = run_messages.Watcher()
        end()
