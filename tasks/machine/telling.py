"""What a run tells: one line per fact to whoever watches it, and events to automations and services."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TextIO

from tasks.machine.words import printable


class Watcher:
    """Who watches the run, at a terminal; this one looks away."""

    def line(self, line: str, short: str | None) -> None:
        """What was told."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def end(self, stage: str, is_done: bool) -> None:
        """It ends, well or not."""


watchers: list[Watcher] = []


def tell(line: str, file: TextIO | None = None, short: str | None = None) -> None:
    """Print ``line``, to stdout or ``file``; of what a run prints, Prefect makes the run's log.

    Where stages are shown as a list, ``short`` is what such a list says of the stage from now on, and ``line`` is not
    shown; "" leaves what it says. Without ``short`` the line is a note, and is shown whole.
    """
    line = printable(line)
    print(line, file=file)
    for watcher in watchers:
        watcher.line(line, short and printable(short))


@contextmanager
def show_stage(stage: str) -> Iterator[None]:
    """Show that ``stage`` goes on while the block, or the function decorated, runs."""
    for watcher in watchers:
        watcher.begin(stage)
    is_done = False
    try:
        yield
        is_done = True
    finally:
        for watcher in watchers:
            watcher.end(stage, is_done)


class Event(StrEnum):
    """What happens to a model, by the name that automations know it by (docs/on-duty.md, "Events")."""

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
