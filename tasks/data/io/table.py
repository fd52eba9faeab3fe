"""A whole table as one Arrow table in bounded anonymous memory, whatever its files are: kinds are inferred from it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.io import tabular
from tasks.data.io.batches import table_batches
from tasks.data.io.discovery import DataFile, DataFiles
from tasks.data.io.tabular import CODE, MAX_COLUMNS, Kind, LevelCodes, Selection, kind_of
from tasks.data.levels import Levels, find_levels
from tasks.data.report import Finding, error, note
from tasks.errors import DataError
from tasks.machine.words import counted

SHOWN = 40  # characters of a value
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
    header: tuple[str, ...] = ()  # all columns that a model can take, be they read or not
    _levels: dict[str, Levels] = field(default_factory=dict)  # of dictionaries, once they were counted
    _limits: dict[str, tuple[float, float]] = field(default_factory=dict)

    def named(self, row: int) -> str:
        """A row in words: its number in its file, from 0, and the file."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        return f"row {row - self.starts[file]:,} of {self.files.files[file].path}"

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
            chunks = map(tabular.to_numbers, self.data[name].chunks)
            found = [(np.fmin.reduce(each), np.fmax.reduce(each)) for each in chunks if len(each)] or [(np.nan, np.nan)]
            low, high = np.fmin.reduce(found)[0], np.fmax.reduce(found)[1]
            self._limits[name] = float(low), float(high)
        return self._limits[name]

    def number_share(self, name: str) -> float:
        """The share of a text column's values that read as numbers; 0 where it has none."""
        levels = self.levels(name)
        is_number = tabular.parse_numbers(levels.values).is_valid().to_numpy(zero_copy_only=False)
        return float(levels.counts[is_number].sum() / max(1, levels.counts.sum()))

    def example_of_text(self, name: str) -> str:
        """The first value of a text column that reads as no number, and where it is; nothing where all do."""
        levels = self.levels(name)
        is_text = levels.take(np.append(tabular.parse_numbers(levels.values).is_null(), False))
        row = int(is_text.argmax())
        return f"{str(self.data[name][row])[:SHOWN]!r} in {self.named(row)}" if is_text[row] else ""


def build_table(files: DataFiles, selection: Selection, buffer_file: Path) -> Table:
    """Read all rows of the columns selected, into ``buffer_file``, whose name is gone afterwards.

    Numbers read as text are called by the names of levels. A column that is a number in some rows of a file and text
    in others is text in all.

    Raises:
        DataError: not a row can be read. What else is wrong is in ``findings``, all of it.
    """
    files = files.by_content()
    first = reader = _TableReader(files, selection)
    reader.read(buffer_file)
    mixed = {name for name, by_file in reader.kinds.items() if len(set[Kind]().union(*by_file.values())) > 1}
    if mixed - selection.as_text:
        reader = _TableReader(files, selection._replace(as_text=selection.as_text | mixed))
        reader.read(buffer_file)
    data, starts = reader.build(buffer_file), np.array(reader.starts, np.int64)
    header = [name for name in reader.header if name in data.column_names or not selection.takes(name)]
    table = Table(data, files, starts, (), tuple(header))
    return replace(table, findings=(*reader.find_faults(), *_find_retyped(table, first.kinds)))


def _find_retyped(table: Table, kinds: dict[str, dict[str, set[Kind]]]) -> Iterator[Finding]:
    """Columns that are of another kind in some file than in the first that has values in them."""
    for name, files in kinds.items():
        # a column of several kinds within a file is text there
        by_file: dict[str, Kind] = {
            path: min(each) if len(each) == 1 else "text" for path, each in files.items() if each
        }
        paths = sorted(by_file)
        other = next((path for path in paths if by_file[path] != by_file[paths[0]]), None)
        if other is None:
            continue
        here, there = by_file[paths[0]], by_file[other]
        said = f"{name} is {KIND_WORDS[here]} in {paths[0]}, and {KIND_WORDS[there]} in {other}"
        if {here, there} == {"number", "text"} and table.is_text(name) and (example := table.example_of_text(name)):
            said += f", as {example}"
        remedy = "write it alike in all of them, or leave it out"
        yield _differing("retyped-column", name, said, "one kind of value in all files", remedy)


def _differing(rule: str, name: str, found: str, expected: str, remedy: str) -> Finding:
    action = f"{remedy} with --ignore {name} (and another --name if a version takes it)"
    return error(rule, name, found, expected, action)


