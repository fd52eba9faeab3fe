"""Arrays in a user's files: IDX (the format of MNIST), ``.npy``, ``.npz`` and safetensors.

Every header is compared with the file's size before anything is allocated. Values are read and never mapped, for
training as for prediction: where a mapped file shrinks, the kernel ends the process.
"""

import dataclasses
import gzip
import io
import json
import math
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.lib import format as npy_format
from safetensors import safe_open

from tasks.data.io.file_errors import broken, changed, reading
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.store import atomic, regular_files

PACKED = ".gz"
HEADER_BYTES = 2**14  # of .npy: numpy itself believes no header of more than 10,000
BLOCK_BYTES = 2**20
MOST_FROM_A_BYTE = 1032  # bytes that deflate can make of one
MOST_LABEL_BYTES = 2**30
UNSIGNED_BYTE = 0x08  # the type code of IDX

Opener = Callable[[Path], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class StoredArray:
    """An array that lies in a file, from byte ``offset`` of what ``opener`` gives; nothing is read before it is used.

    A slice of rows is a ``StoredArray``, too; ``np.asarray`` reads it. Of a packed one only all rows, in order.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    column_bytes: int | None = None  # None in C order; in Fortran order the distance from one column to the next
    opener: Opener = regular_files.opened

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """The size of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def num_bytes(self) -> int:
        """The size of all rows."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_packed(self) -> bool:
        """Whether it is decompressed on the way."""
        return self.opener is not regular_files.opened

    def __getitem__(self, rows: slice) -> "StoredArray":
        first, last, _ = rows.indices(len(self))
        distance = self.row_bytes if self.column_bytes is None else self.dtype.itemsize
        return dataclasses.replace(self, shape=(last - first, *self.shape[1:]), offset=self.offset + first * distance)

    def batches(self, size: int) -> Iterator[Array]:
        """The rows, ``size`` at a time, in one memory, which so stays in the cache: each holds until the next.

        Raises:
            DataError: the file has become shorter, is damaged, or unpacks to more than it promises.
        """
        memory = np.empty((min(size, len(self)), *self.shape[1:]), self.dtype)
        with self.opener(self.path) as stream, reading(self.path):
            stream.seek(self.offset)
            for first in range(0, len(self), size):
                batch = memory[: len(self) - first]
                if self.column_bytes is None:
                    self._fill(stream, batch)
                else:
                    self._fill_columns(stream, batch, first)
                yield batch
            if self.is_packed and stream.read(1):
                raise broken(self.path, f"more bytes than it promises for {list(self.shape)}")

    def _fill(self, stream: IO[bytes], values: Array) -> None:
        left = values.reshape(-1).view(np.uint8).data
        while left:
            if not (count := cast("io.BufferedReader", stream).readinto(left)):
                raise broken(self.path, "it ends inside its rows") if self.is_packed else changed(str(self.path))
            left = left[count:]

    def _fill_columns(self, stream: IO[bytes], batch: Array, first: int) -> None:
        columns = np.empty(batch.shape[::-1], self.dtype)
        for number, column in enumerate(columns.reshape(-1, len(batch))):
            stream.seek(self.offset + number * cast("int", self.column_bytes) + first * self.dtype.itemsize)
            self._fill(stream, column)
        batch[:] = columns.T

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        values = next(iter([*self.batches(max(1, len(self)))]), np.empty(self.shape, self.dtype))
        return values if dtype is None else values.astype(dtype, copy=False)


def unpack(array: StoredArray, target: Path) -> None:
    """Write a packed array as a ``.npy`` file, never more of it than its header promises.

    Raises:
        DataError: the disk has no room for it, or it is damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if array.num_bytes > (free := shutil.disk_usage(target.parent).free):
        raise broken(array.path, f"it unpacks to {array.num_bytes} bytes, and {target.parent} has room for {free}")
    descr = npy_format.dtype_to_descr(array.dtype)
    header = {"descr": descr, "fortran_order": array.column_bytes is not None, "shape": array.shape}
    content = dataclasses.replace(array, dtype=np.dtype(np.uint8), shape=(array.num_bytes,), column_bytes=None)
    with atomic.replacing(target) as temporary, temporary.open("wb") as stream:
        npy_format.write_array_header_1_0(stream, header)
        for block in content.batches(BLOCK_BYTES):
            stream.write(block.data)


class ArrayFile(NamedTuple):
    """What an ``.npz`` or safetensors file holds; each array is looked at when it is asked for."""

    path: Path
    names: tuple[str, ...]
    open_array: Callable[[str], StoredArray]


def open_arrays(path: Path) -> ArrayFile:
    """The arrays of a file.

    Raises:
        DataError: it is neither an ``.npz`` nor a safetensors file, or is not whole.
    """
    return _open_safetensors(path) if path.suffix.lower() == ".safetensors" else _open_npz(path)


def _open_npz(path: Path) -> ArrayFile:
    with regular_files.opened(path) as stream, reading(path), zipfile.ZipFile(stream) as archive:
        sizes = {each.filename: each.file_size for each in archive.infolist() if each.filename.endswith(".npy")}

    def open_array(name: str) -> StoredArray:
        return _open_npy(path, partial(_open_member, f"{name}.npy"), sizes[f"{name}.npy"])

    return ArrayFile(path, tuple(name.removesuffix(".npy") for name in sizes), open_array)


@contextmanager
def _open_member(name: str, path: Path) -> Iterator[IO[bytes]]:
    with regular_files.opened(path) as stream, reading(path), zipfile.ZipFile(stream) as archive:
        member = archive.getinfo(name)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # bzip2 unpacks without bound
            raise ValueError(f"compression {member.compress_type}, which numpy does not write")
        with archive.open(member) as unpacked:
            yield unpacked


def open_npy(path: Path) -> StoredArray:
    """The array of a ``.npy`` file.

    Raises:
        DataError: it is no array of numbers or text, or is cut off.
    """
    with regular_files.opened(path) as stream:
        size = stream.seek(0, io.SEEK_END)
    return _open_npy(path, regular_files.opened, size)


def _open_npy(path: Path, opener: Opener, size: int) -> StoredArray:
    with opener(path) as stream, reading(path):
        header = io.BytesIO(stream.read(HEADER_BYTES))
        is_first = npy_format.read_magic(header) == (1, 0)
        read_header = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(header)
        if dtype.hasobject or not dtype.itemsize or min(shape, default=0) < 0:
            raise ValueError(f"it holds {dtype} of shape {shape}, not numbers")
        array = StoredArray(path, dtype, shape, header.tell(), opener=opener)
        if array.offset + array.num_bytes > size:
            raise ValueError(f"it has {size} bytes, and its header promises shape {shape} of {dtype}")
    is_fortran = is_fortran and len(shape) > 1
    return dataclasses.replace(array, column_bytes=shape[0] * dtype.itemsize if is_fortran else None)


def _open_safetensors(path: Path) -> ArrayFile:
    with regular_files.opened(path) as stream, reading(path):
        with safe_open(path, framework="numpy"):  # it compares the header with the file's size
            length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))

    def open_array(name: str) -> StoredArray:
        tensor = header[name]
        with reading(path):
            dtype = np.dtype(f"{tensor['dtype'][0].lower()}{int(tensor['dtype'][1:]) // 8}")  # of U8, F32; not of BF16
        return StoredArray(path, dtype, tuple(tensor["shape"]), 8 + length + tensor["data_offsets"][0])

    return ArrayFile(path, tuple(name for name in header if name != "__metadata__"), open_array)


