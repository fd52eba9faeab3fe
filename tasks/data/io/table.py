"""A whole table as one Arrow table in bounded anonymous memory, whatever its files are: kinds are inferred from it."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data import statistics
from tasks.data.io import tabular
from tasks.data.io.batches import table_batches
from tasks.data.io.discovery import DataFile, DataFiles
from tasks.data.io.tabular import CODES, MAX_COLUMNS, Kind, LevelCodes, Selection, kind_of, parse_numbers
from tasks.data.levels import Levels, find_levels
from tasks.data.report import Finding, error, note
from tasks.errors import DataError
from tasks.machine.words import counted

BUFFER_BYTES = 128 * 2**20  # of batches in memory, beyond which they go to a file
WHOLE = re.compile("-?[0-9]+")
KIND_WORDS: dict[Kind, str] = {"number": "a number", "boolean": "true or false", "text": "text", "date": "a date"}


@dataclass(frozen=True)
class Table:
    """All rows, file after file in an order that is one of their contents: row numbers depend on no file's name.

    Columns are float64 (numbers), bool, timestamp (dates and times), null (not a value, or not supported: see
    ``findings``) or text: a dictionary of strings, of more than ``tabular.MAX_LEVELS`` distinct ones plain strings.
    Missing is null, or NaN in numbers.
    """

    data: pa.Table
    files: DataFiles
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
        return kind_of(self.data[name].type) == "text"

    def levels(self, name: str) -> Levels:
        """The levels of a column."""
        if name in self._levels:
            return self._levels[name]
        found = find_levels(self.data[name])
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
        is_no_number = pa.chunked_array([_is_no_number(chunk) for chunk in self.data[name].chunks], pa.bool_())
        return 1 - float(pc.mean(is_no_number).as_py() or 0) if is_no_number.null_count < len(is_no_number) else 0.0

    def first_no_number(self, name: str) -> tuple[int, str] | None:
        """The first row of a text column whose value does not read as a number, and the value."""
        row = self.first(pa.chunked_array([_is_no_number(chunk) for chunk in self.data[name].chunks], pa.bool_()))
        return None if row is None else (row, self.data[name][row].as_py())


def _is_no_number(chunk: pa.Array) -> pa.Array:
    """Whether each text of an array is no number; null where it is missing."""
    if not pa.types.is_dictionary(chunk.type):
        return pc.if_else(chunk.is_null(), None, parse_numbers(chunk).is_null())
    return parse_numbers(chunk.dictionary).is_null().take(chunk.indices)


def build_table(files: DataFiles, selection: Selection, buffer_file: Path) -> Table:
    """Read all rows of the columns selected; ``buffer_file`` is a file to be made where they are many.

    Numbers read as text are called by the names of levels. A column that is a number in some rows of a file and text
    in others is text in all.

    Raises:
        DataError: not a row can be read. What else is wrong is in ``findings``, all of it.
    """
    files = files.by_content()
    builder = TableBuilder.of_files(files, selection, buffer_file)
    kinds_by_file, mixed = builder.kinds_by_file(), builder.mixed_columns() - selection.as_text
    if mixed:
        del builder  # and what it has in memory
        builder = TableBuilder.of_files(files, selection._replace(as_text=selection.as_text | mixed), buffer_file)
    findings, data = list(builder.findings()), builder.build()
    table = Table(data, files, builder.starts, (), frozenset(builder.ignored), tuple(builder.others))
    return Table(**(vars(table) | {"findings": (*findings, *_find_retyped(table, kinds_by_file))}))


def _find_retyped(table: Table, kinds: dict[str, dict[str, Kind]]) -> Iterator[Finding]:
    """Columns that are of another kind in some file than in the first that has values in them."""
    for name, by_file in kinds.items():
        if len(set(by_file.values())) < 2:
            continue
        first, other = next(pair for pair in itertools.combinations(by_file, 2) if by_file[pair[0]] != by_file[pair[1]])
        said = f"{name} is {KIND_WORDS[by_file[first]]} in {first}, and {KIND_WORDS[by_file[other]]} in {other}"
        if {by_file[first], by_file[other]} == {"number", "text"} and table.is_text(name):
            row, value = table.first_no_number(name) or (0, "")
            said += f", as {value[:40]!r} in {table.named(row)}"
        action = f"write it alike in all of them, or leave it out with --ignore {name}"
        action += " (and another --name if a version takes it)"
        yield error("retyped-column", name, said, "one kind of value in all files", action)


class TableBuilder:
    """Files on their way to a table: each column as one type; what is wrong with them is collected on the way."""

    def __init__(self, files: DataFiles, selection: Selection, buffer_file: Path) -> None:
        self._files, self._selection = files, selection
        self._buffer = _Buffer(buffer_file)
        self._rows = [0]  # up to each file
        self._faults: dict[str, DataError] = {}  # by file
        self._findings: dict[tuple[str, str | None], Finding] = {}
        self._levels: dict[str, LevelCodes] = {}
        self._kinds: dict[str, dict[str, set[Kind]]] = {}  # of each column in each file that has it
        self.ignored: set[str] = set()
        self.others: dict[str, None] = {}  # columns that are neither read nor to be ignored
        self._numeric = _numeric_partitions(files) - selection.as_text

    @classmethod
    def of_files(cls, files: DataFiles, selection: Selection, buffer_file: Path) -> "TableBuilder":
        """All rows of all files; the fault of one is kept for later.

        Raises:
            DataError: there is no row, or no file is whole.
        """
        builder = cls(files, selection, buffer_file)
        for file in files.files:
            builder._rows.append(builder._rows[-1])
            try:
                for batch in table_batches(file, selection):
                    builder._add(file, batch)
            except DataError as fault:
                builder._faults[file.path] = fault
        faults, rows = builder._faults, builder._rows[-1]
        if faults and (len(faults) == len(files.files) or not rows):
            raise faults[min(faults)]
        if not rows:
            raise DataError(f"{files.source} holds no rows", "rows below the header", "name data with at least one row")
        return builder

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each file, and the number of all rows ``(files + 1,)``."""
        return np.array(self._rows, np.int64)

    def _add(self, file: DataFile, batch: pa.RecordBatch) -> None:
        arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name, value in file.partition.items():
            arrays[name] = tabular.make_constant(value, batch.num_rows, name in self._numeric)
        for name in [each for each in arrays if not self._selection.takes(each)]:
            del arrays[name]
            if name in self._selection.ignore:
                self.ignored.add(name)
            else:
                self.others[name] = None
        if len(arrays) > MAX_COLUMNS:
            raise DataError(
                f"{file.path} has {len(arrays):,} columns", f"at most {MAX_COLUMNS:,}", "leave some out with --ignore"
            )
        columns = {name: self._compress(file.path, name, array) for name, array in arrays.items()}
        if batch.num_rows:
            supported = {name: each for name, each in columns.items() if each is not None}
            self._buffer.add(pa.RecordBatch.from_pydict(supported or {"": pa.nulls(batch.num_rows)}))
            self._rows[-1] += batch.num_rows

    def _compress(self, path: str, name: str, array: pa.Array) -> pa.Array | None:
        """A column of a batch as the buffer keeps it: of text the codes; None where no model can take it."""
        kind = kind_of(array.type)
        if name in self._selection.as_text and kind in ("number", "boolean"):
            array, kind = tabular.to_text(array), "text"
        elif name in self._selection.as_boolean - self._selection.as_text and kind in ("number", "text"):
            array = tabular.to_booleans(array)
            kind = kind_of(array.type)
        kinds = self._kinds.setdefault(name, {}).setdefault(path, set())
        if kind == "unsupported":
            said, action = f"{name} holds {array.type}", f"leave it out with --ignore {name}"
            self._note(error("nested-column", name, said, "numbers, text, booleans or dates", action))
            return None
        if len(array) > array.null_count:
            kinds.add(kind)
        if tabular.has_inexact(array):
            self._note(note("large-integers", name, f"{name} has whole numbers beyond 2^53, which are rounded"))
        if pa.types.is_decimal(array.type):
            self._note(note("decimals", name, f"{name} holds {array.type}, read as float64"))
        array = tabular.normalize(array)
        return self._levels.setdefault(name, LevelCodes()).encode(array) if kind == "text" else array

    def _note(self, finding: Finding) -> None:
        """Once a column."""
        self._findings.setdefault((finding.rule, finding.column), finding)

    def mixed_columns(self) -> frozenset[str]:
        """Columns that are not of one kind, be it within a file or from one to the other."""
        return frozenset(name for name, each in self._kinds.items() if len(set[Kind]().union(*each.values())) > 1)

    def kinds_by_file(self) -> dict[str, dict[str, Kind]]:
        """The kind of each column in each file where it has values, by name: text where it has several."""
        return {
            name: {path: min(kinds) if len(kinds) == 1 else "text" for path, kinds in sorted(files.items()) if kinds}
            for name, files in self._kinds.items()
        }

    def findings(self) -> Iterator[Finding]:
        """What was collected."""
        for _, fault in sorted(self._faults.items()):
            yield error("unreadable-file", None, fault.found, fault.expected, fault.action)
        yield from self._findings.values()
        whole = {file.path for file in self._files.files} - self._faults.keys()
        for name, by_file in self._kinds.items():
            if without := sorted(whole - by_file.keys()):
                said = f"{counted(len(without), 'file')} without column {name}, the first is {without[0]}"
                action = f"add it, leave the files out, or leave it out everywhere with --ignore {name}"
                action += " (and another --name if a version takes it)"
                yield error("missing-column", name, said, "the same columns in all files", action)

    def build(self) -> pa.Table:
        """All rows of all columns; the buffer is used up."""
        names = [name for name in self._kinds if ("nested-column", name) not in self._findings]
        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        for batch in self._buffer.batches():
            arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
            for name in names:
                chunks[name].append(arrays.get(name, pa.nulls(batch.num_rows)))
        return pa.table({name: self._join(name, chunks.pop(name)) for name in names})

    def _join(self, name: str, chunks: list[pa.Array]) -> pa.ChunkedArray:
        """One column of one type: where its files do not agree, of text, and null where it is none."""
        text = {*CODES, pa.string()}
        types = {each.type for each in chunks} - {pa.null()}
        if not types & text:
            type_ = types.pop() if len(types) == 1 else pa.null()
            return pa.chunked_array([each if each.type == type_ else pa.nulls(len(each), type_) for each in chunks])
        codes = [each if each.type in text else pa.nulls(len(each), CODES[0]) for each in chunks]
        return pa.chunked_array([self._levels[name].decode(each) for each in codes])


