"""Columns of a read table as numbers."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data.io import tabular
from tasks.machine import side_by_side
from tasks.machine.arrays import Array


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of numbers, booleans, or text that reads as either, as float64 ``(n,)``; NaN is missing."""
    result = np.empty(len(column))
    row = 0
    for chunk in column.chunks:
        result[row : row + len(chunk)] = of_chunk(chunk)
        row += len(chunk)
    return result


def limits(column: pa.ChunkedArray) -> tuple[float, float]:
    """The smallest and the largest of such numbers; NaN where there is none."""
    ends = np.array([(np.nan, np.nan), *side_by_side.each(_limits, column.chunks)])
    return float(np.fmin.reduce(ends[:, 0])), float(np.fmax.reduce(ends[:, 1]))


def _limits(chunk: pa.Array) -> tuple[float, float]:
    values = of_chunk(chunk)
    return np.fmin.reduce(values, initial=np.nan), np.fmax.reduce(values, initial=np.nan)


def of_chunk(chunk: pa.Array) -> Array:
    """The same of one chunk."""
    kind = tabular.kind_of(chunk.type)
    if kind == "null":
        return np.full(len(chunk), np.nan)
    if kind == "text":
        is_dictionary = pa.types.is_dictionary(chunk.type)
        values = _of_text(chunk.dictionary if is_dictionary else chunk)
        return np.append(values, np.nan)[_indices(chunk)] if is_dictionary else values
    values = chunk.cast(pa.float64())
    if values.null_count:
        values = values.fill_null(np.nan)
    array: Array = values.to_numpy(zero_copy_only=False)
    return array


def _indices(chunk: pa.Array) -> Array:
    indices: Array = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return indices


def _of_text(values: pa.Array) -> NDArray[np.float64]:
    found = tabular.parse_numbers(values)
    if found.null_count and (truth := as_booleans(values)) is not None:
        found = truth
    result: NDArray[np.float64] = found.fill_null(np.nan).to_numpy(zero_copy_only=False)
    return result


def as_booleans(values: pa.Array) -> pa.Array | None:
    """1 and 0 for texts that all are ``true`` or ``false`` in any case; None where one is not."""
    lower = pc.ascii_lower(values)
    found = pc.index_in(lower, value_set=pa.array(["false", "true"]))
    return found.cast(pa.float64()) if found.null_count == values.null_count else None


def as_dates(values: pa.Array) -> pa.Array | None:
    """ISO 8601 texts as timestamps, all with a zone or all without; None where one is no date."""
    for zone in (None, "UTC"):
        try:
            return values.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return None
