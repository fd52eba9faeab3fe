"""Columns of raw pixels: binary or lists of uint8."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.readers.formats import Array, Piece, Wanted, check_fit
from tasks.errors import DataError
from tasks.machine.words import counted


def column_name(path: Path, schema: pa.Schema, wanted: Wanted) -> str:
    """The column named by the user, or the only one of a type that can hold pixels.

    Raises:
        DataError: there is none, or more than one.
    """
    suitable = [field.name for field in schema if _holds_pixels(field.type) and schema.names.count(field.name) == 1]
    chosen = [name for name in suitable if name in (wanted.columns or (wanted.recipe.input.name,))]
    found = chosen or (suitable if not wanted.columns else [])
    if len(found) != 1:
        raise DataError(
            f"{path} has columns {named(schema)}",
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


def named(schema: pa.Schema) -> str:
    """The columns in words."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def images(first: int, batch: pa.RecordBatch, wanted: Wanted) -> Piece:
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
        _pixels(chosen, is_list).reshape(len(kept), *wanted.recipe.input.shape),
        kept=None if good.all() else kept,
        rejects=tuple(
            (int(offset), counted(int(sizes[offset]), "pixel") if sizes[offset] >= 0 else "no pixels")
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