def _numeric_partitions(files: DataFiles) -> frozenset[str]:
    """Names of folders such as ``year=2024`` whose values are whole numbers everywhere."""
    values: dict[str, list[str]] = {}
    for file in files.files:
        for name, value in file.partition.items():
            values.setdefault(name, []).extend([] if value is None else [value])
    return frozenset(name for name, each in values.items() if all(WHOLE.fullmatch(one) for one in each))


class _Buffer:
    """Record batches in bounded anonymous memory: beyond it they lie in a file and are mapped back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches: list[pa.RecordBatch] = []
        self._size = 0
        self._file: pa.NativeFile | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep a batch."""
        self._batches.append(batch)
        self._size += batch.nbytes
        if self._size > BUFFER_BYTES or self._file is not None:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pa.OSFile(str(self._path), "wb")
        for batch in self._batches:
            with pa.ipc.new_stream(self._file, batch.schema) as writer:
                writer.write_batch(batch)
        self._batches, self._size = [], 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All batches; the file's name is gone afterwards, its content with the last array that lies in it."""
        if self._file is None:
            yield from self._batches
            return
        self._file.close()
        mapped = pa.memory_map(str(self._path))
        self._path.unlink()
        end = mapped.size()
        while mapped.tell() < end:
            yield from pa.ipc.open_stream(mapped)
