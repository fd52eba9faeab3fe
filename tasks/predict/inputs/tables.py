"""Tables: Parquet by row group, and CSV, which has no middle to start from and is made into Parquet first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.errors import DataError
from tasks.predict.inputs.csv import FAULT, csv_to_parquet
from tasks.predict.inputs.formats import Array, Format, Piece, Wanted, check_fit, finite_only, fitted

TOLERATED_SHARE = 0.01


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
        return [_pixel_column(path, schema, wanted)]
    columns = _feature_names(wanted)
    for name in columns:
        kind = schema.field(name).type if name in schema.names else None
        if kind is None or not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise DataError(
                f"{path} has columns {_named(schema)}",
                f"numeric columns {', '.join(columns)}",
                "rename the columns, or name them in the model's order with --columns",
            )
    return [*columns, *([FAULT] if FAULT in schema.names else [])]


def _feature_names(wanted: Wanted) -> tuple[str, ...]:
    return wanted.columns or tuple(f"x{number + 1}" for number in range(*wanted.tensor.shape))


def _named(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _pixel_column(path: Path, schema: pa.Schema, wanted: Wanted) -> str:
    """The column named by the user, or the only one of a type that can hold pixels."""
    suitable = [field.name for field in schema if _holds_pixels(field.type)]
    named = [name for name in suitable if name in (wanted.columns or (wanted.tensor.name,))]
    found = named or (suitable if not wanted.columns else [])
    if len(found) != 1:
        raise DataError(
            f"{path} has columns {_named(schema)}",
            f"one column of pixels: binary, or lists of uint8, {wanted.row_bytes} a row",
            "convert the file, or name the column with --columns",
        )
    kind = schema.field(found[0]).type
    if pa.types.is_fixed_size_list(kind) and kind.list_size != wanted.row_bytes:
        check_fit(path, np.uint8, (kind.list_size,), wanted)
    return str(found[0])


def _holds_pixels(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(kind.value_type == pa.uint8())
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _pieces(path: Path, start: int, stop: int, at_most: int, wanted: Wanted) -> Iterator[Piece]:
    with pq.ParquetFile(path, memory_map=True) as file:
        columns = _columns(path, file.schema_arrow, wanted)
        groups, first = _row_groups(file.metadata, start, stop)
        batches = file.iter_batches(at_most, groups, columns, use_threads=False)
        while (batch := _next(batches, path)) is not None:
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                rows = batch.slice(low, high - low)
                yield _images(first + low, rows, wanted) if wanted.is_image else _features(first + low, rows, wanted)
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


def _images(first: int, batch: pa.RecordBatch, wanted: Wanted) -> Piece:
    """Rows of raw pixels, whatever type they are kept in; those of another size are rejected."""
    column = batch.column(0)
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(pa.uint8()))
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    sizes = pc.list_value_length(column) if is_list else pc.binary_length(column)
    sizes = sizes.fill_null(-1).to_numpy(zero_copy_only=False)
    if is_list and column.flatten().null_count:
        gaps = [offset for offset, row in enumerate(column) if row.values is not None and row.values.null_count]
        sizes = np.array(sizes)  # Arrow's own memory is read-only
        sizes[gaps] = -1
    good = sizes == wanted.row_bytes
    kept = np.flatnonzero(good).astype(np.int64)
    chosen = column if good.all() else column.take(pa.array(kept))
    return Piece(
        first,
        len(column),
        _pixels(chosen, is_list).reshape(len(kept), *wanted.tensor.shape),
        kept=None if good.all() else kept,
        rejects=tuple(
            (int(offset), f"{sizes[offset]} pixels" if sizes[offset] >= 0 else "no pixels")
            for offset in np.flatnonzero(~good)
        ),
    )


def _pixels(column: pa.Array, is_list: bool) -> Array:
    if is_list:
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False))
    if pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.binary())
    offset_type = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, offset_type, count=len(column) + 1, offset=column.offset * offset_type().itemsize)
    if data is None:
        return np.empty(0, np.uint8)
    return np.frombuffer(data, np.uint8, count=int(bounds[-1] - bounds[0]), offset=int(bounds[0]))


def _features(first: int, batch: pa.RecordBatch, wanted: Wanted) -> Piece:
    """One float32 row of features for each row of numeric columns; empty, NaN and infinite values are rejected."""
    columns = [batch.column(name) for name in _feature_names(wanted)]
    values = np.stack(
        [column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False) for column in columns], axis=1
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
        if not np.isfinite(np.float32(value)):
            return f"{name} is {value}, not a finite number"
    raise AssertionError("a rejected row has a column to blame")


def _unpack_csv(path: Path, target: Path, wanted: Wanted) -> None:
    if wanted.is_image:
        raise DataError(f"{path} is a CSV file", "images (IDX, .npy, Parquet, PNG …)", "convert it, or choose --name")
    csv_to_parquet(path, target, _feature_names(wanted))


PARQUET = Format("parquet", (".parquet",), _count, _pieces, tolerated_share=TOLERATED_SHARE)
CSV = Format(
    "csv",
    (".csv",),
    _count,
    _pieces,
    tolerated_share=TOLERATED_SHARE,
    unpack=_unpack_csv,
    unpacked_suffix=".parquet",
)
