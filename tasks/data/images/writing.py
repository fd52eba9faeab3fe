"""Images to the files of a data set: prepared splits and digests, each named by its content."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.data import mapped
from tasks.data.images.examining import Rows
from tasks.data.images.fixed import FixedImages
from tasks.data.images.reading import Images
from tasks.data.split import TEST, TRAINING, VALIDATION
from tasks.data.splits import SPLIT_KEY
from tasks.data.table.writing import SIDES, digests_file, placed
from tasks.records import PreparedDataset
from tasks.serving.contract import IMAGES
from tasks.serving.task import TASKS
from tasks.store import artifact_paths
from tasks.store.record import FileRef


def write(name: str, images: Images, rows: Rows, fixed: FixedImages, scratch: Path) -> PreparedDataset:
    """Write all files of images without errors; ``scratch`` is a folder on the same disk."""
    digests = {"train": rows.digests_of(True), "other": rows.digests_of(False)}
    splits = [split for split, side in SIDES.items() if side != VALIDATION or rows.split.count(side)]
    train, test, *validation = (_split(name, split, images, rows, fixed, scratch) for split in splits)
    in_training = rows.truth.values[rows.split.split_ids == TRAINING]
    return PreparedDataset(
        name=name,
        title=name,
        identifier=name,
        digest=fixed.digest(tuple(digests.values())),
        train=train,
        test=test,
        raw_test=test,
        validation=validation[0] if validation else None,
        num_train=rows.split.count(TRAINING),
        num_test=rows.split.count(TEST),
        recipe=fixed.recipe,
        task=fixed.task,
        class_names=fixed.class_names,
        split=fixed.split,
        class_counts=tuple(np.bincount(in_training, minlength=len(fixed.class_names)).tolist()),
        rows=digests_file(name, digests, scratch),
        brightness=fixed.brightness,
    )


def arrays(split: str, images: Images, rows: Rows, fixed: FixedImages, scratch: Path) -> mapped.Arrays:
    """One split, mapped to a file in the folder ``scratch``: it may be larger than memory."""
    _write(split, images, rows, fixed, scratch)
    return mapped.opened(scratch / split)


def _split(name: str, split: str, images: Images, rows: Rows, fixed: FixedImages, scratch: Path) -> FileRef:
    sha256 = _write(split, images, rows, fixed, scratch)
    return placed(scratch / split, sha256, artifact_paths.split_file(name, split, sha256))


def _write(split: str, images: Images, rows: Rows, fixed: FixedImages, scratch: Path) -> str:
    """Write one split, and return the digest of the file."""
    mine = rows.split.split_ids == SIDES[split]
    count, target = int(np.count_nonzero(mine)), TASKS[fixed.task].target
    shapes: mapped.Shapes = {
        IMAGES: (np.uint8, (count, *images.shape)),
        target: (rows.truth.values.dtype, (count,)),
        SPLIT_KEY: (np.uint64, (count,)),
    }
    pieces = {
        IMAGES: _pixels(images, rows.numbers[mine]),
        target: [rows.truth.values[mine]],
        SPLIT_KEY: [rows.split.keys[mine]],
    }
    return mapped.write(scratch / split, shapes, pieces)


def _pixels(images: Images, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """The pixels of images by their numbers, which ascend."""
    for block, pixels in images.blocks():
        at = slice(*np.searchsorted(numbers, (block.start, block.stop)))
        yield pixels[numbers[at] - block.start]
