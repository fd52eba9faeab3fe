"""What a person at the terminal sees of a run: one line per fact on stderr; Prefect's own log with ``--verbose``."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from flows.server import environment
from tasks.machine.progress import CONSOLE
from tasks.machine.telling import LINES


class StageLines(logging.Handler):
    """Show what stages tell; Prefect's lines about states stay in its own log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, led by the stage that it comes from."""
        from prefect.context import FlowRunContext, TaskRunContext

        stage = TaskRunContext.get()
        if stage or FlowRunContext.get():  # outside a run Prefect takes no prints: the line is on the terminal already
            lead = Text(f"{stage.task.name:<10} " if stage else "", style="bold")
            CONSOLE.print(lead + Text(record.getMessage()), soft_wrap=True)


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
        yield
        return
    handler = StageLines()
    LINES.addHandler(handler)
    LINES.setLevel(logging.INFO)
    LINES.propagate = False
    try:
        yield
    finally:
        LINES.removeHandler(handler)
