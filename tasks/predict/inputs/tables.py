"""Tables: Parquet by row group, and CSV, which has no middle to start from and is made into Parquet first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DataError, UsageError
from tasks.predict.inputs import pixels
from tasks.predict.inputs.csv import FAULT, csv_to_parquet
from tasks.predict.inputs.formats import Format, Piece, Wanted, finite_only, fitted

TOLERATED_PERCENT = 1
LARGEST = float(np.finfo(np.float32).max)


def _count(path: Path, wanted: Wanted) -> int:
    try:
        with pq.ParquetFile(path) as file:
            _columns(path, file.schema_arrow, wanted)
            return int(file.metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, error) from error


def _columns(path: Path, schema: pa.Schema, wanted: Wanted) -> list[str]:
    """The columns to read: the one of pixels, or a numeric one for each feature.

    Raises:
        DataError: they are not there or hold something else.
    """
    if wanted.is_image:
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
    return [*columns, *([FAULT] if FAULT in schema.names else [])]


def _feature_names(wanted: Wanted) -> tuple[str, ...]:
    """The column of each feature.

    Raises:
        UsageError: as many as the model has features, each another, were not named.
    """
    (features,) = wanted.tensor.shape
    names = wanted.columns or tuple(f"x{number + 1}" for number in range(features))
    if len(set(names)) != len(names) or len(names) != features:
        raise UsageError(f"columns {', '.join(names)}", f"{features} different ones", "name them with --columns")
    return names


def _pieces(path: Path, start: int, stop: int, at_most: int, wanted: Wanted) -> Iterator[Piece]:
    with pq.ParquetFile(path, memory_map=True) as file:
        columns = _columns(path, file.schema_arrow, wanted)
        groups, first = _row_groups(file.metadata, start, stop)
        batches = file.iter_batches(at_most, groups, columns, use_threads=False)
        while (batch := _next(batches, path)) is not None:
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                rows = batch.slice(low, high - low)
                yield (
                    pixels.images(first + low, rows, wanted)
                    if wanted.is_image
                    else _features(first + low, rows, wanted)
                )
            first += batch.num_rows


def _next(batches: Iterator[pa.RecordBatch], path: Path) -> pa.RecordBatch | None:
    """The next rows; a damaged page shows only here.

    Raises:
        DataError: the file is broken.
    """
    try:
        return next(batches, None)
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read: {error}", "a whole Parquet file", "write it again")


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


def _features(first: int, batch: pa.RecordBatch, wanted: Wanted) -> Piece:
    """One float32 row of features for each row of numeric columns; empty, NaN and infinite values are rejected."""
    columns = [batch.column(name) for name in _feature_names(wanted)]
    values = np.stack(
        [column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False) for column in columns],
        axis=1,  # large integers are rounded, as numpy rounds them
    )
    values, _ = fitted(values, wanted)
    piece = finite_only(first, values)
    if not piece.rejects:
        return piece
    faults = batch.column(FAULT).to_pylist() if FAULT in batch.schema.names else [None] * batch.num_rows
    reasons = ((offset, faults[offset] or _reason(columns, offset, wanted)) for offset, _ in piece.rejects)
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
    if wanted.is_image:
        raise DataError(f"{path} is a CSV file", "images (IDX, .npy, Parquet, PNG …)", "convert it, or choose --name")
    csv_to_parquet(path, target, _feature_names(wanted))


PARQUET = Format("parquet", (".parquet",), _count, _pieces, tolerated_percent=TOLERATED_PERCENT)
CSV = Format(
    "csv",
    (".csv",),
    _count,
    _pieces,
    tolerated_percent=TOLERATED_PERCENT,
    unpack=_unpack_csv,
    unpacked_suffix=".parquet",
)