class _TableReader:
    """Files on their way to a table: each column as one type; what is wrong with them is collected on the way."""

    def __init__(self, files: DataFiles, selection: Selection) -> None:
        self._files, self._selection = files, selection
        self.starts = [0]  # the rows up to each file
        self.kinds: dict[str, dict[str, set[Kind]]] = {}  # of each column in each file that has it
        self.header: dict[str, None] = {}  # all columns, be they read or not
        self._faults: dict[str, DataError] = {}  # by file
        self._findings: dict[tuple[str, str | None], Finding] = {}  # one for each rule and column
        self._levels: dict[str, LevelCodes] = {}

    def read(self, path: Path) -> None:
        """Write all rows of all files to a file of batches; the fault of one is kept for later.

        Raises:
            DataError: there is no row, or no file is whole.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(path), "wb") as sink:
            for file in self._files.files:
                self.starts.append(self.starts[-1])
                try:
                    for batch in table_batches(file, self._selection):
                        columns = self._convert(file, batch)
                        if batch.num_rows:
                            columns = columns or {"": pa.nulls(batch.num_rows)}
                            tabular.write_batch(sink, pa.RecordBatch.from_pydict(columns))
                            self.starts[-1] += batch.num_rows
                except DataError as fault:
                    self._faults[file.path] = fault
        if self._faults and (len(self._faults) == len(self._files.files) or not self.starts[-1]):
            raise self._faults[min(self._faults)]
        if not self.starts[-1]:
            found, action = f"{self._files.source} holds no rows", "name data with at least one row"
            raise DataError(found, "rows below the header", action)

    def _convert(self, file: DataFile, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        """The columns of a batch that are read and that a model can take, of text the codes."""
        arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
        self.header |= dict.fromkeys(arrays)
        arrays = {name: array for name, array in arrays.items() if self._selection.takes(name)}
        if len(arrays) > MAX_COLUMNS:
            found = f"{file.path} has {len(arrays):,} columns"
            raise DataError(found, f"at most {MAX_COLUMNS:,}", "leave some out with --ignore")
        columns = {name: self._convert_column(file.path, name, array) for name, array in arrays.items()}
        return {name: column for name, column in columns.items() if column is not None}

    def _convert_column(self, path: str, name: str, array: pa.Array) -> pa.Array | None:
        kind = kind_of(array.type)
        if name in self._selection.as_text and kind in ("number", "boolean"):
            array = tabular.to_text(array)
        elif name in self._selection.as_boolean - self._selection.as_text and kind in ("number", "text"):
            array = tabular.to_booleans(array)
        kind = kind_of(array.type)
        kinds, finding = self.kinds.setdefault(name, {}).setdefault(path, set()), None
        if kind == "unsupported":
            said, action = f"{name} holds {array.type}", f"leave it out with --ignore {name}"
            finding = error("nested-column", name, said, "numbers, text, booleans or dates", action)
        elif tabular.has_inexact(array):
            finding = note("large-integers", name, f"{name} has whole numbers beyond 2^53, which are rounded")
        elif pa.types.is_decimal(array.type):
            finding = note("decimals", name, f"{name} holds {array.type}, read as float64")
        if finding:
            self._findings.setdefault((finding.rule, name), finding)
        if kind == "unsupported":
            return None
        if len(array) > array.null_count:
            kinds.add(kind)
        array = tabular.normalize(array)
        return self._levels.setdefault(name, LevelCodes()).encode(array) if kind == "text" else array

    def find_faults(self) -> Iterator[Finding]:
        """What was collected."""
        for _, fault in sorted(self._faults.items()):
            yield error("unreadable-file", None, fault.found, fault.expected, fault.action)
        yield from self._findings.values()
        whole = {file.path for file in self._files.files} - self._faults.keys()
        for name, by_file in self.kinds.items():
            if without := sorted(whole - by_file.keys()):
                said = f"{counted(len(without), 'file')} without column {name}, the first is {without[0]}"
                remedy = "add it, leave the files out, or leave it out everywhere"
                yield _differing("missing-column", name, said, "the same columns in all files", remedy)

    def build(self, path: Path) -> pa.Table:
        """All rows of all columns, mapped from the file that ``read`` has written; its name is gone."""
        names = [name for name in self.kinds if ("nested-column", name) not in self._findings]
        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        for batch in tabular.map_batches(path):
            arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
            for name in names:
                chunks[name].append(arrays.get(name, pa.nulls(batch.num_rows)))
        path.unlink()
        return pa.table({name: self._join(name, chunks.pop(name)) for name in names})

    def _join(self, name: str, chunks: list[pa.Array]) -> pa.ChunkedArray:
        """One column of one type: where its files do not agree, of text, and null where it is none."""
        text = {CODE, pa.string()}
        types = {each.type for each in chunks} - {pa.null()}
        is_text = bool(types & text)
        type_ = CODE if is_text else types.pop() if len(types) == 1 else pa.null()
        kept = text if is_text else {type_}
        arrays = [each if each.type in kept else pa.nulls(len(each), type_) for each in chunks]
        return pa.chunked_array([self._levels[name].decode(each) for each in arrays] if is_text else arrays)
