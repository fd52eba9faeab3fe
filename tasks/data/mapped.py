"""Arrays in a safetensors file that may be larger than memory should hold: written in place, read by memory map."""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.store import verified
from tasks.store.record import FileRef

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[Any, tuple[int, ...]]]  # dtype and shape of each array
NAMES = {"float32": "F32", "float64": "F64", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8"}
BLOCK_BYTES = 2**20
HELD_BYTES = 2**26  # a page of a file takes ten times as long to be there as one of memory
NO_ALLOCATION = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of file systems that cannot
DTYPES = {name: np.dtype(dtype) for dtype, name in NAMES.items()}


def create(path: Path, shapes: Shapes) -> Arrays:
    """New arrays to be written: in memory if they are small, else mapped to a new file, of zeros then.

    Raises:
        OSError: the disk has no room for it: writing to a map would end the process instead.
    """
    header, size = _header(shapes)
    if size <= HELD_BYTES:
        return {name: np.empty(shape, dtype) for name, (dtype, shape) in shapes.items()}
    with path.open("wb") as file:
        file.write(header)
        allocate(file, len(header), size)
    return opened(path, "r+")


def write(path: Path, shapes: Shapes, pieces: Mapping[str, Iterable[NDArray[Any]]]) -> str:
    """A new file of arrays, each given piece by piece; its SHA-256.

    It is not forced to disk, which takes as long as making it: it can be made again, and is compared with its digest
    before a later run uses it. What a version names is forced by who publishes it.

    Raises:
        OSError: the disk has no room for it.
    """
    header, _ = _header(shapes)
    digest = hashlib.sha256(header)
    with path.open("wb", buffering=0) as file:
        file.write(header)
        for name in _ordered(shapes):
            for piece in pieces[name]:
                values = np.ascontiguousarray(piece, shapes[name][0]).reshape(-1).view(np.uint8).data  # of no rows, too
                digest.update(values)
                while len(values):
                    values = values[file.write(values) :]
        _written[path.stat().st_ino] = _looks(path), digest.hexdigest()
    return digest.hexdigest()


def _ordered(shapes: Shapes) -> list[str]:
    """Widest values first, so that each array lies aligned."""
    return sorted(shapes, key=lambda name: (-np.dtype(shapes[name][0]).itemsize, name))


def _header(shapes: Shapes) -> tuple[bytes, int]:
    """That of a safetensors file, and the bytes of its arrays."""
    header, at = {}, 0
    for name in _ordered(shapes):
        dtype, shape = shapes[name]
        size = math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": NAMES[np.dtype(dtype).name], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, at


def allocate(file: BinaryIO, start: int, size: int) -> None:
    """Take room on disk for so many bytes of zeros."""
    file.flush()
    try:
        if size:
            os.posix_fallocate(file.fileno(), start, size)
    except OSError as error:
        if error.errno not in NO_ALLOCATION:
            raise
        for at in range(0, size, BLOCK_BYTES):
            file.write(bytes(min(BLOCK_BYTES, size - at)))


def read(file: FileRef, action: str) -> Arrays:
    """The arrays of a file, by memory map: what is written to them stays in this process.

    A file that this process wrote, and that nobody touched since, is not read to be verified.

    Raises:
        DataError: the file is missing, or is not what the reference means; ``action`` is what to do then.
    """
    try:
        if _written.get(file.path.stat().st_ino) != (_looks(file.path), file.sha256):
            verified.check(file, action)
        return opened(file.path)
    except OSError as error:
        raise DataError(f"{file.path} cannot be read: {error}", verified.WRITTEN, action) from error


Look = tuple[int, int, int]
_written: dict[int, tuple[Look, str]] = {}  # by inode: files have a temporary name until their digest is known


def _looks(path: Path) -> Look:
    """Of a file, what changes when it is written to."""
    stat = path.stat()
    return stat.st_dev, stat.st_size, stat.st_mtime_ns


def opened(path: Path, mode: Any = "c") -> Arrays:
    """The arrays of a file that is known to be whole."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    arrays = {name: each for name, each in header.items() if name != "__metadata__"}
    size = max((each["data_offsets"][1] for each in arrays.values()), default=0)
    # One map for all: each holds a file open. And no memmap, of which each part takes some microseconds.
    whole = np.asarray(np.memmap(path, np.uint8, mode, 8 + length, (size,))) if size else np.empty(0, np.uint8)
    return {
        name: whole[slice(*each["data_offsets"])].view(DTYPES[each["dtype"]]).reshape(each["shape"])
        for name, each in arrays.items()
    }
