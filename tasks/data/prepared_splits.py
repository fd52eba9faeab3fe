"""Prepared splits: encoded rows in safetensors files that are named by their content.

These files are ours: written beside their place, renamed into it and never changed there. So they are compared with
their digest and then memory-mapped, and need not fit into memory.
"""

import hashlib
import json
import math
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.lib.format import open_memmap

from tasks.data.recipe import Recipe
from tasks.data.report import DataReport
from tasks.data.schema import ImageSchema, Schema
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.records import PreparedDataset, RawDataset
from tasks.serving.task import TASKS, TaskName
from tasks.store import artifact_paths, atomic, verified_files
from tasks.store.record_base import FileRef, Record

PREPARE_ANEW = "gradmill retrain: it prepares the data anew where they have changed"
SPLIT_KEY = "split_key"  # stored beside inputs and targets: what decided a row's split
BATCH_ROWS = 2**16
NO_KEYS = np.empty(0, np.uint64)
NUMBERS = re.compile(r"([FIU])(\d+)")  # types of safetensors such as U8 and F32

Arrays = dict[str, Array]
PreviousSchema = Schema | ImageSchema  # what earlier versions of a name fixed
ArraySpecs = Mapping[str, tuple[Any, tuple[int, ...]]]  # dtype and shape of each array


class Examples(NamedTuple):
    """Rows to learn from or to be judged by: inputs ``(n, …)`` and the truth about them ``(n,)``.

    For own data, ``key`` ``(n,)`` uint64 holds what decided each row's side: equal rows, or rows of a group, share a
    key.
    """

    inputs: Array
    y_true: Array
    key: Array = NO_KEYS

    @classmethod
    def from_arrays(cls, arrays: "Arrays", recipe: Recipe, task: TaskName) -> "Examples":
        """Examples from the arrays of a file, by their names there."""
        return cls(arrays[recipe.input.name], arrays[TASKS[task].target], arrays.get(SPLIT_KEY, NO_KEYS))


class ValidatedDataset(Record):
    """What ``validate`` passes to ``preprocess``: raw files, the report, and the splits of own data."""

    raw: RawDataset
    report: FileRef | None = None
    prepared: PreparedDataset | None = None  # nothing is fitted to it yet
    sheet: FileRef | None = None  # for own images: a picture of some of each class


class Validation(NamedTuple):
    """The result of a data set's validation, and, for own data without errors, their rows."""

    report: DataReport
    prepared: PreparedDataset | None = None
    sheet: bytes | None = None  # for own images: a picture (PNG) of some of each class


def write_splits(
    name: str, train: Examples, test: Examples, recipe: Recipe, task: TaskName, **facts: Any
) -> PreparedDataset:
    """Write both splits as ``recipe`` encodes raw rows, and the unencoded test rows if those differ.

    ``facts`` are the other fields of the ``PreparedDataset``.
    """

    def write(split: str, inputs: Array, y_true: Array) -> FileRef:
        return write_split(name, split, {recipe.input.name: inputs, TASKS[task].target: y_true})

    train_file, test_file = (
        write(split, recipe.encode(each.inputs), each.y_true) for split, each in (("train", train), ("test", test))
    )
    return PreparedDataset(
        name=name,
        digest=verified_files.sha256((train_file.sha256 + test_file.sha256).encode()),
        train=train_file,
        test=test_file,
        raw_test=write("test", test.inputs, test.y_true),
        num_train=len(train.y_true),
        num_test=len(test.y_true),
        recipe=recipe,
        task=task,
        **facts,
    )


def write_split(name: str, split: str, arrays: Arrays) -> FileRef:
    """Write a split once; if the content already has its file, that is used."""
    # safetensors writes memory as it is laid out, which for a slice or a transpose is not the order of its values.
    content = safetensors.numpy.save({name: np.ascontiguousarray(each) for name, each in arrays.items()})
    file = FileRef(path=artifact_paths.split_file(name, split, sha256 := verified_files.sha256(content)), sha256=sha256)
    with suppress(OSError, DataError):
        os.utime(file.path)  # first, so that housekeeping sees it in use
        read_arrays(file, PREPARE_ANEW)
        return file
    return atomic.write_bytes(file.path, content)


