"""Files of a table gathered batch by batch: each column as one type, faults and oddities collected on the way."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.readers import columns
from tasks.data.readers.columnar import OF_BATCHES, Reader, parquet_batches
from tasks.data.readers.columns import Kind, Levels, Selection
from tasks.data.readers.delimited import csv_batches
from tasks.data.readers.spool import Spool
from tasks.data.readers.text import json_batches
from tasks.data.report import Finding, error, note
from tasks.data.sources.table_files import TableFile, TableFiles
from tasks.errors import DataError
from tasks.machine.words import counted

MOST_COLUMNS = 2000
WHOLE = re.compile("-?[0-9]+")
READERS: dict[str, Reader] = {
    ".parquet": parquet_batches,
    **OF_BATCHES,
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), json_batches),
}  # whatever else is named is CSV


def gathered(files: TableFiles, selection: Selection, spool: Path) -> "Gathering":
    """All rows of all files.

    Raises:
        DataError: there is not one that can be read.
    """
    gathering = Gathering(files, selection, spool)
    for file in files.files:
        gathering.read(file)
    gathering.check()
    return gathering


class Gathering:
    """Files on their way to a table."""

    def __init__(self, files: TableFiles, selection: Selection, spool: Path) -> None:
        self._files, self._selection = files, selection
        self._spool = Spool(spool)
        self._rows = [0]  # up to each file
        self._faults: dict[str, DataError] = {}  # by file
        self._notes: dict[tuple[str, str | None], Finding] = {}
        self._levels: dict[str, Levels] = {}
        self._kinds: dict[str, dict[str, set[Kind]]] = {}  # of each column in each file that has it
        self.others: dict[str, None] = {}  # columns that are neither read nor to be ignored
        self._numeric = _numeric_partitions(files) - selection.as_text

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each file, and the number of all rows ``(files + 1,)``."""
        return np.array(self._rows, np.int64)

    def read(self, file: TableFile) -> None:
        """Read one file; its fault is kept for later."""
        self._rows.append(self._rows[-1])
        try:
            with file.opened() as stream:
                for batch in READERS.get(file.suffix, csv_batches)(stream, file.path, self._selection):
                    self._add(file, batch)
        except DataError as fault:
            self._faults[file.path] = fault

    def check(self) -> None:
        """Whether there are rows.

        Raises:
            DataError: there is none, or no file is whole.
        """
        if self._faults and (len(self._faults) == len(self._files.files) or not self._rows[-1]):
            raise self._faults[min(self._faults)]
        if not self._rows[-1]:
            raise DataError(
                f"{self._files.source} holds no rows", "rows below the header", "name data with at least one row"
            )

    def _add(self, file: TableFile, batch: pa.RecordBatch) -> None:
        arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
        for name, value in file.partition.items():
            arrays[name] = columns.constant(value, batch.num_rows, name in self._numeric)
        for name in [each for each in arrays if not self._selection.takes(each)]:
            del arrays[name]
            self.others |= {name: None} if name not in self._selection.ignore else {}
        if len(arrays) > MOST_COLUMNS:
            raise DataError(
                f"{file.path} has {len(arrays):,} columns", f"at most {MOST_COLUMNS:,}", "leave some out with --ignore"
            )
        arrays = {name: self._kept(file.path, name, array) for name, array in arrays.items()}
        if batch.num_rows:
            kept = {name: each for name, each in arrays.items() if each is not None}
            self._spool.add(pa.RecordBatch.from_pydict(kept or {"": pa.nulls(batch.num_rows)}))  # rows all the same
            self._rows[-1] += batch.num_rows

    def _kept(self, path: str, name: str, array: pa.Array) -> pa.Array | None:
        """A column of a batch as the spool keeps it: of text the codes; None where no model can take it."""
        kind = columns.kind_of(array.type)
        if name in self._selection.as_text and kind in ("number", "boolean"):
            array, kind = columns.texts(array), "text"
        elif name in self._selection.as_boolean - self._selection.as_text and kind in ("number", "text"):
            array = columns.booleans(array)
            kind = columns.kind_of(array.type)
        kinds = self._kinds.setdefault(name, {}).setdefault(path, set())
        if kind == "unfit":
            found, action = f"{name} holds {array.type}", f"leave it out with --ignore {name}"
            self._note(error("nested-column", name, found, "numbers, text, booleans or dates", action))
            return None
        if len(array) > array.null_count:
            kinds.add(kind)
        if columns.is_beyond_exact(array):
            self._note(note("large-integers", name, f"{name} has whole numbers beyond 2^53, which are rounded"))
        if pa.types.is_decimal(array.type):
            self._note(note("decimals", name, f"{name} holds {array.type}, read as float64"))
        array = columns.plain(array)
        return self._levels.setdefault(name, Levels()).codes(array) if kind == "text" else array

    def _note(self, finding: Finding) -> None:
        """Once a column."""
        self._notes.setdefault((finding.rule, finding.column), finding)

    def mixed(self) -> frozenset[str]:
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
        yield from self._notes.values()
        whole = {file.path for file in self._files.files} - self._faults.keys()
        for name, by_file in self._kinds.items():
            if without := sorted(whole - by_file.keys()):
                found = f"{counted(len(without), 'file')} without column {name}, the first is {without[0]}"
                action = f"add it, leave the files out, or leave it out everywhere with --ignore {name}"
                action += " (and another --name if a version takes it)"
                yield error("missing-column", name, found, "the same columns in all files", action)

    def table(self) -> pa.Table:
        """All rows of all columns; the spool is used up."""
        names = [name for name in self._kinds if ("nested-column", name) not in self._notes]
        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        for batch in self._spool.batches():
            held = dict(zip(batch.schema.names, batch.columns, strict=True))
            for name in names:
                chunks[name].append(held.get(name, pa.nulls(batch.num_rows)))
        return pa.table({name: self._column(name, chunks.pop(name)) for name in names})

    def _column(self, name: str, chunks: list[pa.Array]) -> pa.ChunkedArray:
        """One column of one type: where its files do not agree, of text, and null where it is none."""
        text = {*columns.CODES, pa.string()}
        types = {each.type for each in chunks} - {pa.null()}
        if not types & text:
            kind = types.pop() if len(types) == 1 else pa.null()
            return pa.chunked_array([each if each.type == kind else pa.nulls(len(each), kind) for each in chunks])
        codes = [each if each.type in text else pa.nulls(len(each), columns.CODES[0]) for each in chunks]
        return pa.chunked_array([self._levels[name].restored(each) for each in codes])


def _numeric_partitions(files: TableFiles) -> frozenset[str]:
    """Names of folders such as ``year=2024`` whose values are whole numbers everywhere."""
    values: dict[str, list[str]] = {}
    for file in files.files:
        for name, value in file.partition.items():
            values.setdefault(name, []).extend([] if value is None else [value])
    return frozenset(name for name, each in values.items() if all(WHOLE.fullmatch(one) for one in each))
