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

from tasks.data.readers.formats import Array, broken, changed
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
        content = bytearray(max(0, min(size, self.size - offset)))
        self.read_into(memoryview(content), offset)
        return bytes(content)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill ``target`` with the bytes from ``offset`` on.

        Raises:
            DataError: the file ends before that, or cannot be read.
        """
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self._descriptor, (target[done:],), offset + done)
            except OSError as error:
                raise broken(self.path, error) from error
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

    def fill(self, memory: Array) -> Iterator[int]:
        """Read the rows into ``memory`` ``(batch, …)``, as many at a time as it holds, and yield how many."""
        for first in range(0, len(self), len(memory)):
            size = min(len(memory), len(self) - first)
            if self.column_bytes is None:
                self.file.read_into(_bytes(memory[:size]), self.offset + first * self.row_bytes)
            else:
                memory[:size] = self[first : first + size]
            yield size

    def __getitem__(self, rows: slice) -> Array:
        first, last, _ = rows.indices(len(self))
        return np.asarray(self.part(first, last))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.column_bytes is None:
            values = np.empty(self.shape, self.dtype)
            self.file.read_into(_bytes(values), self.offset)
        else:
            columns = np.empty((*self.shape[:0:-1], len(self)), self.dtype)
            for number, column in enumerate(columns.reshape(-1, len(self))):
                self.file.read_into(_bytes(column), self.offset + number * self.column_bytes)
            values = columns.T
        return values if dtype is None else values.astype(dtype, copy=False)


def _bytes(values: Array) -> memoryview:
    """The memory of an array whose values lie one after another."""
    return values.reshape(-1).view(np.uint8).data
