"""One way to read for all: tables as batches of Arrow columns, and for prediction rows as a recipe takes them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.data.io import tabular
from tasks.data.io.csv import csv_batches, find_line
from tasks.data.io.discovery import JSON_SUFFIXES, DataFile, DataFiles, broken_file
from tasks.data.io.excel import FIRST_ROW, excel_batches
from tasks.data.io.headers import HEADERLESS, headerless_error
from tasks.data.io.queries import query_batches
from tasks.data.io.tabular import BadRows, Reader, Selection
from tasks.data.recipe import Recipe
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.parameters.addresses import WORKBOOKS, is_database
from tasks.parameters.data import TABLE_FORMATS

READERS: dict[str, Reader] = {
    ".parquet": tabular.parquet_batches,
    **dict.fromkeys((".feather", ".arrow", ".ipc"), tabular.arrow_batches),
    **dict.fromkeys(JSON_SUFFIXES, tabular.json_batches),
    **dict.fromkeys(WORKBOOKS, excel_batches),
}  # all other names mean CSV, except for these
OTHER_FORMATS = {
    ".avro": "Avro",
    ".orc": "ORC",
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), "a pickle, which runs code when it is read"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".duckdb", ".mdb", ".accdb"), "a database"),
    **dict.fromkeys((".xlsb", ".xlsm"), "a workbook"),
    **dict.fromkeys((".h5", ".hdf5", ".nc", ".mat"), "a file of arrays"),
    **dict.fromkeys((".dta", ".sav", ".sas7bdat", ".rds", ".rdata", ".rda"), "a statistics program's file"),
    **dict.fromkeys((".zip", ".tar", ".7z", ".bz2", ".xz", ".zst"), "an archive"),
}

CHUNK_ROWS = 2**17  # one row group of the output: smaller ones cost more, larger ones gain nothing
CHUNK_BYTES = 64 * 2**20
SINGLE_VALUES = {"text", "number", "boolean", "date", "null"}  # kinds of columns that can be copied or compared


def is_csv(file: DataFile) -> bool:
    """Whether a file, by its name, is text without types: CSV, whatever it is called."""
    return file.suffix not in READERS and not is_database(file.path)


def keep_copies(files: DataFiles, folder: Path) -> DataFiles:
    """The files, with copies in a folder of those of other hosts and of answers to queries, which are read once.

    Raises:
        DataError: a host or a database does not answer.
    """

    def keep_copy(number: int, file: DataFile) -> DataFile:
        path = folder / f"source-{number}"
        if not is_database(file.path):
            return file.download(path) if file.is_remote else file
        with pa.OSFile(str(path), "wb") as sink:
            for batch in query_batches(file.path, file.selected):
                tabular.write_batch(sink, batch)
        return file._replace(copy=str(path))

    return files._replace(files=tuple(keep_copy(number, file) for number, file in enumerate(files.files)))


def table_batches(file: DataFile, selection: Selection, bad_rows: BadRows = "raise") -> Iterator[pa.RecordBatch]:
    """The rows of a table's file in order, each of its columns typed as in the file.

    Values that folders give to all its rows are columns, too, and replace columns of the file with those names. The
    first batch of most formats has no rows and all columns. Unreadable rows of CSV ``raise`` an error, or are there as
    nulls with the reason in a last column, ``csv.FAULT``; other formats have none: a file is intact or not.

    Raises:
        DataError: the file is broken or gone.
    """
    with nullcontext() if is_database(file.path) else file.open() as stream:
        if is_database(file.path):
            answer = tabular.map_batches(Path(file.copy)) if file.copy else None
            batches = answer or query_batches(file.path, file.selected)
        elif file.suffix in READERS:
            batches = READERS[file.suffix](stream, file.path, selection._replace(sheet=file.selected))
        elif file.suffix in OTHER_FORMATS:
            action = "save the table as one of these"
            if (found := OTHER_FORMATS[file.suffix]) == "a database":
                action += f", or name SQLite as sqlite:///{file.path} with --query"
            raise broken_file(file.path, f"it is {found}", TABLE_FORMATS, action)
        else:
            batches = csv_batches(stream, file.path, selection, bad_rows)
        for batch in batches:
            batch = batch if is_csv(file) else tabular.drop_errors(batch)  # the reader of CSV has done so
            if selection.also_missing:
                batch = tabular.drop_missing(batch, selection)
            for name, value in file.partition.items():
                at, values = batch.schema.get_field_index(name), pa.repeat(value, batch.num_rows)
                batch = batch.append_column(name, values) if at < 0 else batch.set_column(at, name, values)
            yield batch


def locate_row(file: DataFile, row: int, selection: Selection) -> str:
    """Where in a file the row is that ``table_batches`` counts from 0: its line, or its number, from 1."""
    place = f"row {row + 1:,}"
    with suppress(DataError, OSError):
        if is_database(file.path) or (file.is_remote and not file.copy):
            pass
        elif is_csv(file):
            with file.open() as stream:
                place = f"line {find_line(stream, file.path, selection, row):,}"
        elif file.suffix in JSON_SUFFIXES:
            with file.open() as stream:
                place = f"row {tabular.find_json_line(stream, file.path, selection, row):,}"
        elif file.suffix in WORKBOOKS:
            place = f"row {int(next(table_batches(file, selection)).schema.metadata[FIRST_ROW]) + row:,}"
    return place


def read_header(
    files: Iterable[DataFile], selection: Selection, bad_rows: BadRows = "raise", has_options: bool = True
) -> list[str]:
    """The names of all columns of files, in order, from their headers and the folders in which they lie.

    JSON lines have no header: their names are those that occur in any of the first rows. ``has_options``: the command
    has --header and --names.

    Raises:
        DataError: a file is broken, or has no header.
    """
    names = dict[str, None]()
    for file in files:
        schema = next(table_batches(file, selection._replace(only=frozenset()), bad_rows)).schema
        if HEADERLESS in (schema.metadata or {}):
            raise headerless_error(file.path, schema.metadata[HEADERLESS], has_options)
        names |= dict.fromkeys(schema.names)
    return [*names]


class ReadSpec(NamedTuple):
    """What a prediction reads: rows as a recipe takes them, and the true labels that a file may bring along."""

    recipe: Recipe
    columns: tuple[str, ...] = ()  # of a table, replacing the recipe's
    y_name: str | None = None  # the name of the labels in files of arrays
    class_names: tuple[str, ...] = ()  # empty for a number
    ids: tuple[str, ...] = ()  # columns of a table to copy to the output
    unknown: Literal["reject", "average"] = "average"  # levels and missing values that no row of the data had

    @property
    def row_bytes(self) -> int:
        """The size of one row in memory."""
        return math.prod(self.recipe.input.shape) * np.dtype(self.recipe.input.dtype).itemsize

    @property
    def chunk_rows(self) -> int:
        """How many rows one worker holds in memory at a time, with a probability for every class."""
        answer_bytes = len(self.class_names) * np.dtype(np.float32).itemsize
        return max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(self.row_bytes, answer_bytes)))

    def is_valid(self, values: Array) -> Array:
        """Which of the encoded values ``(n, columns)`` the model can take: one that it has not seen is average."""
        valid: Array = np.isfinite(values)
        for at, column in enumerate(self.recipe.columns):
            if column.kind == "boolean":
                valid[:, at] &= np.isin(values[:, at], (0, 1))
            if column.has_missing or not column.is_plain:
                valid[:, at] |= np.isnan(values[:, at])
        return valid

    def is_unseen(self, values: Array) -> Array:
        """Which of the encoded values ``(n, columns)`` are a level, or missing, as in no row of the version's data."""
        unseen = np.zeros(values.shape, bool)
        for at, column in enumerate(self.recipe.columns):
            codes = values[:, at]
            if column.kind == "category":
                is_level = (codes >= 0) & (codes < len(column.levels)) & (codes == np.floor(codes))
                unseen[:, at] = np.isfinite(codes) & ~is_level
            if not column.has_missing:
                unseen[:, at] |= np.isnan(codes)
        return unseen

    def describe(self) -> str:
        """The rows in words."""
        shape = ", ".join(map(str, ("rows", *self.recipe.input.shape)))
        return f"{self.recipe.input.dtype} of shape [{shape}], at least one row"


