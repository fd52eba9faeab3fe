"""The one reader of IDX files, the format of MNIST and its relatives (.gz too).

Layout: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values in C order.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError

UNSIGNED_BYTE = 0x08


def read_images(path: Path) -> NDArray[np.uint8]:
    """Images ``(n, height, width)`` uint8.

    Raises:
        DataError: the file is missing, is not IDX, holds something else than images, or its size is wrong.
    """
    return _read(path, num_dimensions=3, what="images")


def read_labels(path: Path, num_classes: int) -> NDArray[np.uint8]:
    """Labels ``(n,)`` uint8, each below ``num_classes``.

    Raises:
        DataError: as for images, or a label is out of range.
    """
    labels = _read(path, num_dimensions=1, what="labels")
    if len(labels) and (largest := int(labels.max())) >= num_classes:
        row = int(labels.argmax())
        raise DataError(
            f"label {largest} at row {row} of {path}", f"labels from 0 to {num_classes - 1}", "fix the file"
        )
    return labels


def read_payload(path: Path, limit: int) -> bytes:
    """The content of a file, decompressed if it is gzip, reading at most ``limit`` bytes of it.

    Raises:
        DataError: the file cannot be read or the gzip stream is damaged.
    """
    try:
        with _opened(path) as stream:
            return stream.read(limit)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", "a whole IDX file, plain or gzip", "get it again") from error


def is_gzip(path: Path) -> bool:
    """Whether a file starts like one."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if is_gzip(path) else path.open("rb")


def map_images(path: Path) -> NDArray[np.uint8]:
    """Images ``(n, height, width)`` uint8 of a plain file, mapped into memory.

    Raises:
        DataError: as for ``read_images``.
    """
    shape = _shape(path, num_dimensions=3, what="images")
    size = _size(shape)
    if (found := path.stat().st_size) != size:
        raise _wrong_size(path, f"{found} bytes", size, shape, "images")
    return np.asarray(np.memmap(path, np.uint8, "r", offset=size - math.prod(shape), shape=shape))


def promised_size(path: Path) -> int:
    """How many bytes the header of a file of images, gzip or not, promises, its own included.

    Raises:
        DataError: it is no IDX file of images.
    """
    return _size(_shape(path, num_dimensions=3, what="images"))


def _shape(path: Path, num_dimensions: int, what: str) -> tuple[int, ...]:
    header_size = 4 + 4 * num_dimensions
    header = read_payload(path, header_size)
    magic = bytes([0, 0, UNSIGNED_BYTE, num_dimensions])
    if header[:4] != magic:
        raise DataError(
            f"{path} starts with {header[:4].hex() or 'nothing'}",
            f"an IDX file of {what}, which starts with {magic.hex()}",
            "check that the file is not something else or swapped with another",
        )
    if len(header) < header_size:
        raise DataError(f"{path} ends inside its header", f"{header_size} bytes of header", "get the file again")
    return struct.unpack(f">{num_dimensions}I", header[4:])


def _size(shape: tuple[int, ...]) -> int:
    return 4 + 4 * len(shape) + math.prod(shape)


def _wrong_size(path: Path, found: str, size: int, shape: tuple[int, ...], what: str) -> DataError:
    return DataError(f"{path} holds {found}", f"{size} bytes for {shape} {what}", "get the file again")


def _read(path: Path, num_dimensions: int, what: str) -> NDArray[np.uint8]:
    shape = _shape(path, num_dimensions, what)
    size = _size(shape)
    payload = read_payload(path, size + 1)  # one byte more shows surplus without reading all of it
    if len(payload) != size:
        found = f"{len(payload)} bytes" if len(payload) < size else "more bytes"
        raise _wrong_size(path, found, size, shape, what)
    return np.frombuffer(payload, np.uint8, offset=size - math.prod(shape)).reshape(shape)
