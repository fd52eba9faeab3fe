"""What every kind of input file has in common."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.io import pictures
from tasks.data.io.file_errors import broken as broken
from tasks.data.io.file_errors import changed as changed
from tasks.data.io.file_errors import reading as reading
from tasks.data.recipe import Column, Columns, Recipe
from tasks.errors import DataError
from tasks.store import regular_files

if TYPE_CHECKING:
    from tasks.data.io.arrays import StoredArray

Array = NDArray[Any]
UNKNOWN = -1.0  # the code of any level that a recipe has not
Rows: TypeAlias = "Array | StoredArray"  # rows in memory, or still in their file; ``np.asarray`` reads them

PACKED = ".gz"
CHUNK_ROWS = 2**17  # one row group of the output: smaller ones cost more, larger ones gain nothing
CHUNK_BYTES = 64 * 2**20
SHARD_ROWS, SHARD_BYTES = 2**22, 2**31


class Wanted(NamedTuple):
    """What to read: rows as a recipe takes them, and the true labels that a file may bring along."""

    recipe: Recipe
    columns: tuple[str, ...] = ()  # of a table, instead of the recipe's
    truth: str | None = None  # what the labels are called in files of arrays
    class_names: tuple[str, ...] = ()  # none of a number
    ids: tuple[str, ...] = ()  # columns of a table to copy to the output
    unknown: str = "reject"  # levels and missing values that no row of the version's data had; or ``average``

    @property
    def row_bytes(self) -> int:
        """The size of one row in memory."""
        return math.prod(self.recipe.input.shape) * np.dtype(self.recipe.input.dtype).itemsize

    @property
    def chunk_rows(self) -> int:
        """How many rows are held in memory at a time, by one worker, with a probability of every class."""
        answer_bytes = len(self.class_names) * np.dtype(np.float32).itemsize
        return max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(self.row_bytes, answer_bytes)))

    def fits(self, values: Array) -> Array:
        """Which of encoded values ``(n, …)`` the model may be fed."""
        fits: Array = np.isfinite(values)
        if isinstance(self.recipe, Columns) and self.recipe.target is not None:
            for at, column in enumerate(self.recipe.columns):
                if (is_of_kind := _is_of_kind(values[:, at], column, self.unknown)) is not True:  # a pass for nothing
                    fits[:, at] &= is_of_kind
                if column.has_missing or self.unknown == "average":
                    fits[:, at] |= np.isnan(values[:, at])
        return fits

    def describe(self) -> str:
        """The rows in words."""
        shape = ", ".join(map(str, ("rows", *self.recipe.input.shape)))
        return f"{self.recipe.input.dtype} of shape [{shape}], at least one row"


def _is_of_kind(values: Array, column: Column, unknown: str) -> Array | bool:
    if column.kind == "number" or (column.kind == "category" and unknown == "average"):
        return True
    size = len(column.levels) if column.kind == "category" else 2
    is_whole: Array = values == np.floor(values)
    if is_whole.all() and values.min(initial=0) >= 0 and values.max(initial=0) < size:  # as nearly always
        return True
    return (values >= 0) & (values < size) & is_whole


class Piece(NamedTuple):
    """Some consecutive rows of one file: ``num_rows`` from row ``first`` on, of which ``values`` holds the good ones.

    ``kept`` gives the offsets of the good rows (None: all of them), ``rejects`` those of the others with the reason.
    """

    first: int
    num_rows: int
    values: Rows
    kept: Array | None = None
    rejects: tuple[tuple[int, str], ...] = ()
    truth: Array | None = None
    notes: tuple[str, ...] = ()
    extra: pa.RecordBatch | None = None  # (num_rows,) columns of text that go along as they are

    def kept_offsets(self) -> Array:
        """The offsets of the good rows ``(len(values),)`` int64."""
        return np.arange(self.num_rows, dtype=np.int64) if self.kept is None else self.kept


@dataclass(frozen=True)
class Format:
    """How to read one kind of file.

    ``count`` checks that a file as a whole fits what is wanted and returns its number of rows. ``pieces`` reads the
    rows from ``start`` to ``stop``, at most ``chunk_rows`` at a time. Files that are ``is_packed`` are ``unpack``-ed
    first.
    """

    name: str
    suffixes: tuple[str, ...]
    count: Callable[[Path, Wanted], int]
    pieces: Callable[[Path, int, int, Wanted], Iterator[Piece]]
    tolerated_percent: int = 0  # of its rows may be rejected
    most_shard_rows: int = SHARD_ROWS
    unpack: Callable[[Path, Path, Wanted], None] | None = None
    unpacked_suffix: str = ""
    is_packed: Callable[[Path], bool] = lambda path: True
    header: Callable[[Path], list[str]] | None = None  # of a table: the names of all its columns

    def shard_rows(self, wanted: Wanted) -> int:
        """The most rows of a shard."""
        return max(1, min(self.most_shard_rows, SHARD_BYTES // wanted.row_bytes))


def encoded(first: int, rows: Array, wanted: Wanted, truth: Array | None = None) -> Piece:
    """Raw rows ``(n, …)`` from row ``first`` on as the recipe encodes them; what it does not take is rejected."""
    values = wanted.recipe.encode(rows)
    whole = Piece(first, len(values), values, truth=truth)
    if values.shape != rows.shape:
        notes = pictures.changes((rows.shape[2], rows.shape[1]), pictures.mode_of(rows.shape[1:]), values.shape[1:])
        return whole._replace(notes=notes * len(values))
    if values.dtype.kind != "f" or (good := wanted.fits(values).reshape(len(values), -1).all(axis=1)).all():
        return whole
    kept = np.flatnonzero(good)
    return whole._replace(
        values=values[kept],
        kept=kept,
        rejects=tuple((int(offset), "not a finite number") for offset in np.flatnonzero(~good)),
        truth=None if truth is None else truth[kept],
    )


def check_fit(path: Path, dtype: Any, shape: tuple[int, ...], wanted: Wanted) -> None:
    """Whether the recipe takes an array of this dtype and row ``shape``.

    Raises:
        DataError: it does not.
    """
    if not wanted.recipe.accepts(dtype, shape):
        raise DataError(
            f"{path} holds {np.dtype(dtype)} rows of shape {list(shape)}",
            wanted.describe(),
            "convert the file, or name the model that it is for with --name",
        )


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Any]:
    """The bytes of a file as a stream of pyarrow; of a ``.gz`` what was packed.

    Raises:
        DataError: it is gone or no regular file.
    """
    with regular_files.opened(path) as raw:
        stream = pa.PythonFile(raw, mode="r")
        yield pa.CompressedInputStream(stream, "gzip") if path.suffix.lower() == PACKED else stream


def broken_table(name: str, reason: object, expected: str, action: str = "mend it, or leave it out") -> DataError:
    """The same of a file of a table, by path or URL."""
    return DataError(f"{name} cannot be read: {reason}", expected, action)
