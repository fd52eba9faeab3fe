"""What a stage tells whoever watches its run, one line per fact."""

import logging
from typing import TextIO

LINES = logging.getLogger("gradmill.lines")  # a terminal that shows them has its handler here (flows/cli/display.py)


def tell(line: str, file: TextIO | None = None) -> None:
    """Print ``line``, to stdout or ``file``; of what a run prints, Prefect makes the run's log."""
    print(line, file=file)
    LINES.info(line)
