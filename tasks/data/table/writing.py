"""Encoded rows to the files of a data set: prepared splits, raw test rows, digests; each named by its content."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data import mapped, statistics
from tasks.data.sources.tables import Table
from tasks.data.split import TEST, TRAINING, VALIDATION
from tasks.data.splits import SPLIT_KEY
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.kinds import plain_kind
from tasks.data.table.rows import Rows
from tasks.data.validated import ValidatedTable
from tasks.machine import side_by_side
from tasks.serving.contract import FEATURES
from tasks.serving.task import TASKS
from tasks.store import artifact_paths
from tasks.store.record import FileRef

BLOCK = 2**15  # rows
EXACT = 2**18  # rows of which all digits are in memory
ORDERED = 2**18  # rows that lie by their digests, which takes some hundredths of a second; of millions it takes seconds
SIDES = {"train": TRAINING, "test": TEST, "validation": VALIDATION}


def write(name: str, table: Table, rows: Rows, recipe: FixedRecipe, scratch: Path) -> ValidatedTable:
    """Write all files of a table without errors, side by side; ``scratch`` is a folder on the same disk."""

    def split(side: str) -> FileRef:
        sha256 = _write(scratch / side, rows, recipe, side)
        return placed(scratch / side, sha256, artifact_paths.split_file(name, side, sha256))

    def digests() -> tuple[FileRef, str]:
        file = digests_file(name, rows.ordered, scratch)
        return file, recipe.digest((rows.digests_of(True), rows.digests_of(False)))

    watched = rows.split.count(VALIDATION)
    works = {
        "train": lambda: split("train"),
        "test": lambda: split("test"),
        **({"validation": lambda: split("validation")} if watched else {}),
        **({"raw": lambda: _raw_test(name, table, rows, recipe, scratch)} if rows.lossy else {}),
        "rows": digests,  # last: they are still being sorted
    }
    done: dict[str, Any] = dict(zip(works, side_by_side.each(lambda work: work(), list(works.values())), strict=True))
    row_digests, digest = done["rows"]
    return ValidatedTable(
        recipe=recipe,
        digest=digest,
        train=done["train"],
        test=done["test"],
        raw_test=done.get("raw", done["test"]),
        validation=done.get("validation"),
        num_train=rows.split.count(TRAINING),
        num_test=rows.split.count(TEST),
        rows=row_digests,
        has_missing=rows.has_missing,
        profiles=rows.profiles,
        has_dates=recipe.split.rule == "time" and plain_kind(table, str(recipe.split.column)) == "date",
    )


def arrays(rows: Rows, recipe: FixedRecipe, split: str, scratch: Path) -> mapped.Arrays:
    """One split, mapped to a file in the folder ``scratch``: it may be larger than memory."""
    _write(scratch / split, rows, recipe, split)
    return mapped.opened(scratch / split)


def _write(path: Path, rows: Rows, recipe: FixedRecipe, split: str) -> str:
    """Write one split, and return the digest of the file.

    Minibatches are drawn by place: few rows lie by their digests, so that in whatever order they came the model's bytes
    are the same; many lie as they came.
    """
    is_mine = rows.split.split_ids == SIDES[split]
    ordered = np.flatnonzero(is_mine) if len(is_mine) <= ORDERED else None
    if ordered is not None:
        ordered = ordered[np.argsort(rows.digests[ordered])]

    def each(rows_of: Callable[[Any], NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """The rows of this side, piece by piece."""
        for block in _blocks(len(is_mine) if ordered is None else len(ordered)):
            if ordered is None:
                yield np.compress(is_mine[block], rows_of(block), axis=0)
            else:
                yield rows_of(ordered[block])

    pieces = {
        FEATURES: each(rows.features.matrix),
        TASKS[recipe.task].target: each(rows.truth.values.__getitem__),
        SPLIT_KEY: each(rows.split.keys.__getitem__),
    }
    return mapped.write(path, _shapes(rows, recipe, split), pieces)


def _shapes(rows: Rows, recipe: FixedRecipe, split: str) -> mapped.Shapes:
    count = rows.split.count(SIDES[split])
    return {
        FEATURES: (np.float32, (count, len(recipe.columns))),
        TASKS[recipe.task].target: (rows.truth.values.dtype, (count,)),
        SPLIT_KEY: (np.uint64, (count,)),
    }


def _blocks(rows: int, size: int = BLOCK) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _raw_test(name: str, table: Table, rows: Rows, recipe: FixedRecipe, scratch: Path) -> FileRef:
    """The test rows with all digits of their numbers, by which what float32 loses is judged."""
    target, shapes = TASKS[recipe.task].target, _shapes(rows, recipe, "test")
    shapes = {FEATURES: (np.float64, shapes[FEATURES][1]), target: shapes[target]}
    truth = rows.truth.values[rows.split.split_ids == TEST]
    path = scratch / "raw-test"
    sha256 = mapped.write(path, shapes, {FEATURES: _exact(table, rows, recipe), target: [truth]})
    return placed(path, sha256, artifact_paths.split_file(name, "test", sha256))


def _exact(table: Table, rows: Rows, recipe: FixedRecipe) -> Iterator[NDArray[np.float64]]:
    """Test rows ``(n, columns)``, piece by piece of the table; ``rows`` are those of it that have a target."""
    at = 0
    for block in _blocks(len(rows.truth.is_known), EXACT):
        known = np.flatnonzero(rows.truth.is_known[block])
        mine = np.flatnonzero(rows.split.split_ids[at : at + len(known)] == TEST)
        exact = rows.features.matrix(at + mine).astype(np.float64)
        for column in rows.lossy:
            values = table.data[recipe.columns[column].name].slice(block.start, block.stop - block.start)
            exact[:, column] = statistics.to_numbers(values)[known[mine]]
        yield exact
        at += len(known)


def digests_file(name: str, digests: dict[str, NDArray[np.uint64]], scratch: Path) -> FileRef:
    """Row digests of each part, sorted, in a file of their own."""
    path = scratch / "rows"
    shapes = {part: (np.uint64, each.shape) for part, each in digests.items()}
    sha256 = mapped.write(path, shapes, {part: [each] for part, each in digests.items()})
    return placed(path, sha256, artifact_paths.row_digests(name, sha256))


def placed(path: Path, sha256: str, target: Path) -> FileRef:
    """Give a written file the name of its content."""
    path.replace(target)
    return FileRef(path=target, sha256=sha256)
