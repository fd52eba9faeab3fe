"""What a run reports: one line per fact to whoever watches it, and events to automations and services."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TextIO

from tasks.machine.words import escape_control_characters


class Watcher:
    """Whoever watches the run at a terminal; this base class ignores everything."""

    def line(self, line: str, short: str | None) -> None:
        """A line was printed."""

    def begin(self, stage: str) -> None:
        """A stage has begun."""

    def end(self, stage: str, is_done: bool) -> None:
        """A stage has ended, successfully or not."""


watcher = Watcher()  # the one of this process


def print_message(line: str, file: TextIO | None = None, short: str | None = None) -> None:
    """Print ``line`` to stdout or ``file``; Prefect turns what a run prints into the run's log.

    Where stages are shown as a list, ``short`` replaces the text that the list shows beside the stage, and ``line`` is
    not shown; with "" the text stays as it is. Without ``short`` the line is a note, and is shown whole.
    """
    line = escape_control_characters(line)
    print(line, file=file)
    watcher.line(line, short and escape_control_characters(short))


@contextmanager
def show_stage(stage: str) -> Iterator[None]:
    """Show that ``stage`` is running while the block, or the decorated function, runs."""
    watcher.begin(stage)
    is_done = False
    try:
        yield
        is_done = True
    finally:
        watcher.end(stage, is_done)


class Event(StrEnum):
    """What happens to a model, under the name by which automations know it (docs/on-duty.md, "Events")."""

    PUBLISHED = "gradmill.model.published"
    REFUSED = "gradmill.model.refused"
    PROMOTED = "gradmill.model.promoted"
    ROLLED_BACK = "gradmill.model.rolled-back"
    FROZEN = "gradmill.model.frozen"
    UNFROZEN = "gradmill.model.unfrozen"
    PREDICTIONS_WRITTEN = "gradmill.predictions.written"
    DRIFT = "gradmill.drift"
    DATA = "gradmill.data"
    EVALUATED = "gradmill.model.evaluated"
    DISK = "gradmill.disk"
