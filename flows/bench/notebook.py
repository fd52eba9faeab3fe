"""A notebook without a browser: a cell runs in a real IPython shell, and every picture that it displays is rendered."""

import time
from typing import Any

from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

SVG = "image/svg+xml"


class Page(CapturingDisplayPublisher):
    """Takes what a kernel would send to the browser, and keeps what ``clear_output`` would take off the page."""

    def clear_output(self, wait: bool = False) -> None:
        """A cleared picture was rendered too."""


class Shell(InteractiveShell):
    """A kernel's shell: pictures are inline, there is no window whose event loop it would run."""

    def enable_gui(self, gui: str | None = None) -> None:
        """Nothing to enable."""


def run_cell(cell: str, names: dict[str, Any]) -> tuple[float, list[str]]:
    """Run ``cell`` with ``names`` under ``%matplotlib inline``; return its seconds and the SVG pictures it displayed.

    Raises:
        Exception: whatever the cell raised.
    """
    shell = Shell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.run_cell("%matplotlib inline").raise_error()
    shell.push(names)
    page = shell.display_pub = Page()
    started = time.perf_counter()
    result = shell.run_cell(cell)
    elapsed = time.perf_counter() - started
    result.raise_error()
    return elapsed, [output["data"][SVG] for output in page.outputs if SVG in output["data"]]
