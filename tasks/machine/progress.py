"""Progress bars for people at a terminal; nothing is drawn where there is no terminal."""

import os
import sys
from contextlib import nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.theme import Theme

# Legible on light and on dark: Rich's own track is nearly black, and its cyan and green are pale on white.
STYLES = {"bar.back": "dim", "progress.download": "", "progress.remaining": ""}


class _Terminal(Console):
    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor as it is: a run that is killed could not show it again."""
        return False

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does, but never while its own thread draws what is shown below.

        Rich counts the lines to erase first and writes later: when a bar begins or ends in between, the count is wrong,
        and a line above the bar is erased, or one of the bar stays. A long word, such as a path, is never broken.
        """
        with self._live_stack[0]._lock if self._live_stack else nullcontext():
            super().print(*objects, **{"overflow": "ignore", "crop": False, **options})


# Whether a person watches standard error, at a terminal that can move its cursor; not if --quiet is given, or Prefect's
# own log is shown.
is_watched = sys.stderr.isatty() and "CI" not in os.environ and os.environ.get("TERM") not in (None, "dumb", "unknown")
CONSOLE = _Terminal(stderr=True, highlight=False, force_terminal=None if is_watched else False, theme=Theme(STYLES))


def make_bar(*columns: ProgressColumn) -> Progress:
    """A bar on stderr that vanishes when done; ``columns`` stand between the bar and the time left."""
    return Progress(
        TextColumn("  {task.description:<10}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=CONSOLE,
        transient=True,
        disable=not is_watched,
    )
