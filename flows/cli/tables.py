"""Tables of several commands, and lines that fit the terminal."""

import math
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tasks.machine.words import printable, readable

WIDE = 160  # characters: a pipe has no width, and its reader wants whole names
LABEL = 12
TEST_FIGURES = "accuracy", "log loss", "RMSE"  # on the test split
SPARE = *TEST_FIGURES, "settings"
GAP = 2  # between columns; a table here has no frame
LEAD = re.compile(r" *(?:\S+(?: \S+)*  +)?(?=\S|$)")  # of a line: blanks, and a label with some behind it
COMMAND = re.compile(r"\bgradmill [a-z]+(?: [\w./-]+)?")  # with what it names: to be copied in one piece
PER_CENT = re.compile(r"(?<=\d) (?=%)")
JOINT = "\ue000"  # of a command's words in place of a blank: as wide, and nobody writes it
MOST_LEAD = 24
SHORT_CELL = 14


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
    for header in SPARE:
        if any(column.header == header and not any(column.cells) for column in table.columns):
            table = _without(header, table)
    if not console.is_terminal:
        console.width = WIDE
    for header in least_wanted if console.is_terminal else ():
        if _narrowed(table, console.width) > console.width:
            table = _without(header, table)
    if (needed := _narrowed(table, console.width)) > console.width and console.is_terminal:
        _print_blocks(table)
        return
    console.width = needed
    console.print(table)


def _without(header: str, table: Table) -> Table:
    """A new one: a column of Rich's knows its place."""
    kept = [column for column in table.columns if column.header != header]
    narrower = Table(*(str(column.header) for column in kept), box=None, pad_edge=False)
    for row in zip(*(column.cells for column in kept), strict=True):
        narrower.add_row(*row)
    return narrower


def _print_blocks(table: Table) -> None:
    """Each row as a block, for a terminal with no room for all columns: it would break every line inside a word."""
    for row in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = (Text.from_markup(cell) if isinstance(cell, str) else cell for cell in row)
        print_line(str(first))
        for column, cell in zip(table.columns[1:], others, strict=True):
            if str(cell):
                print_fact(f"  {column.header}", str(cell))


def _narrowed(table: Table, room: int) -> int:
    """Give the widest columns less until all have room, but each its longest word; return what that takes."""
    texts = [
        [cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain for cell in column.cells]
        for column in table.columns
    ]
    texts = [[*cells, str(column.header)] for cells, column in zip(texts, table.columns, strict=True)]
    least = [max(cell_len(part) for text in cells for part in _unbroken(text)) for cells in texts]
    widths = [max(map(cell_len, cells)) for cells in texts]
    between = GAP * (len(widths) - 1)
    while sum(widths) + between > room and (wide := [at for at, width in enumerate(widths) if width > least[at]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    return max(room, sum(widths) + between)


def _unbroken(text: str) -> list[str]:
    """What no line break may part: the words of a cell, or all of a short one."""
    return [text] if cell_len(text) <= SHORT_CELL else text.split()


def wrapped(text: str, room: int, hanging: bool = False, widest: int | None = None) -> list[str]:
    """Lines of at most ``room`` columns, one at least; a word that is longer stays whole, so that it can be copied.

    With ``hanging`` they stay below what the first begins with, blanks or a label. A path that is longer even than the
    ``widest`` line is folded behind slashes: the terminal would break it inside a name.
    """
    if hanging and cell_len(text) <= room:
        return [text]
    if hanging and (lead := LEAD.match(text)) and lead.end() <= min(MOST_LEAD, room // 2):
        indent = cell_len(lead[0])
        first, *more = wrapped(text[lead.end() :].rstrip(), room - indent, widest=widest)
        return [lead[0] + first, *(" " * max(0, min(indent, room - cell_len(each))) + each for each in more)]
    lines = [""]
    for word in COMMAND.sub(lambda found: found[0].replace(" ", JOINT), PER_CENT.sub(JOINT, text)).split(" "):
        if widest and cell_len(word) > widest and "://" not in word:
            *whole, word = _folded(word, room)
            lines = [*filter(None, lines), *whole, ""]
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return [line.replace(JOINT, " ") for line in lines]


def _folded(path: str, room: int) -> list[str]:
    lines = [""]
    for part in re.findall("[^/]*/|[^/]+$", path):
        if lines[-1] and cell_len(lines[-1]) + cell_len(part) > room:
            lines.append(part)
        else:
            lines[-1] += part
    return lines


def from_here(text: str) -> str:
    """``text`` with paths as a person at a terminal types them; who reads a pipe may be in another folder."""
    try:
        here = str(Path.cwd())
    except FileNotFoundError:  # the folder has gone
        return text
    # Not within another path, such as /backup/data/x seen from /data.
    return text if here == os.sep else re.sub(rf"(?<![\w./~+@%-]){re.escape(here)}{os.sep}", "", text)


def command_lines(command: str, room: int) -> list[str]:
    """A command, on lines that a shell joins where it is longer than ``room``."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) > room - 2:
            lines.append(f"  {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def print_line(text: str, is_command: bool = False) -> None:
    """``text``, at a terminal on as many lines as it needs."""
    console = on_output()
    lines = [text]
    if console.is_terminal:
        text = from_here(text)
        lines = command_lines(text, console.width) if is_command else wrapped(text, console.width, widest=console.width)
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def print_fact(label: str, value: str, is_command: bool = False) -> None:
    """A fact behind its label: at a terminal on as many lines as it needs, broken between words, elsewhere on one."""
    console = on_output()
    room, lines = console.width - LABEL, [value]
    if console.is_terminal and not is_command:
        lines = wrapped(from_here(value), room, widest=console.width)
    elif console.is_terminal:
        lines = command_lines(value, room)
    first = "" if console.is_terminal and cell_len(lines[0]) > room else lines.pop(0)  # a long path has its own line
    console.print(Text.assemble((f"{label:<{LABEL}}", "bold"), first), soft_wrap=True)
    for line in lines:
        indent = max(0, min(LABEL, console.width - cell_len(line)))
        console.print(Text(f"{'':<{indent}}{line}"), soft_wrap=True)
