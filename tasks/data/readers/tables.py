"""Tables: Parquet by row group, and CSV, which has no middle to start from and is made into Parquet first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.readers import formats, pixels
from tasks.data.readers.csv import csv_to_parquet
from tasks.data.readers.formats import Format, Piece, Wanted, broken, encoded, reading
from tasks.data.recipe import Pixels
from tasks.errors import DataError, UsageError

TOLERATED_PERCENT = 1
BUFFER_BYTES = 2**16
LARGEST = float(np.finfo(np.float32).max)


def _count(path: Path, wanted: Wanted) -> int:
    with _opened(path) as file:
        _columns(path, file.schema_arrow, wanted)
        return _num_rows(path, file.metadata)


def _csv_count(path: Path, wanted: Wanted) -> int:
    with _opened(path) as file:
        return _num_rows(path, file.metadata)


def _num_rows(path: Path, metadata: Any) -> int:
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if min(groups, default=0) < 0 or sum(groups) != metadata.num_rows:
        raise broken(path, f"it promises {metadata.num_rows} rows, and row groups of {sum(groups)}")
    return int(metadata.num_rows)


def _opened(path: Path) -> pq.ParquetFile:
    """A file that is read a buffer at a time: neither mapped (see ``stored``), nor by whole columns of a row group."""
    with reading(path):
        return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)


def _columns(path: Path, schema: pa.Schema, wanted: Wanted) -> list[str]:
    """The columns to read: the one of pixels, or a numeric one for each feature.

    Raises:
        DataError: they are not there or hold something else.
    """
    if isinstance(wanted.recipe, Pixels):
        return [pixels.column_name(path, schema, wanted)]
    columns = _feature_names(wanted)
    for name in columns:
        found = schema.get_all_field_indices(name)
        kind = schema.field(found[0]).type if len(found) == 1 else None
        if kind is None or not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise DataError(
                f"{path} has columns {pixels.named(schema)}",
                f"one numeric column for each of {', '.join(columns)}",
                "rename the columns, or name them in the model's order with --columns",
            )
    return list(columns)


def _feature_names(wanted: Wanted) -> tuple[str, ...]:
    """The column of each feature.

    Raises:
        UsageError: as many as the model has features, each another, were not named.
    """
    (features,) = wanted.recipe.input.shape
    names = wanted.columns or wanted.recipe.names
    if len(set(names)) != len(names) or len(names) != features:
        raise UsageError(f"columns {', '.join(names)}", f"{features} different ones", "name them with --columns")
    return names


def _pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
    with _opened(path) as file:
        columns = _columns(path, file.schema_arrow, wanted)
        for first, rows in _rows(path, file, columns, start, stop, wanted.chunk_rows):
            if isinstance(wanted.recipe, Pixels):
                yield pixels.images(first, rows, wanted)
            else:
                yield _features(first, [rows.column(name) for name in columns], wanted)


def _csv_pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
    """The rows of what a CSV file was unpacked into: columns in the model's order, and last the faults."""
    with _opened(path) as file:
        for first, rows in _rows(path, file, None, start, stop, wanted.chunk_rows):
            *columns, faults = rows.columns
            yield _features(first, columns, wanted, faults)


def _rows(
    path: Path, file: pq.ParquetFile, columns: list[str] | None, start: int, stop: int, at_most: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows from ``start`` to ``stop`` and the number of the first, at most so many and so large at a time.

    Raises:
        DataError: the file is broken, which for a damaged page shows only here.
    """
    groups, first = _row_groups(file.metadata, start, stop)
    with reading(path):
        batches = file.iter_batches(min(at_most, _most_rows(file.metadata, groups)), groups, columns, use_threads=False)
    while True:
        with reading(path):
            batch = next(batches, None)
        if batch is None:
            break
        low, high = max(start - first, 0), min(stop - first, batch.num_rows)
        if low < high:
            yield first + low, batch.slice(low, high - low)
        first += batch.num_rows
    if first < stop:
        raise broken(path, f"it ends at row {first}, and its footer promises more")


def _most_rows(metadata: Any, groups: list[int]) -> int:
    """How many rows of the widest group fit a chunk: they may be far larger than those that the model takes."""
    widest = max(metadata.row_group(group).total_byte_size / metadata.row_group(group).num_rows for group in groups)
    return max(1, int(formats.CHUNK_BYTES / max(1, widest)))


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows from ``start`` to ``stop``, and the number of their first row."""
    groups: list[int] = []
    first, total = 0, 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if total < stop and total + rows > start:
            first = first if groups else total
            groups.append(group)
        total += rows
    return groups, first


def _features(first: int, columns: list[pa.Array], wanted: Wanted, faults: pa.Array | None = None) -> Piece:
    """One float32 row of features for each row of numeric columns; empty, NaN and infinite values are rejected."""
    values = np.stack(
        [column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False) for column in columns],
        axis=1,  # large integers are rounded, as numpy rounds them
    )
    piece = encoded(first, values, wanted)
    if not piece.rejects:
        return piece
    said = [None] * len(values) if faults is None else faults.to_pylist()
    reasons = ((offset, said[offset] or _reason(columns, offset, wanted)) for offset, _ in piece.rejects)
    return piece._replace(rejects=tuple(reasons))


def _reason(columns: list[pa.Array], offset: int, wanted: Wanted) -> str:
    for name, column in zip(_feature_names(wanted), columns, strict=True):
        value = column[offset].as_py()
        if value is None:
            return f"{name} is missing"
        if not abs(value) <= LARGEST:
            return f"{name} is {value}, not a finite number"
    raise AssertionError("a rejected row has a column to blame")


def _unpack_csv(path: Path, target: Path, wanted: Wanted) -> None:
    if isinstance(wanted.recipe, Pixels):
        raise DataError(f"{path} is a CSV file", "images (IDX, .npy, Parquet, PNG …)", "convert it, or choose --name")
    csv_to_parquet(path, target, _feature_names(wanted))


PARQUET = Format("parquet", (".parquet",), _count, _pieces, tolerated_percent=TOLERATED_PERCENT)
CSV = Format(
    "csv",
    (".csv",),
    _csv_count,
    _csv_pieces,
    tolerated_percent=TOLERATED_PERCENT,
    unpack=_unpack_csv,
    unpacked_suffix=".parquet",
)
