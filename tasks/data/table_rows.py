"""The rows of a table that a model learns from and is judged on: encoded, and written to the files of a data set."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import statistics
from tasks.data.inference import value_kind
from tasks.data.io.table import Table
from tasks.data.prepared_splits import SPLIT_KEY, Arrays, ArraySpecs, ValidatedTable, open_arrays, write_arrays
from tasks.data.recipe import Column
from tasks.data.report import ColumnProfile, Finding, error, warning
from tasks.data.row_hash import Hashes
from tasks.data.schema import Schema
from tasks.data.split import TEST, TRAINING, VALIDATION, Split
from tasks.data.statistics import Encoded
from tasks.data.target import LARGEST, Truth
from tasks.machine import cores, side_by_side
from tasks.machine.arrays import Array
from tasks.serving.contract import FEATURES
from tasks.serving.task import TASKS
from tasks.store import artifact_paths
from tasks.store.record import FileRef

CONTENTS = "contents"  # of training rows: features and target hashed, without the column that splits
BLOCK = 2**15  # rows
EXACT = 2**18  # rows of which all digits are in memory
ORDERED = 2**18  # rows that lie by their digests, which takes some hundredths of a second; of millions it takes seconds
SIDES = {"train": TRAINING, "test": TEST, "validation": VALIDATION}


class Rows(NamedTuple):
    """The rows that have a target, encoded, in the order of the table."""

    features: Encoded
    truth: Truth
    split: Split
    digests: Hashes  # (n,) of rows
    lossy: tuple[int, ...]  # columns of which float32 has not all digits
    has_missing: tuple[bool, ...]  # of each column
    ordering: Future[dict[str, Hashes]]  # what ``sort_digests`` returns
    profiles: tuple[ColumnProfile, ...]  # of each column, last of the target

    @property
    def ordered(self) -> dict[str, Hashes]:
        """Digests, each part sorted: it takes a while, in which files are written already."""
        return self.ordering.result()

    def digests_of(self, is_training: bool) -> Hashes:
        """Those of training rows, or of all others, sorted."""
        return self.ordered["train" if is_training else "other"]


def sort_digests(split: Split, digests: Hashes, contents: Hashes | None) -> dict[str, Hashes]:
    """What a file of row digests holds; ``contents`` ``(n,)`` are there where digests have more: a column that splits.

    They are features and target, hashed; of training rows they are kept.
    """
    is_training = split.split_ids == TRAINING
    parts = {"train": digests[is_training], "other": digests[~is_training]}
    if contents is not None:
        parts[CONTENTS] = contents[is_training]
    side_by_side.each(np.ndarray.sort, tuple(parts.values()))
    return parts


def encode_column(
    table: Table, column: Column, is_known: NDArray[np.bool_], into: Array
) -> tuple[Finding | None, bool]:
    """Write a column's values of the rows that have a target, as ``Encoded`` has them.

    Returns what is wrong with them, and whether float32 has all their digits.
    """
    is_whole = len(is_known) == len(into)
    if column.kind == "category":
        levels, missing = table.levels(column.name), len(column.levels)
        if is_whole:
            levels.encode(column.levels, missing, missing, into)
        else:
            into[:] = levels.encode(column.levels, missing, missing)[is_known]
        return None, True
    values, is_exact, row, start = table.data[column.name], True, 0, 0
    for chunk in values.chunks:
        exact, known = statistics.chunk_to_numbers(chunk), is_known[start : start + len(chunk)]
        exact = exact if is_whole else exact[known]
        part = into[row : row + len(exact)]
        with np.errstate(over="ignore"):
            part[:] = exact
        is_infinite = np.isinf(part)
        if is_infinite.any():
            at = int(is_infinite.argmax())
            found = f"{column.name} is {exact[at]:g} in {table.named(start + int(np.flatnonzero(known)[at]))}"
            action = f"mend the value, or leave the column out with --ignore {column.name}"
            return error("infinite-value", column.name, found, f"numbers up to {LARGEST:.3g}", action), True
        is_exact &= np.count_nonzero(part != exact) == np.count_nonzero(np.isnan(exact))
        row, start = row + len(exact), start + len(chunk)
    if is_exact or np.nanmin(into) < np.nanmax(into):
        return None, is_exact
    exact = statistics.to_numbers(values)[is_known]
    first, last = float(np.nanmin(exact)), float(np.nanmax(exact))
    if first == last:
        return None, is_exact
    found = f"{column.name} lies between {first:.12g} and {last:.12g}, which are one number in float32"
    action = f"subtract an offset from it, or leave it out with --ignore {column.name}"
    return warning("offset", column.name, found, action), is_exact


def write_table(name: str, table: Table, rows: Rows, schema: Schema, scratch: Path) -> ValidatedTable:
    """Write all files of a table without errors, side by side; ``scratch`` is a folder on the same disk."""

    def write_side(side: str) -> FileRef:
        sha256 = _write_split(scratch / side, rows, schema, side)
        return place_file(scratch / side, sha256, artifact_paths.split_file(name, side, sha256))

    with ThreadPoolExecutor(cores.available()) as pool:
        train, test = (pool.submit(write_side, side) for side in ("train", "test"))
        validation = pool.submit(write_side, "validation") if rows.split.count(VALIDATION) else None
        raw_test = pool.submit(_write_raw_test, name, table, rows, schema, scratch) if rows.lossy else test
        row_digests = write_digests(name, rows.ordered, scratch)
        digest = schema.digest((rows.digests_of(True), rows.digests_of(False)))
    return ValidatedTable(
        recipe=schema,
        digest=digest,
        train=train.result(),
        test=test.result(),
        raw_test=raw_test.result(),
        validation=validation.result() if validation else None,
        num_train=rows.split.count(TRAINING),
        num_test=rows.split.count(TEST),
        rows=row_digests,
        has_missing=rows.has_missing,
        profiles=rows.profiles,
        has_dates=schema.split.rule == "time" and value_kind(table, str(schema.split.column)) == "date",
    )


def map_split(rows: Rows, schema: Schema, side: str, scratch: Path) -> Arrays:
    """One split, mapped to a file in the folder ``scratch``: it may be larger than memory."""
    _write_split(scratch / side, rows, schema, side)
    return open_arrays(scratch / side)


def _write_split(path: Path, rows: Rows, schema: Schema, side: str) -> str:
    """Write one split, and return the digest of the file.

    Minibatches are drawn by place: few rows lie by their digests, so that in whatever order they came the model's bytes
    are the same; many lie as they came.
    """
    is_mine = rows.split.split_ids == SIDES[side]
    ordered = np.flatnonzero(is_mine) if len(is_mine) <= ORDERED else None
    if ordered is not None:
        ordered = ordered[np.argsort(rows.digests[ordered])]

    def take(values_of: Callable[[Any], NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """The rows of this side, piece by piece."""
        for block in _blocks(len(is_mine) if ordered is None else len(ordered), BLOCK):
            yield (
                np.compress(is_mine[block], values_of(block), axis=0) if ordered is None else values_of(ordered[block])
            )

    count, target, truth = rows.split.count(SIDES[side]), TASKS[schema.task].target, rows.truth.values
    shapes: ArraySpecs = {
        FEATURES: (np.float32, (count, len(schema.columns))),
        target: (truth.dtype, (count,)),
        SPLIT_KEY: (np.uint64, (count,)),
    }
    pieces = {FEATURES: take(rows.features.matrix), target: take(truth.__getitem__)}
    return write_arrays(path, shapes, pieces | {SPLIT_KEY: take(rows.split.keys.__getitem__)})


def _blocks(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _write_raw_test(name: str, table: Table, rows: Rows, schema: Schema, scratch: Path) -> FileRef:
    """Write the test rows with all digits of their numbers, by which what float32 loses is judged."""
    path, target = scratch / "raw-test", TASKS[schema.task].target
    truth = rows.truth.values[rows.split.split_ids == TEST]
    shapes: ArraySpecs = {
        FEATURES: (np.float64, (len(truth), len(schema.columns))),
        target: (truth.dtype, truth.shape),
    }
    sha256 = write_arrays(path, shapes, {FEATURES: _exact_test_rows(table, rows, schema), target: [truth]})
    return place_file(path, sha256, artifact_paths.split_file(name, "test", sha256))


def _exact_test_rows(table: Table, rows: Rows, schema: Schema) -> Iterator[NDArray[np.float64]]:
    """Test rows ``(n, columns)``, piece by piece of the table; ``rows`` are those of it that have a target."""
    at = 0
    for block in _blocks(len(rows.truth.is_known), EXACT):
        known = np.flatnonzero(rows.truth.is_known[block])
        mine = np.flatnonzero(rows.split.split_ids[at : at + len(known)] == TEST)
        exact = rows.features.matrix(at + mine).astype(np.float64)
        for column in rows.lossy:
            values = table.data[schema.columns[column].name].slice(block.start, block.stop - block.start)
            exact[:, column] = statistics.to_numbers(values)[known[mine]]
        yield exact
        at += len(known)


def write_digests(name: str, digests: dict[str, NDArray[np.uint64]], scratch: Path) -> FileRef:
    """Write the row digests of each part, sorted, to a file of their own."""
    path = scratch / "rows"
    shapes = {part: (np.uint64, each.shape) for part, each in digests.items()}
    sha256 = write_arrays(path, shapes, {part: [each] for part, each in digests.items()})
    return place_file(path, sha256, artifact_paths.row_digests(name, sha256))


def place_file(path: Path, sha256: str, target: Path) -> FileRef:
    """Give a written file the name of its content."""
    path.replace(target)
    return FileRef(path=target, sha256=sha256)
