"""Prepared splits: raw rows encoded by a recipe, in safetensors files that are named by their content."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import safetensors.numpy

from tasks.data import mapped
from tasks.data.dataset import Contents, Named, Rows
from tasks.data.recipe import Recipe
from tasks.machine import progress
from tasks.machine.arrays import Array
from tasks.records import PreparedDataset
from tasks.serving.task import TASKS
from tasks.store import artifact_paths, atomic, verified
from tasks.store.record import FileRef

PREPARE_ANEW = "gradmill retrain: it prepares the data anew where they have changed"
SPLIT_KEY = "split_key"  # beside inputs and targets: by what a row's side was decided

PIECE = 2**16  # rows

Arrays = dict[str, Array]


def prepare(dataset: Named, contents: Contents) -> PreparedDataset:
    """Write both splits as their recipe makes them, and the test rows as they are if that differs."""
    names = contents.recipe.input.name, TASKS[contents.task].target
    train, test = (_encoded(rows, contents.recipe) for rows in (contents.train, contents.test))
    files = {
        split: write_split(dataset.name, split, dict(zip(names, rows, strict=True)))
        for split, rows in (("train", train), ("test", test))
    }
    raw_test = files["test"]
    if test.inputs is not contents.test.inputs:
        raw_test = write_split(dataset.name, "test", dict(zip(names, contents.test, strict=True)))
    return PreparedDataset(
        name=dataset.name,
        title=dataset.title,
        identifier=dataset.identifier,
        digest=hashlib.sha256((files["train"].sha256 + files["test"].sha256).encode()).hexdigest(),
        **files,
        raw_test=raw_test,
        num_train=len(train.truth),
        num_test=len(test.truth),
        recipe=contents.recipe,
        task=contents.task,
        class_names=contents.class_names,
        true_parameters=contents.true_parameters,
    )


def _encoded(rows: Rows, recipe: Recipe) -> Rows:
    with progress.bar() as bar:
        return rows._replace(inputs=recipe.encode(rows.inputs, partial(bar.track, description="encode")))


def write_split(name: str, split: str, arrays: Arrays) -> FileRef:
    """Write a split once; the same content finds its file already there."""
    # safetensors writes memory as it lies, which of a slice or a transpose is not the order of its values.
    content = safetensors.numpy.save({name: np.ascontiguousarray(each) for name, each in arrays.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    path = artifact_paths.split_file(name, split, sha256)
    with suppress(OSError):
        os.utime(path)  # first: to housekeeping it is in use
    if path.is_file() and atomic.file_digest(path) == sha256:
        return FileRef(path=path, sha256=sha256)
    return atomic.write_bytes(path, content)


def read_split(file: FileRef, prepared: PreparedDataset) -> Rows:
    """One file of ``prepared``: ``train``, ``test``, or ``raw_test``.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    is_mapped = prepared.is_own  # which may be larger than memory
    arrays = mapped.read(file, PREPARE_ANEW) if is_mapped else safetensors.numpy.load(verified.read(file, PREPARE_ANEW))
    return Rows(arrays[prepared.recipe.input.name], arrays[TASKS[prepared.task].target])


def read_test(prepared: PreparedDataset, recipe: Recipe) -> Rows:
    """The test split as ``recipe`` makes it, that of a kept version for instance; its own is read as it is.

    Raises:
        DataError: the recipe cannot read these rows, or the file is missing or has changed since it was prepared.
    """
    if recipe == prepared.recipe:
        return read_split(prepared.test, prepared)
    raw = read_split(prepared.raw_test, prepared)
    return raw._replace(inputs=recipe.encode(raw.inputs))


def pieces(file: FileRef, prepared: PreparedDataset, size: int = PIECE) -> Iterator[Rows]:
    """The same, ``size`` rows at a time: a table's rows may be millions, and memory holds one piece.

    Raises:
        DataError: as ``read_split``, before the first piece.
    """
    rows = read_split(file, prepared)
    for start in range(0, len(rows.truth), size):
        yield Rows(rows.inputs[start : start + size], rows.truth[start : start + size])
