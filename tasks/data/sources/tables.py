"""A table to train on, as one Arrow table in bounded anonymous memory, whatever its files are."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data import statistics
from tasks.data.readers import columns
from tasks.data.readers.columns import Kind
from tasks.data.readers.columns import Selection as Selection
from tasks.data.readers.gathering import gathered
from tasks.data.report import Finding, error
from tasks.data.sources.table_files import TableFile as TableFile
from tasks.data.sources.table_files import TableFiles as TableFiles
from tasks.data.sources.table_files import find as find
from tasks.data.table.levels import Levels, levels

WORDS: dict[Kind, str] = {"number": "a number", "boolean": "true or false", "text": "text", "date": "a date"}


@dataclass(frozen=True)
class Table:
    """All rows, file after file in an order that is one of their contents: places of rows depend on no file's name.

    Columns are float64 (numbers), bool, timestamp (dates and times), null (not a value, or not fit: see ``findings``)
    or text: a dictionary of strings, of more than ``columns.MOST_LEVELS`` distinct ones plain strings. Missing is
    null, or NaN in numbers.
    """

    data: pa.Table
    files: TableFiles
    starts: NDArray[np.int64]  # (files + 1,) first row of each file, and the number of all rows
    findings: tuple[Finding, ...]
    ignored: frozenset[str] = frozenset()  # columns that are there and were not read, as it was asked
    others: tuple[str, ...] = ()  # columns that were not read because they were not asked for
    _levels: dict[str, Levels] = field(default_factory=dict)  # of dictionaries, once they were counted
    _limits: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All columns that are not ignored."""
        return [*self.data.column_names, *self.others]

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row, and its number there; both count from 0."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.files.files[file].path, row - int(self.starts[file])

    def named(self, row: int) -> str:
        """A row in words."""
        path, number = self.place(row)
        return f"row {number:,} of {path}"

    def first(self, mask: pa.ChunkedArray) -> int | None:
        """The first row for which a boolean column is true."""
        row = pc.index(mask, True).as_py()
        return None if row < 0 else int(row)

    def is_text(self, name: str) -> bool:
        """Whether a column is text, a dictionary or not."""
        return columns.kind_of(self.data[name].type) == "text"

    def levels(self, name: str) -> Levels:
        """The levels of a column."""
        if name in self._levels:
            return self._levels[name]
        found = levels(self.data[name])
        if pa.types.is_dictionary(self.data[name].type):  # of others it is an array more
            self._levels[name] = found
        return found

    def limits(self, name: str) -> tuple[float, float]:
        """The smallest and the largest value of a column of numbers or booleans; NaN where there is none."""
        if name not in self._limits:
            self._limits[name] = statistics.min_max(self.data[name])
        return self._limits[name]

    def number_share(self, name: str) -> float:
        """The share of a text column's values that read as numbers; 0 where it has none."""
        is_number = self._is_number(name)
        return float(pc.mean(is_number).as_py() or 0)

    def first_no_number(self, name: str) -> tuple[int, str] | None:
        """The first row of a text column whose value does not read as a number, and the value."""
        row = self.first(pc.invert(self._is_number(name)))
        return None if row is None else (row, self.data[name][row].as_py())

    def _is_number(self, name: str) -> pa.ChunkedArray:
        """Whether each value of a text column is a number; null where it is missing."""
        column = self.data[name]
        return pa.chunked_array([_is_number(chunk) for chunk in column.chunks], pa.bool_())


class Ignored(frozenset[str]):
    """Names of columns to leave out, which notes those that readers come across."""

    def __init__(self, names: Iterable[str]) -> None:
        self.seen = set[str]()

    def __contains__(self, name: object) -> bool:
        is_ignored = super().__contains__(name)
        if is_ignored:
            self.seen.add(str(name))
        return is_ignored


def _is_number(chunk: pa.Array) -> pa.Array:
    if not pa.types.is_dictionary(chunk.type):
        return pc.if_else(chunk.is_null(), None, columns.numbers(chunk).is_valid())
    return columns.numbers(chunk.dictionary).is_valid().take(chunk.indices)


def read(files: TableFiles, selection: Selection, spool: Path) -> Table:
    """Read all rows of the columns selected; ``spool`` is a file to be made where they are many.

    Numbers read as text are called by the names of levels. A column that is a number in some rows of a file and text
    in others is text in all.

    Raises:
        DataError: not a row can be read. What else is wrong is in ``findings``, all of it.
    """
    files, ignore = files.by_content(), Ignored(selection.ignore)
    selection = selection._replace(ignore=ignore)
    first = gathered(files, selection, spool)
    mixed = first.mixed() - selection.as_text
    rows = gathered(files, selection._replace(as_text=selection.as_text | mixed), spool) if mixed else first
    table = Table(rows.table(), files, rows.starts, (), frozenset(ignore.seen), tuple(rows.others))
    return replace(table, findings=(*rows.findings(), *_differing(table, first.kinds_by_file())))


def _differing(table: Table, kinds: dict[str, dict[str, Kind]]) -> Iterator[Finding]:
    """Columns that are of another kind in some file than in the first that has values in them."""
    for name, by_file in kinds.items():
        if len(set(by_file.values())) < 2:
            continue
        first, other = next(pair for pair in itertools.combinations(by_file, 2) if by_file[pair[0]] != by_file[pair[1]])
        found = f"{name} is {WORDS[by_file[first]]} in {first}, and {WORDS[by_file[other]]} in {other}"
        if {by_file[first], by_file[other]} == {"number", "text"} and table.is_text(name):
            row, value = table.first_no_number(name) or (0, "")
            found += f", as {value[:40]!r} in {table.named(row)}"
        action = f"write it alike in all of them, or leave it out with --ignore {name}"
        action += " (and another --name if a version takes it)"
        yield error("retyped-column", name, found, "one kind of value in all files", action)
