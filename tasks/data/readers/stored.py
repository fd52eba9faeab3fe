"""Rows of an array in a file, read into memory of our own.

They are not mapped: a file that is cut off while a mapping of it is read kills the process. A slice of a batch's size
stays in the processor's cache, so that reading costs no more than the mapping's page faults did.
"""

import dataclasses
import math
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.readers.formats import Array, changed, reading
from tasks.store import regular_files


class HeldFile:
    """An open regular file, which closes with the last rows that read from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = regular_files.descriptor(path)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes, fewer where the file ends."""
        content = np.empty(max(0, min(size, self.size - offset)), np.uint8)
        self.read_into(content, offset)
        return content.tobytes()

    def read_into(self, values: Array, offset: int) -> None:
        """Fill ``values``, which lie one after another, with the bytes from ``offset`` on.

        Raises:
            DataError: the file ends before that, or cannot be read.
        """
        target = values.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(target):
            with reading(self.path):
                count = os.preadv(self._descriptor, [target[done:]], offset + done)
            if not count:
                raise changed(str(self.path))
            done += count


@dataclass(frozen=True)
class StoredRows:
    """An array ``shape`` whose rows lie in a file from ``offset`` on; nothing is read before a slice is taken.

    ``column_bytes`` is None in C order. In Fortran order it is the distance from one column to the next.
    """

    file: HeldFile
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    column_bytes: int | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """The size of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def part(self, first: int, last: int) -> "StoredRows":
        """The rows from ``first`` to ``last``, still in the file."""
        distance = self.row_bytes if self.column_bytes is None else self.dtype.itemsize
        shape = (last - first, *self.shape[1:])
        return dataclasses.replace(self, shape=shape, offset=self.offset + first * distance)

    def batches(self, size: int) -> Iterator[Array]:
        """The rows, ``size`` at a time, in one memory, which so stays in the cache: each holds until the next."""
        if self.column_bytes is not None:
            yield from (self[first : first + size] for first in range(0, len(self), size))
            return
        memory = np.empty((min(size, len(self)), *self.shape[1:]), self.dtype)
        for first in range(0, len(self), size):
            batch = memory[: len(self) - first]
            self.file.read_into(batch, self.offset + first * self.row_bytes)
            yield batch

    def __getitem__(self, rows: slice) -> Array:
        first, last, _ = rows.indices(len(self))
        return np.asarray(self.part(first, last))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.column_bytes is None:
            values = np.empty(self.shape, self.dtype)
            self.file.read_into(values, self.offset)
        else:
            columns = np.empty((*self.shape[:0:-1], len(self)), self.dtype)
            for number, column in enumerate(columns.reshape(-1, len(self))):
                self.file.read_into(column, self.offset + number * self.column_bytes)
            values = columns.T
        return values if dtype is None else values.astype(dtype, copy=False)
