"""What a person at the terminal sees of a run: one line per fact on stderr; Prefect's own log with ``--verbose``."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

import tasks
from flows.server import environment
from tasks.machine.progress import CONSOLE

OUR_CODE = str(Path(tasks.__file__).parent)
RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class StageLines(logging.Handler):
    """Show what stages ``print``; Prefect's lines about states stay in its own log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, led by the stage that it comes from."""
        if record.pathname.startswith(OUR_CODE):  # Prefect gives a print the place that it came from
            stage = getattr(record, "task_name", None)
            lead = Text(f"{stage:<10} " if stage else "", style="bold")
            CONSOLE.print(lead + Text(record.getMessage()), soft_wrap=True)


@contextmanager
def compact(verbose: bool, stages: bool = True) -> Iterator[None]:
    """Set up the terminal before Prefect is imported, which reads its logging settings then.

    Without ``stages`` nothing is shown of what they print.

    Raises:
        UsageError: a setting of Prefect's cannot be used.
    """
    environment.require_prefect()
    if verbose:
        yield
        return
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from prefect.logging.configuration import ensure_logging_setup

    ensure_logging_setup()  # Prefect would do it later and drop the handlers added here
    handler = StageLines() if stages else logging.NullHandler()
    for name in RUN_LOGGERS:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in RUN_LOGGERS:
            logging.getLogger(name).removeHandler(handler)
