"""Images to the files of a data set: prepared splits and digests, each named by its content."""

from functools import partial
from pathlib import Path

import numpy as np

from tasks.data import mapped
from tasks.data.images.examining import Rows
from tasks.data.images.fixed import FixedImages
from tasks.data.images.reading import Images
from tasks.data.splits import Arrays
from tasks.data.table.splitting import TEST, TRAINING
from tasks.data.table.writing import SPLIT_KEY, digests_file, placed
from tasks.records import PreparedDataset
from tasks.serving.contract import IMAGES
from tasks.serving.task import TASKS
from tasks.store import artifact_paths
from tasks.store.record import FileRef

SIDES = {"train": TRAINING, "test": TEST}


def write(name: str, images: Images, rows: Rows, fixed: FixedImages, scratch: Path) -> PreparedDataset:
    """Write all files of images without errors; ``scratch`` is a folder on the same disk."""
    digests = {"train": rows.digests_of(True), "other": rows.digests_of(False)}
    train, test = (_split(name, split, images, rows, fixed, scratch) for split in SIDES)
    in_training = rows.truth.values[rows.split.sides == TRAINING]
    return PreparedDataset(
        name=name,
        title=name,
        identifier=name,
        digest=fixed.digest(tuple(each.tobytes() for each in digests.values())),
        train=train,
        test=test,
        raw_test=test,
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


def _split(name: str, split: str, images: Images, rows: Rows, fixed: FixedImages, scratch: Path) -> FileRef:
    mine = rows.split.sides == SIDES[split]
    count, target = int(np.count_nonzero(mine)), TASKS[fixed.task].target
    shapes: mapped.Shapes = {
        IMAGES: (np.uint8, (count, *images.shape)),
        target: (rows.truth.values.dtype, (count,)),
        SPLIT_KEY: (np.uint64, (count,)),
    }
    made = mapped.create(scratch / split, shapes)
    made[target][:], made[SPLIT_KEY][:] = rows.truth.values[mine], rows.split.keys[mine]
    _fill(made, images, rows.numbers[mine])
    return placed(scratch / split, made, partial(artifact_paths.split_file, name, split))


def _fill(made: Arrays, images: Images, numbers: np.ndarray) -> None:
    """The pixels of images by their numbers, which ascend."""
    for block, pixels in images.blocks():
        at = slice(*np.searchsorted(numbers, (block.start, block.stop)))
        made[IMAGES][at] = pixels[numbers[at] - block.start]
