"""Numpy's own format: an array in a file."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from tasks.data.readers.formats import reading
from tasks.data.readers.stored import HeldFile, StoredRows

HEADER_BYTES = 2**14  # numpy itself believes no header of more than 10,000
HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}  # 3.0 has fields with names beyond Latin 1, which is no array of numbers


def header_of(header: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype, from at most ``HEADER_BYTES`` of a file's beginning.

    Raises:
        ValueError: it is no array of numbers or text.
    """
    version = np.lib.format.read_magic(header)
    if version not in HEADERS:
        raise ValueError(f"its version {version} is none of an array of numbers")
    shape, is_fortran, dtype = HEADERS[version](header)
    if min(shape, default=0) < 0:
        raise ValueError(f"it promises shape {shape}")
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, not numbers")
    return shape, is_fortran, dtype


def read(path: Path) -> StoredRows:
    """The array of a file, still in it; its header is compared with the size first.

    Raises:
        DataError: it is no array of numbers or text, or is cut off.
    """
    file = HeldFile(path)
    with reading(path):
        header = io.BytesIO(file.read(HEADER_BYTES, 0))
        shape, is_fortran, dtype = header_of(header)
        size = math.prod(shape) * dtype.itemsize
        if header.tell() + size > file.size:
            raise ValueError(f"it has {file.size} bytes, and its header promises shape {shape} of {dtype}")
    column_bytes = shape[0] * dtype.itemsize if is_fortran and shape else None
    return StoredRows(file, dtype, shape, header.tell(), column_bytes)