def read_split(file: FileRef, prepared: PreparedDataset) -> Examples:
    """One file of ``prepared``: ``train``, ``test``, ``validation`` or ``raw_test``.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    return Examples.from_arrays(read_arrays(file, PREPARE_ANEW), prepared.recipe, prepared.task)


def read_batches(file: FileRef, prepared: PreparedDataset, size: int = BATCH_ROWS) -> Iterator[Examples]:
    """The same, ``size`` rows at a time: a table may have millions of rows, and only one batch is in memory.

    Raises:
        DataError: as ``read_split``, before the first batch.
    """
    inputs, y_true, _ = read_split(file, prepared)
    for start in range(0, len(y_true), size):
        yield Examples(inputs[start : start + size], y_true[start : start + size])


def create_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> Array:
    """A new array of zeros to be written, mapped to a new file (``.npy``).

    Raises:
        OSError: the disk has no room for it; writing to the map would end the process instead.
    """
    array = open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return np.asarray(array)


def write_arrays(path: Path, specs: ArraySpecs, batches: Mapping[str, Iterable[Array]]) -> FileRef:
    """Write a new file of arrays, each given in batches.

    The file is not flushed to disk, which would take as long as making it: it can be made again, and its digest is
    checked before a later run uses it. Files that a version names are flushed by the code that publishes it.

    Raises:
        OSError: the disk has no room for it.
    """
    names, header = _layout(specs)
    digest = hashlib.sha256(header)
    with path.open("wb") as file:
        file.write(header)
        for name in names:
            for batch in batches[name]:
                values = np.ascontiguousarray(batch, specs[name][0]).reshape(-1).view(np.uint8).data  # even for no rows
                digest.update(values)
                file.write(values)
        file.flush()
        written = FileRef(path=path, sha256=digest.hexdigest())
        _written[_identity(file)] = written.sha256
    return written


def _layout(specs: ArraySpecs) -> tuple[list[str], bytes]:
    """How arrays lie in a safetensors file, widest values first, so that each is aligned: names and header."""
    layout, end = {}, 0
    for name, (dtype, shape) in sorted(specs.items(), key=lambda each: (-np.dtype(each[1][0]).itemsize, each[0])):
        kind, width = np.dtype(dtype).kind.upper(), np.dtype(dtype).itemsize
        start, end = end, end + math.prod(shape) * width
        layout[name] = {"dtype": f"{kind}{8 * width}", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    return list(layout), len(text).to_bytes(8, "little") + text


def read_arrays(file: FileRef, action: str) -> Arrays:
    """The arrays of one of our files, memory-mapped: writing to them changes nothing outside this process.

    A file that this process wrote and nobody has touched since is not read again to verify it.

    Raises:
        DataError: it is missing, no regular file, or not what the reference means; ``action`` is what to do then.
    """
    with verified_files.open_verified(file.path, action) as stream:
        is_empty = not os.fstat(stream.fileno()).st_size  # or a file of /proc, where reading may never end
        is_known = _written.get(_identity(stream)) == file.sha256
        if is_known or (not is_empty and hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256):
            return map_arrays(stream)
    raise DataError(f"{file.path} has changed", f"SHA-256 {file.sha256}", action)


_written: dict[tuple[int, ...], str] = {}  # SHA-256 by identity: files are named once their digest is known


def _identity(file: BinaryIO) -> tuple[int, ...]:
    """What distinguishes a file from all others, and changes when it is written to."""
    state = os.fstat(file.fileno())
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def map_arrays(file: BinaryIO) -> Arrays:
    """The numbers in a file known to be intact; safetensors' own numpy reader would copy them into memory."""
    file.seek(0)
    start = 8 + int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(start - 8))
    # One map for all arrays: each map holds the file open.
    whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    arrays = {}
    for name, tensor in header.items():
        if kind := NUMBERS.fullmatch(tensor.get("dtype", "")):
            dtype, shape, (first, _) = f"{kind[1].lower()}{int(kind[2]) // 8}", tensor["shape"], tensor["data_offsets"]
            arrays[name] = np.frombuffer(whole, dtype, math.prod(shape), start + first).reshape(shape)
    return arrays


def hold_out(keys: Array, share: float) -> Array:
    """Which rows ``(n,)`` are held out: those of the largest keys, equal ones together, as near ``share`` as can be.

    Hashes are spread evenly, so the largest belong to arbitrary rows or groups; the largest times are the latest.
    """
    cut = np.partition(keys, at := round((1 - share) * (len(keys) - 1)))[at]
    above, from_cut = keys > cut, keys >= cut
    return np.asarray(min(above, from_cut, key=lambda part: abs(part.sum() - share * len(keys))))
