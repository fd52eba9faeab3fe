"""The one reader of IDX files, the format of MNIST and its relatives (.gz too).

Layout: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values in C order.
"""

import contextlib
import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.store import regular_files

UNSIGNED_BYTE = 0x08
BLOCK_BYTES = 2**20
PACKED = ".gz"
MOST_FROM_A_BYTE = 1032  # bytes that deflate can make of one


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
    if (largest := int(labels.max())) >= num_classes:
        row = int(labels.argmax())
        raise DataError(
            f"label {largest} at row {row} of {path}", f"labels from 0 to {num_classes - 1}", "fix the file"
        )
    return labels


def labels_of(images: Path) -> Path | None:
    """The file of labels beside one of images, by MNIST's naming, be it gzip or not; None where there is none."""
    path = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    packed = path.suffix == PACKED
    both = path, path.with_suffix("") if packed else path.with_name(path.name + PACKED)
    return next((each for each in both if path != images and each.is_file()), None)


def read_payload(path: Path, limit: int) -> bytes:
    """The content of a file, decompressed if it is gzip, reading at most ``limit`` bytes of it.

    It takes no more memory than there is content, whatever the limit.

    Raises:
        DataError: the file cannot be read, is no regular file, or the gzip stream is damaged.
    """
    payload = io.BytesIO()
    try:
        with unpacked(path) as stream:
            while block := stream.read(min(BLOCK_BYTES, limit - payload.tell())):
                payload.write(block)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", "a whole IDX file, plain or gzip", "get it again") from error
    return payload.getvalue()


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file as a stream, decompressed on the way if it is gzip."""
    with regular_files.opened(path) as stream:
        if is_gzip(path):
            with gzip.GzipFile(fileobj=stream) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield stream


def is_gzip(path: Path) -> bool:
    """Whether a file starts like one."""
    with regular_files.opened(path) as stream:
        return stream.read(2) == b"\x1f\x8b"


def images_layout(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape ``(n, height, width)`` of the images in a plain file, and the bytes of header before them.

    Raises:
        DataError: as for ``read_images``.
    """
    shape = _shape(path, num_dimensions=3, what="images")
    return shape, _size(shape) - math.prod(shape)


def promised_size(path: Path) -> int:
    """How many bytes the header of a file of images, gzip or not, promises, its own included.

    Raises:
        DataError: it is no IDX file of images, or too small to hold so many.
    """
    return _size(_shape(path, num_dimensions=3, what="images"))


def _shape(path: Path, num_dimensions: int, what: str) -> tuple[int, ...]:
    """The shape that the header promises, as far as the file's own size can bear it out."""
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
    shape = struct.unpack(f">{num_dimensions}I", header[4:])
    size, found = _size(shape), path.stat().st_size
    if 0 in shape:
        raise DataError(f"{path} holds {shape} {what}", "at least one, of at least one pixel", "get the file again")
    if is_gzip(path):
        if size > found * MOST_FROM_A_BYTE:
            raise _wrong_size(path, f"{found} bytes of gzip", size, shape, what)
    elif size != found:
        raise _wrong_size(path, f"{found} bytes", size, shape, what)
    return shape


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
