"""Progress bars for people at a terminal; nothing is drawn where there is none."""

import os
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

CONSOLE = Console(stderr=True, highlight=False)


def bar(*columns: ProgressColumn) -> Progress:
    """A bar on stderr that vanishes when done; ``columns`` stand between the bar and the time left."""
    interactive = sys.stderr.isatty() and "CI" not in os.environ
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=CONSOLE,
        transient=True,
        disable=not interactive,
    )
