"""What a run tells: one line per fact to whoever watches it, and events to automations and services."""

import logging
from enum import StrEnum
from typing import TextIO

from tasks.machine.words import printable

LINES = logging.getLogger("gradmill.lines")  # a terminal that shows them has its handler here (flows/cli/display.py)


def tell(line: str, file: TextIO | None = None) -> None:
    """Print ``line``, to stdout or ``file``; of what a run prints, Prefect makes the run's log."""
    line = printable(line)
    print(line, file=file)
    LINES.info(line)


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