# IDX: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
# integer, then the values in C order; often as .gz.


def open_idx(path: Path, num_dimensions: int = 3) -> StoredArray:
    """The uint8 array of an IDX file: images have three dimensions, labels have one.

    Raises:
        DataError: the file is missing, is not IDX, holds something else, or its size is wrong.
    """
    what = "images" if num_dimensions == 3 else "labels"
    offset = 4 + 4 * num_dimensions
    opener = _open_gzip if is_gzip(path) else regular_files.opened
    with opener(path) as stream, reading(path):
        header = stream.read(offset)
    magic = bytes([0, 0, UNSIGNED_BYTE, num_dimensions])
    if header[:4] != magic:
        raise DataError(
            f"{path} starts with {header[:4].hex() or 'nothing'}",
            f"an IDX file of {what}, which starts with {magic.hex()}",
            "check that the file is not something else or swapped with another",
        )
    if len(header) < offset:
        raise DataError(f"{path} ends inside its header", f"{offset} bytes of header", "get the file again")
    array = StoredArray(
        path, np.dtype(np.uint8), struct.unpack(f">{num_dimensions}I", header[4:]), offset, None, opener
    )
    if 0 in array.shape:
        raise DataError(
            f"{path} holds {array.shape} {what}", "at least one, of at least one pixel", "get the file again"
        )
    promised, size = offset + array.num_bytes, path.stat().st_size
    if promised > size * MOST_FROM_A_BYTE if array.is_packed else promised != size:
        found = f"{path} holds {size} bytes{' of gzip' if array.is_packed else ''}"
        raise DataError(found, f"{promised} bytes for {array.shape} {what}", "get the file again")
    return array


def read_idx_images(path: Path) -> Array:
    """Images ``(n, height, width)`` uint8 in memory.

    Raises:
        DataError: as ``open_idx``.
    """
    return np.asarray(open_idx(path))


def read_idx_labels(path: Path, num_classes: int = 256) -> Array:
    """Labels ``(n,)`` uint8, each below ``num_classes``.

    Raises:
        DataError: as ``open_idx``, or a label is out of range.
    """
    labels = np.asarray(open_idx(path, num_dimensions=1))
    if (largest := int(labels.max())) >= num_classes:
        found = f"label {largest} at row {int(labels.argmax())} of {path}"
        raise DataError(found, f"labels from 0 to {num_classes - 1}", "fix the file")
    return labels


def idx_labels_beside(images: Path) -> Path | None:
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
    with (_open_gzip if is_gzip(path) else regular_files.opened)(path) as stream, reading(path):
        while block := stream.read(min(BLOCK_BYTES, limit - payload.tell())):
            payload.write(block)
    return payload.getvalue()


def is_gzip(path: Path) -> bool:
    """Whether a file starts like one."""
    with regular_files.opened(path) as stream:
        return stream.read(2) == b"\x1f\x8b"


@contextmanager
def _open_gzip(path: Path) -> Iterator[IO[bytes]]:
    with regular_files.opened(path) as stream, gzip.GzipFile(fileobj=stream) as unpacked:
        yield cast("IO[bytes]", unpacked)