class InputFile(NamedTuple):
    """One file of an input: ``readable`` is the file itself, or the one that its rows were spilled or unpacked to.

    ``bytes`` and ``mtime_ns`` describe the file itself, before it was read.
    """

    path: str
    format: str
    readable: str
    first_row: int
    rows: int
    bytes: int
    mtime_ns: int
    label: float | None = None  # the class of all its rows, if the folder gives it


class Batch(NamedTuple):
    """Consecutive rows as the model takes them, from one file or several small ones; a rejected row keeps its place."""

    X: Array  # (n, …) in the dtype and shape of the model's input, in memory or mapped; a rejected row has any values
    first_row: int  # the number of the first row, counted through all files
    reasons: Mapping[int, str]  # by index among these rows: why a row is rejected
    y_true: Array | None  # (n,) labels, or a table's float64 target, NaN if missing; None: there are none
    notes: tuple[str, ...]
    passthrough: pa.Table | None  # (n,) columns of text that go to the output unchanged
    sources: dict[str, int]  # each file once, with the number of its first row
    source_index: Array  # (n,) int32 into ``sources``

    @property
    def num_rows(self) -> int:
        """The number of rows, rejected or not."""
        return len(self.source_index)

    @property
    def is_accepted(self) -> Array:
        """Which rows are not rejected, ``(n,)``."""
        accepted = np.ones(self.num_rows, bool)
        accepted[[*self.reasons]] = False
        return accepted


def make_batch(
    file: InputFile,
    first: int,
    rows: Array,
    rejects: Mapping[int, str] | None = None,
    passthrough: pa.Table | None = None,
    y_true: Array | None = None,
    notes: tuple[str, ...] = (),
) -> Batch:
    """A batch of consecutive rows of a file, beginning with row ``first``.

    ``rejects`` gives, by index among these rows, the reasons why some cannot be predicted.
    """
    if file.label is not None:
        y_true = np.full(len(rows), file.label)
    sources, source_index = {file.path: file.first_row}, np.zeros(len(rows), np.int32)
    return Batch(rows, file.first_row + first, rejects or {}, y_true, notes, passthrough, sources, source_index)
