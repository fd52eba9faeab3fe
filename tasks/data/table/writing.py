"""Encoded rows to the files of a data set: prepared splits, raw test rows, digests; each named by its content."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data import mapped
from tasks.data.sources.tables import Table
from tasks.data.table import encoding
from tasks.data.table.examining import Rows
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.splitting import TEST, TRAINING
from tasks.data.validated import ValidatedTable
from tasks.serving.contract import FEATURES
from tasks.serving.task import TASKS
from tasks.store import artifact_paths, atomic
from tasks.store.record import FileRef

SPLIT_KEY = "split_key"
BLOCK = 2**15  # rows


def write(name: str, table: Table, rows: Rows, recipe: FixedRecipe, scratch: Path) -> ValidatedTable:
    """Write all files of a table without errors; ``scratch`` is a folder on the same disk."""
    train, test = (_split(name, side, rows, recipe, scratch) for side in ("train", "test"))
    digests = {"train": rows.digests_of(True), "other": rows.digests_of(False)}
    return ValidatedTable(
        recipe=recipe,
        digest=recipe.digest(tuple(each.tobytes() for each in digests.values())),
        train=train,
        test=test,
        raw_test=_raw_test(name, table, rows, recipe, scratch) if rows.lossy else test,
        num_train=rows.split.count(TRAINING),
        num_test=rows.split.count(TEST),
        rows=digests_file(name, digests, scratch),
        has_missing=rows.has_missing,
    )


def arrays(rows: Rows, recipe: FixedRecipe, split: str, scratch: Path) -> mapped.Arrays:
    """One split, mapped to a file in the folder ``scratch``: it may be larger than memory."""
    made = mapped.create(scratch / split, _shapes(rows, recipe, split))
    _fill(made, rows, recipe, split)
    return made


def _split(name: str, split: str, rows: Rows, recipe: FixedRecipe, scratch: Path) -> FileRef:
    made = arrays(rows, recipe, split, scratch)
    return placed(scratch / split, made, lambda sha256: artifact_paths.split_file(name, split, sha256))


def _shapes(rows: Rows, recipe: FixedRecipe, split: str) -> mapped.Shapes:
    count = rows.split.count(_side(split))
    return {
        FEATURES: (np.float32, (count, len(recipe.columns))),
        TASKS[recipe.task].target: (rows.truth.values.dtype, (count,)),
        SPLIT_KEY: (np.uint64, (count,)),
    }


def _side(split: str) -> int:
    return TRAINING if split == "train" else TEST


def _fill(made: mapped.Arrays, rows: Rows, recipe: FixedRecipe, split: str) -> None:
    """Piece by piece, for the rows lie column by column."""
    target, side, at = TASKS[recipe.task].target, _side(split), 0
    for block in _blocks(len(rows.digests)):
        mine = rows.split.sides[block] == side
        piece = slice(at, at + int(np.count_nonzero(mine)))
        made[FEATURES][piece] = rows.features[:, block].T[mine]
        made[target][piece] = rows.truth.values[block][mine]
        made[SPLIT_KEY][piece] = rows.split.keys[block][mine]
        at = piece.stop


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK))


def _raw_test(name: str, table: Table, rows: Rows, recipe: FixedRecipe, scratch: Path) -> FileRef:
    """The test rows with all digits of their numbers, by which what float32 loses is judged."""
    is_test = rows.split.sides == TEST
    shapes = dict(_shapes(rows, recipe, "test"))
    shapes[FEATURES] = (np.float64, shapes[FEATURES][1])
    del shapes[SPLIT_KEY]
    path = scratch / "raw-test"
    made = mapped.create(path, shapes)
    made[TASKS[recipe.task].target][:] = rows.truth.values[is_test]
    test_rows = np.flatnonzero(rows.truth.is_known)[is_test]
    for at, column in enumerate(recipe.columns):
        is_lossy = at in rows.lossy
        exact = encoding.numbers(table.data[column.name])[test_rows] if is_lossy else rows.features[at][is_test]
        made[FEATURES][:, at] = exact
    return placed(path, made, lambda sha256: artifact_paths.split_file(name, "test", sha256))


def digests_file(name: str, digests: dict[str, NDArray[np.uint64]], scratch: Path) -> FileRef:
    """Row digests of each part, sorted, in a file of their own."""
    path = scratch / "rows"
    made = mapped.create(path, {part: (np.uint64, (len(each),)) for part, each in digests.items()})
    for part, each in digests.items():
        made[part][:] = each
    return placed(path, made, lambda sha256: artifact_paths.row_digests(name, sha256))


def placed(path: Path, made: dict[str, NDArray[Any]], name: Callable[[str], Path]) -> FileRef:
    """Give a written file the name of its content."""
    for array in made.values():
        if isinstance(array, np.memmap):
            array.flush()
    sha256 = atomic.file_digest(path)
    path.replace(name(sha256))
    atomic.sync(path.parent.parent)
    return FileRef(path=name(sha256), sha256=sha256)
