"""What a person sees of a run: a list of stages at a terminal, else one line per fact; Prefect's log with --verbose."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from flows.cli import board
from flows.server import environment
from tasks.machine import progress, telling


class StageLines(telling.Watcher):
    """Show what stages tell; Prefect's lines about states stay in its own log."""

    def line(self, line: str, short: str | None) -> None:
        """Print one line, led by the stage that it comes from."""
        from prefect.context import FlowRunContext, TaskRunContext

        stage = TaskRunContext.get()
        if stage or FlowRunContext.get():  # outside a run Prefect takes no prints: the line is on the terminal already
            lead = Text(f"{stage.task.name:<10} " if stage else "", style="bold")
            progress.CONSOLE.print(lead + Text(line), soft_wrap=True)


def is_in_lines() -> bool:
    """Whether a run tells line by line, as a log does: neither as a list for a person, nor nothing."""
    return any(isinstance(each, StageLines) for each in telling.watchers)


@contextmanager
def compact(verbose: bool, stages: bool = True) -> Iterator[None]:
    """Set up the terminal before Prefect is imported, which reads its logging settings then.

    Without ``stages`` nothing is shown of what they tell.

    Raises:
        UsageError: a setting of Prefect's cannot be used.
    """
    environment.require_prefect()
    if not verbose:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if verbose or not stages:
        board.end()  # begun before options like -vq are understood
        yield
        return
    watcher = board.shown() or StageLines()
    telling.watchers.append(watcher)
    try:
        yield
    finally:
        telling.watchers.remove(watcher)
        board.end()
