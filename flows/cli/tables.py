"""Tables of several commands, and lines that fit the terminal."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import TextWrapper

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tasks.machine.words import printable, readable

LABEL = 12
TEST_FIGURES = "accuracy", "log loss", "RMSE"  # on the test split
SPARE = *TEST_FIGURES, "settings"


def on_output() -> Console:
    """Standard output; plain in CI, whose log is read like a file."""
    return Console(highlight=False, force_terminal=False if "CI" in os.environ else None)


def figures_of_test(accuracy: float | None, loss: float | None) -> tuple[str, str, str]:
    """Those of ``TEST_FIGURES``: the loss of a regression, which has no accuracy, is half its mean squared error.

    They stand in columns of their own, for nobody is to compare nats with squares of euros.
    """
    if loss is None:
        return "", "", ""
    if accuracy is None:
        return "", "", readable(math.sqrt(2 * loss))
    return f"{accuracy:.4f}", readable(loss), ""


def add_row(table: Table, *cells: str) -> None:
    """Add text from data, which Rich and the terminal are to show and not to obey."""
    table.add_row(*(escape(printable(cell)) for cell in cells))


def print_table(table: Table, least_wanted: Sequence[str] = ()) -> None:
    """Print it whole, also where the output is no terminal; on a narrow one without columns ``least_wanted``.

    Those of ``SPARE`` are left out that no row has.
    """
    console = on_output()
    spared = [str(each.header) for each in table.columns if each.header in SPARE and not any(each.cells)]
    table = _without(spared, table)
    if not console.is_terminal:  # it has no width, and its reader wants whole names
        console.width = max(console.width, _width(table, console))
    for header in least_wanted:
        if _width(table, console) > console.width:
            table = _without([header], table)
    console.print(table)


def _width(table: Table, console: Console) -> int:
    """Columns that it takes with each row on one line."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def _without(headers: Sequence[str], table: Table) -> Table:
    fewer = Table(*(each for each in table.columns if each.header not in headers), box=None, pad_edge=False)
    fewer.rows = table.rows
    return fewer


def fit(text: str, console: Console, indent: int = 0) -> Text:
    """``text`` without orders to a terminal, on which it has as many lines as it needs, below its first by ``indent``.

    A word that is longer than a line, as a path, is left to the terminal, so that it can be copied.
    """
    text = "\n".join(map(printable, text.split("\n")))
    if not console.is_terminal:
        return Text(text)
    wrap = TextWrapper(max(20, console.width - indent), break_long_words=False, break_on_hyphens=False).wrap
    return Text(f"\n{'':<{indent}}".join(line for part in from_here(text).split("\n") for line in wrap(part) or [""]))


def from_here(text: str) -> str:
    """``text`` with paths as a person at a terminal types them; who reads a pipe may be in another folder."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # the folder has gone
        return text
    # Not within another path, such as /backup/data/x seen from /data.
    return text if here == os.sep else re.sub(rf"(?<![\w./~+@%-]){re.escape(here)}{os.sep}", "", text)


def print_line(text: str, is_command: bool = False) -> None:
    """Print a line; a command stays on one, to be copied."""
    console = on_output()
    console.print(Text(text) if is_command else fit(text, console), soft_wrap=True)


def print_fact(label: str, value: str, is_command: bool = False) -> None:
    """Print a fact behind its label; a command stays on one line, to be copied."""
    console = on_output()
    shown = Text(value) if is_command else fit(value, console, LABEL)
    console.print(Text.assemble((f"{label:<{LABEL}}", "bold"), shown), soft_wrap=True)
