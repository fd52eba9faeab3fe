"""Arrays in a user's files: ``.npy``, ``.npz`` and safetensors, with numpy's and safetensors' readers, without pickle.

Every header is compared with the file's size before anything is allocated. Arrays are mapped, except those of an
archive. Where a mapped file shrinks while it is read, the kernel ends the process.
"""

import io
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from safetensors import safe_open

from tasks.data.io.discovery import broken_file, explain_file_errors
from tasks.data.prepared_splits import map_arrays
from tasks.machine import resources
from tasks.machine.arrays import Array
from tasks.store import atomic, regular_files

ARRAY_SUFFIXES = (".npy", ".npz", ".safetensors")
MEMBER_SUFFIX = ".npy"  # in an archive
UNNAMED = "arr_0"  # what numpy calls an array without a name
HEADER_BYTES = 2**14  # of .npy: numpy itself accepts no header of more than 10,000
NUMPYS_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack without bound


class StoredArray(NamedTuple):
    """An array in a file, by its header."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    load: Callable[[], Array]
    member: str = ""  # of an archive

    def read(self) -> Array:
        """The array, mapped; a member of an archive is unpacked into memory.

        Raises:
            DataError: the file has become shorter, is damaged, or unpacks to more than fits into memory.
        """
        with explain_file_errors(self.path):
            return self.load()

    def unpack(self, target: Path) -> None:
        """Write a member to a file of its own, never more of it than the archive promises.

        Raises:
            DataError: the disk has no room for it, or it is damaged.
        """
        with _open_member(self.path, self.member) as (stream, size):
            if size > (free := shutil.disk_usage(target.parent).free):
                raise broken_file(self.path, f"it unpacks to {size} bytes, and {target.parent} has room for {free}")
            with atomic.replace_file(target) as temporary, temporary.open("wb") as unpacked:
                shutil.copyfileobj(stream, unpacked)


ArrayFile = dict[str, Callable[[], StoredArray]]


def open_arrays(path: Path) -> ArrayFile:
    """The arrays of a file by name; the header of each is read when its function is called.

    Raises:
        DataError: it is not what its name says, or is not whole.
    """
    match path.suffix.lower():
        case ".npy":
            return {UNNAMED: partial(open_npy, path)}
        case ".npz":
            with _open_archive(path) as archive:
                members = [name for name in archive.namelist() if name.endswith(MEMBER_SUFFIX)]
            return {name.removesuffix(MEMBER_SUFFIX): partial(_find_member, path, name) for name in members}
    with explain_file_errors(path), safe_open(path, framework="numpy") as file:
        names = file.keys()
    return {name: partial(_find_tensor, path, name) for name in names}


def open_npy(path: Path) -> StoredArray:
    """The array of a ``.npy`` file.

    Raises:
        DataError: it is not an array of numbers or text, or is truncated.
    """
    with regular_files.open_regular(path) as stream, explain_file_errors(path):
        shape, dtype = _read_header(stream, path.stat().st_size)
    return StoredArray(path, dtype, shape, lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def _read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type of an array in ``.npy`` format, for which its ``size`` in bytes suffices."""
    header = io.BytesIO(stream.read(HEADER_BYTES))
    is_first = npy_format.read_magic(header) == (1, 0)
    read_header = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
    shape, _, dtype = read_header(header)
    if dtype.hasobject or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"it holds {dtype} of shape {shape}, not numbers")
    if header.tell() + math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"it has {size} bytes, and its header promises shape {shape} of {dtype}")
    return shape, dtype


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with regular_files.open_regular(path) as stream, explain_file_errors(path), zipfile.ZipFile(stream) as archive:
        yield archive


@contextmanager
def _open_member(path: Path, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """An unpacked member of an archive, and its size, beyond which it is not read."""
    with _open_archive(path) as archive:
        member = archive.getinfo(name)
        if member.compress_type not in NUMPYS_COMPRESSIONS:
            raise ValueError(f"compression {member.compress_type}, which numpy does not write")
        with archive.open(member) as stream:
            yield stream, member.file_size


def _find_member(path: Path, name: str) -> StoredArray:
    with _open_member(path, name) as (stream, size):
        shape, dtype = _read_header(stream, size)

    def load() -> Array:
        if size > (limit := resources.memory_limit()):
            raise broken_file(path, f"it unpacks to {size} bytes, and this machine has {limit} of memory")
        with _open_member(path, name) as (stream, _):
            return npy_format.read_array(stream, allow_pickle=False)

    return StoredArray(path, dtype, shape, load, name)


def _find_tensor(path: Path, name: str) -> StoredArray:
    def load() -> Array:
        safe_open(path, framework="numpy")  # this compares the header with the file's size
        with regular_files.open_regular(path) as stream:
            return map_arrays(stream)[name]

    try:
        array = load()
    except KeyError as error:
        expected = "arrays of integers or floats"
        raise broken_file(path, f"its array {name} holds something else", expected, "convert it") from error
    return StoredArray(path, array.dtype, array.shape, load)
