"""Arrays in a user's files: IDX (the format of MNIST), ``.npy``, ``.npz`` and safetensors.

Every header is compared with the file's size before anything is allocated. Values are read and never mapped, for
training as for prediction: where a mapped file shrinks, the kernel ends the process.
"""

import dataclasses
import gzip
import io
import json
import math
import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy_format
from safetensors import safe_open

from tasks.data.io.discovery import broken_file, changed_file, explain_file_errors
from tasks.data.prepared_splits import create_array
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.store import atomic, regular_files

PACKED = ".gz"
HEADER_BYTES = 2**14  # of .npy: numpy itself accepts no header of more than 10,000
BLOCK_BYTES = 2**20
MOST_FROM_A_BYTE = 1032  # the most bytes that deflate can produce from one byte
MOST_LABEL_BYTES = 2**30
UNSIGNED_BYTE = 0x08  # the type code of IDX

Opener = Callable[[Path], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class StoredArray:
    """An array stored in a file, from byte ``offset`` of what ``opener`` yields; nothing is read before it is used.

    A slice of rows is a ``StoredArray``, too; ``np.asarray`` reads it. If the array is packed, only all its rows can be
    read, in order; if it is in Fortran order, with its rows scattered, none can: ``unpack`` gathers them.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    is_fortran: bool = False
    opener: Opener = regular_files.open_regular

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """The size of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def num_bytes(self) -> int:
        """The size of all rows in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_packed(self) -> bool:
        """Whether it is decompressed while being read."""
        return self.opener is not regular_files.open_regular

    def __getitem__(self, rows: slice) -> "StoredArray":
        first, last, _ = rows.indices(len(self))
        offset = self.offset + first * self.row_bytes
        return dataclasses.replace(self, shape=(last - first, *self.shape[1:]), offset=offset)

    def batches(self, size: int) -> Iterator[Array]:
        """The rows, ``size`` at a time, in one buffer, which thus stays in the cache: each is valid until the next.

        Raises:
            DataError: the file has become shorter, is damaged, or unpacks to more than its header says.
        """
        if self.is_fortran:
            raise broken_file(self.path, "it is in Fortran order: write it with numpy.ascontiguousarray")
        memory = np.empty((min(size, len(self)), *self.shape[1:]), self.dtype)
        with self.opener(self.path) as stream, explain_file_errors(self.path):
            stream.seek(self.offset)
            for first in range(0, len(self), size):
                batch = memory[: len(self) - first]
                if cast("io.BufferedReader", stream).readinto(batch.reshape(-1).view(np.uint8).data) < batch.nbytes:
                    raise (
                        broken_file(self.path, "it ends inside its rows")
                        if self.is_packed
                        else changed_file(str(self.path))
                    )
                yield batch
            if self.is_packed and stream.read(1):
                raise broken_file(self.path, f"more bytes than it promises for {list(self.shape)}")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        values = next(iter([*self.batches(max(1, len(self)))]), np.empty(self.shape, self.dtype))
        return values if dtype is None else values.astype(dtype, copy=False)


ArrayFile = dict[str, Callable[[], StoredArray]]


def unpack(array: StoredArray, target: Path) -> None:
    """Write an array as a ``.npy`` file in C order, never more of it than its header promises.

    Raises:
        DataError: the disk has no room for it, or it is damaged.
    """
    if array.num_bytes > (free := shutil.disk_usage(target.parent).free):
        raise broken_file(array.path, f"it unpacks to {array.num_bytes} bytes, and {target.parent} has room for {free}")
    with atomic.replace_file(target) as temporary:
        rows = create_array(temporary, array.dtype, array.shape)
        stored = rows.T if array.is_fortran else rows
        content, first = dataclasses.replace(array, shape=stored.shape, is_fortran=False), 0
        for block in content.batches(max(1, BLOCK_BYTES // max(1, content.row_bytes))):
            stored[first : first + len(block)] = block
            first += len(block)


def open_arrays(path: Path) -> ArrayFile:
    """The arrays of a file by name; each is looked at when its function is called.

    A file with none of these suffixes is IDX: ``images``, and ``labels`` if a file of labels lies beside it.

    Raises:
        DataError: it is not what its name says, or is not whole.
    """
    match path.suffix.lower():
        case ".npy":
            return {"arr_0": partial(open_npy, path)}  # the name that numpy gives to an unnamed array
        case ".npz":
            return _open_npz(path)
        case ".safetensors":
            return _open_safetensors(path)
    file: ArrayFile = {"images": partial(open_idx, path)}
    if beside := _find_idx_labels(path):
        file["labels"] = partial(open_idx, beside, 1)
    return file


def _open_npz(path: Path) -> ArrayFile:
    with regular_files.open_regular(path) as stream, explain_file_errors(path), zipfile.ZipFile(stream) as archive:
        sizes = {each.filename: each.file_size for each in archive.infolist() if each.filename.endswith(".npy")}
    return {
        member.removesuffix(".npy"): partial(open_npy, path, partial(_open_member, member), size)
        for member, size in sizes.items()
    }


@contextmanager
def _open_member(name: str, path: Path) -> Iterator[IO[bytes]]:
    with regular_files.open_regular(path) as stream, explain_file_errors(path), zipfile.ZipFile(stream) as archive:
        member = archive.getinfo(name)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # bzip2 unpacks without bound
            raise ValueError(f"compression {member.compress_type}, which numpy does not write")
        with archive.open(member) as unpacked:
            yield unpacked


def open_npy(path: Path, opener: Opener = regular_files.open_regular, size: int | None = None) -> StoredArray:
    """The array of a ``.npy`` file, or of one in an archive, opened by ``opener``, with the unpacked ``size``.

    Raises:
        DataError: it is not an array of numbers or text, or is truncated.
    """
    with opener(path) as stream, explain_file_errors(path):
        size = path.stat().st_size if size is None else size
        header = io.BytesIO(stream.read(HEADER_BYTES))
        is_first = npy_format.read_magic(header) == (1, 0)
        read_header = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(header)
        if dtype.hasobject or not dtype.itemsize or min(shape, default=0) < 0:
            raise ValueError(f"it holds {dtype} of shape {shape}, not numbers")
        array = StoredArray(path, dtype, shape, header.tell(), is_fortran and len(shape) > 1, opener)
        if array.offset + array.num_bytes > size:
            raise ValueError(f"it has {size} bytes, and its header promises shape {shape} of {dtype}")
    return array


def _open_safetensors(path: Path) -> ArrayFile:
    with regular_files.open_regular(path) as stream, explain_file_errors(path):
        with safe_open(path, framework="numpy"):  # this checks the header against the file's size
            length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))

    def open_tensor(tensor: dict[str, Any]) -> StoredArray:
        kind = tensor["dtype"]
        if not re.fullmatch(r"[FIU]\d+", kind):  # such as U8 and F32
            raise broken_file(path, f"one of its arrays is of {kind}", "arrays of integers or floats", "convert it")
        dtype = np.dtype(f"{kind[0].lower()}{int(kind[1:]) // 8}")
        return StoredArray(path, dtype, tuple(tensor["shape"]), 8 + length + tensor["data_offsets"][0])

    return {name: partial(open_tensor, tensor) for name, tensor in header.items() if name != "__metadata__"}


# IDX: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension as a big-endian 32-bit
# integer, then the values in C order; often as .gz.


def open_idx(path: Path, num_dimensions: int = 3) -> StoredArray:
    """The uint8 array of an IDX file: images have three dimensions, labels have one.

    Raises:
        DataError: the file is missing, is not IDX, holds something else, or has the wrong size.
    """
    what = "images" if num_dimensions == 3 else "labels"
    offset, magic = 4 + 4 * num_dimensions, bytes([0, 0, UNSIGNED_BYTE, num_dimensions])
    opener = _choose_opener(path)
    with opener(path) as stream, explain_file_errors(path):
        header = stream.read(offset)
    if header[:4] != magic or len(header) < offset:
        raise DataError(
            f"{path} starts with {header[:4].hex() or 'nothing'}, and has {len(header)} bytes of a header",
            f"an IDX file of {what}, which starts with {magic.hex()} in a header of {offset} bytes",
            "check that the file is whole, not something else and not swapped with another",
        )
    shape, size = struct.unpack(f">{num_dimensions}I", header[4:]), path.stat().st_size
    array = StoredArray(path, np.dtype(np.uint8), shape, offset, opener=opener)
    promised = offset + array.num_bytes
    if 0 in shape or (promised > size * MOST_FROM_A_BYTE if array.is_packed else promised != size):
        found = f"{path} holds {size} bytes{' of gzip' if array.is_packed else ''} and promises {shape} {what}"
        raise DataError(found, f"{promised} bytes for them, and at least one pixel or label", "get the file again")
    return array


def _find_idx_labels(images: Path) -> Path | None:
    """The file of labels beside a file of images, by MNIST's naming, gzip or not; None if there is none."""
    name = images.name.removesuffix(PACKED).replace("images", "labels").replace("idx3", "idx1")
    both = images.with_name(name), images.with_name(name + PACKED)
    return next((each for each in both if each != images and each.is_file()), None)


def read_payload(path: Path, limit: int) -> bytes:
    """The content of a file, decompressed if it is gzip; at most ``limit`` bytes are read.

    It takes no more memory than the content needs, whatever the limit.

    Raises:
        DataError: the file cannot be read, is no regular file, or the gzip stream is damaged.
    """
    with _choose_opener(path)(path) as stream, explain_file_errors(path):
        return stream.read(limit)


def _choose_opener(path: Path) -> Opener:
    """The function that opens a file, gzip or not."""
    with regular_files.open_regular(path) as stream:
        return _open_gzip if stream.read(2) == b"\x1f\x8b" else regular_files.open_regular


@contextmanager
def _open_gzip(path: Path) -> Iterator[IO[bytes]]:
    with regular_files.open_regular(path) as stream, gzip.GzipFile(fileobj=stream) as unpacked:
        yield cast("IO[bytes]", unpacked)
