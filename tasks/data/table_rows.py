"""The rows of a table that a model learns from and is judged on: encoded, and written to the files of a data set."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.data import statistics
from tasks.data.inference import value_kind
from tasks.data.io import tabular
from tasks.data.io.table import Table
from tasks.data.levels import find_levels
from tasks.data.prepared_splits import SPLIT_KEY, Arrays, ValidatedTable, open_arrays, write_arrays
from tasks.data.recipe import Column, SplitRule
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
ORDERED = 2**18  # rows that lie by their digests, which takes some hundredths of a second; of millions it takes seconds
SIDES = {"train": TRAINING, "test": TEST, "validation": VALIDATION}


class Rows(NamedTuple):
    """The rows that have a target, encoded, in the order of the table."""

    features: Encoded
    truth: Truth
    rule: SplitRule
    split: Split
    digests: Hashes  # (n,) of rows
    lossy: tuple[int, ...]  # columns of which float32 has not all digits
    has_missing: tuple[bool, ...]  # of each column
    ordering: Future[dict[str, Hashes]]  # what ``sort_digests`` returns: it takes a while, in which files are written
    profiles: tuple[ColumnProfile, ...]  # of each column, last of the target

    def digests_of(self, is_training: bool) -> Hashes:
        """Those of training rows, or of all others, sorted."""
        return self.ordering.result()["train" if is_training else "other"]


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


def encode_column(table: Table, column: Column, truth: Truth, into: Array) -> tuple[Finding | None, bool]:
    """Write a column's values of the rows that have a target, as ``Encoded`` has them.

    Returns what is wrong with them, and whether float32 has all their digits.
    """
    name, values = column.name, truth.of_column(table.data[column.name])
    if column.kind == "category":
        missing = len(column.levels)
        find_levels(values).encode(column.levels, missing, missing, into)
        return None, True
    is_exact, row = True, 0
    for chunk in values.chunks:
        exact, part = tabular.to_numbers(chunk), into[row : row + len(chunk)]
        with np.errstate(over="ignore"):
            part[:] = exact
        is_exact &= np.count_nonzero(part != exact) == np.count_nonzero(np.isnan(exact))
        row += len(chunk)
    is_infinite = np.isinf(into)
    if is_infinite.any():
        row = int(is_infinite.argmax())
        value = statistics.to_numbers(values.slice(row, 1))[0]
        found = f"{name} is {value:g} in {truth.name_row(table, row)}"
        action = f"mend the value, or leave the column out with --ignore {name}"
        return error("infinite-value", name, found, f"numbers up to {LARGEST:.3g}", action), True
    if not is_exact and np.nanmin(into) == np.nanmax(into):
        low, high = statistics.min_max(values)
        if low < high:
            found = f"{name} lies between {low:.12g} and {high:.12g}, which are one number in float32"
            action = f"subtract an offset from it, or leave it out with --ignore {name}"
            return warning("offset", name, found, action), is_exact
    return None, is_exact


def write_table(name: str, table: Table, rows: Rows, schema: Schema, scratch: Path) -> ValidatedTable:
    """Write all files of a table without errors, side by side; ``scratch`` is a folder on the same disk."""

    def write(file: str) -> FileRef:
        side = "test" if file == "raw_test" else file
        sha256 = _write_rows(scratch / file, rows, schema, side, table if file == "raw_test" else None)
        return place_file(scratch / file, sha256, artifact_paths.split_file(name, side, sha256))

    counts = {side: rows.split.count(split_id) for side, split_id in SIDES.items()}
    with ThreadPoolExecutor(cores.available()) as pool:
        writing = {side: pool.submit(write, side) for side, count in counts.items() if count}
        writing["raw_test"] = pool.submit(write, "raw_test") if rows.lossy else writing["test"]
        row_digests = write_digests(name, rows.ordering.result(), scratch)
        digest = schema.digest((rows.digests_of(True), rows.digests_of(False)))
    files: dict[str, Any] = {file: each.result() for file, each in writing.items()}
    return ValidatedTable(
        **files,
        recipe=schema,
        digest=digest,
        num_train=counts["train"],
        num_test=counts["test"],
        rows=row_digests,
        has_missing=rows.has_missing,
        profiles=rows.profiles,
        has_dates=rows.rule.rule == "time" and value_kind(table, str(rows.rule.column)) == "date",
    )


def map_split(rows: Rows, schema: Schema, side: str, scratch: Path) -> Arrays:
    """One split, mapped to a file in the folder ``scratch``: it may be larger than memory."""
    _write_rows(scratch / side, rows, schema, side)
    return open_arrays(scratch / side)


def _write_rows(path: Path, rows: Rows, schema: Schema, side: str, exact: Table | None = None) -> str:
    """Write one split, or, of the table ``exact``, all digits of its numbers; return the digest of the file.

    Minibatches are drawn by place: few rows lie by their digests, so that in whatever order they came the model's bytes
    are the same; many lie as they came.
    """
    is_mine = rows.split.split_ids == SIDES[side]

    def blocks() -> Iterator[Array]:
        """The numbers of the rows of this side."""
        if exact or len(is_mine) > ORDERED:
            for start in range(0, len(is_mine), BLOCK):
                yield start + np.flatnonzero(is_mine[start : start + BLOCK])
        else:
            mine = np.flatnonzero(is_mine)
            yield from np.split(mine[np.argsort(rows.digests[mine])], range(BLOCK, len(mine), BLOCK))

    values_of: dict[str, Callable[[Any], Array]] = {
        FEATURES: rows.features.matrix,
        TASKS[schema.task].target: rows.truth.values.__getitem__,
    }
    if exact:
        values_of[FEATURES] = _exact_features(exact, rows, schema)
    else:
        values_of[SPLIT_KEY] = rows.split.keys.__getitem__
    first = {key: values(np.zeros(1, np.int64)) for key, values in values_of.items()}
    specs = {key: (each.dtype, (rows.split.count(SIDES[side]), *each.shape[1:])) for key, each in first.items()}
    return write_arrays(path, specs, {key: map(values, blocks()) for key, values in values_of.items()})


def _exact_features(table: Table, rows: Rows, schema: Schema) -> Callable[[Any], Array]:
    """A function that makes the features ``(m, columns)`` of some rows, in order, with all their digits."""
    in_table = np.flatnonzero(rows.truth.is_known)

    def features(numbers: Array) -> Array:
        matrix, places = rows.features.matrix(numbers).astype(np.float64), in_table[numbers]
        for at in rows.lossy if len(places) else ():
            values = table.data[schema.columns[at].name].slice(places[0], places[-1] + 1 - places[0])
            matrix[:, at] = statistics.to_numbers(values)[places - places[0]]
        return matrix

    return features


def write_digests(name: str, digests: dict[str, Hashes], scratch: Path) -> FileRef:
    """Write the row digests of each part, sorted, to a file of their own."""
    specs = {part: (np.uint64, each.shape) for part, each in digests.items()}
    sha256 = write_arrays(scratch / "rows", specs, {part: [each] for part, each in digests.items()})
    return place_file(scratch / "rows", sha256, artifact_paths.row_digests(name, sha256))


def place_file(path: Path, sha256: str, target: Path) -> FileRef:
    """Give a written file the name of its content."""
    path.replace(target)
    return FileRef(path=target, sha256=sha256)
