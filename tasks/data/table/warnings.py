"""What is odd about rows that could be encoded: some of it stops the run, most is said and no more."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.findings import note, warning
from tasks.data.recipe import Column
from tasks.data.report import Finding
from tasks.data.table.encoded import Encoded
from tasks.data.table.fitting import BLOCK, Statistics, moments
from tasks.machine.words import counted, readable

MUCH_MISSING = 0.1
OFFSET = 1000  # deviations; what float32 leaves of a number that far from 0 is worth a thousandth of one
SAMPLE = 20_000
ALONE = 0.999  # share of the target's variance, or of the rows, that one column explains
FEWEST = 20  # rows to say so of
FEW_CONFLICTS = 0.02  # of the rows: some pairs of equal rows are in every table, and no reason to warn


class Ranges:
    """Of each column the smallest and largest value and what is missing; moments of numbers and booleans."""

    def __init__(self, columns: Sequence[Column], features: Encoded) -> None:
        numbers = [at for at, column in enumerate(columns) if column.kind != "category"]
        statistics = Statistics(len(numbers))
        self.missing = np.zeros(len(columns), np.int64)
        self.low, self.high, self.means, self.deviations = np.full((4, len(columns)), np.nan)
        for at, code in enumerate(features.missing):
            if code is not None:
                self._look_at_codes(at, features.values[at], code)
        for start in range(0, features.num_rows if numbers else 0, BLOCK):
            block = np.stack([features.values[at][start : start + BLOCK] for at in numbers])
            self.low[numbers] = np.fmin(self.low[numbers], np.fmin.reduce(block, axis=1))
            self.high[numbers] = np.fmax(self.high[numbers], np.fmax.reduce(block, axis=1))
            with np.errstate(all="ignore"):  # of infinite values, which are found elsewhere
                statistics.join(moments(block.astype(np.float64)))
        self.missing[numbers] = statistics.missing
        self.means[numbers], self.deviations[numbers] = statistics.means, statistics.deviations

    def _look_at_codes(self, at: int, codes: NDArray[Any], missing: int) -> None:
        self.missing[at] = np.count_nonzero(codes == missing)
        there = codes[codes != missing] if self.missing[at] else codes
        if len(there):
            self.low[at], self.high[at] = there.min(), there.max()

    def is_constant(self, at: int, column: Column) -> bool:
        """Whether a column has one value; a number's stands for missing ones too, a category's does not."""
        return bool(self.low[at] == self.high[at]) and not (column.kind == "category" and self.missing[at])


def of_columns(columns: tuple[Column, ...], rows: int, ranges: Ranges) -> Iterator[Finding]:
    """What is odd about each column by itself."""
    for at, column in enumerate(columns):
        name, missing = column.name, int(ranges.missing[at])
        mean, deviation = ranges.means[at], ranges.deviations[at]
        is_constant = ranges.is_constant(at, column)
        if is_constant or missing == rows:
            found = f"{name} has {'no value at all' if missing == rows else 'one value'}; its weight will be 0"
            yield warning("constant-column", name, found)
        elif missing > MUCH_MISSING * rows:
            yield warning("missing-values", name, f"{name} is missing in {100 * missing / rows:.3g} % of the rows")
        if column.kind == "number" and not is_constant and abs(mean) > OFFSET * deviation:
            found = (
                f"{name} is {readable(mean, 6)} on average, varying by {readable(deviation)}: too little for float32"
            )
            yield warning("offset", name, found, f"subtract an offset from it, or leave it out with --ignore {name}")


def few_rows(columns: tuple[Column, ...], num_training: int) -> Iterator[Finding]:
    """Whether there are more numbers than rows to learn from: they fit the training part whatever is in it."""
    numbers = sum(column.kind != "category" for column in columns)
    if numbers >= num_training > 0:
        found = f"{counted(numbers, 'number')} and {counted(num_training, 'training row')}: any target can be fitted so"
        action = "get more rows, name --features, or try --weight-decay auto"
        yield warning("few-rows", None, found, action)


def duplicates(columns: tuple[Column, ...], features: Encoded) -> Iterator[Finding]:
    """Columns that equal an earlier one in every row, and are neither constant nor wholly missing."""
    sample = _sample(features)
    seen: dict[bytes, list[int]] = {}
    for at, column in enumerate(columns):
        if np.nanmin(sample[at], initial=np.inf) >= np.nanmax(sample[at], initial=-np.inf):
            continue
        earlier = seen.setdefault(sample[at].tobytes(), [])
        for other in earlier:
            if column.kind == columns[other].kind and _are_equal(features, at, other):
                found = f"{column.name} equals {columns[other].name} in every row"
                yield warning("duplicate-column", column.name, found, f"leave one out, as with --ignore {column.name}")
                break
        earlier.append(at)


def leaks(
    columns: tuple[Column, ...], features: Encoded, truth: NDArray[Any], is_regression: bool
) -> Iterator[Finding]:
    """Columns that predict the target alone, as what is known only afterwards does; judged on a sample of rows."""
    sample, target = _sample(features), truth[_sampled(len(truth))]
    for at, column in enumerate(columns):
        is_there = ~np.isnan(sample[at])
        if is_there.sum() < max(FEWEST, 0.9 * len(target)):
            continue
        values, answers = sample[at][is_there].astype(np.float64), target[is_there]
        explains = _explains_number if is_regression else _explains_class
        if explains(values, answers, column.kind == "category"):
            action = f"where it is not known when you predict, --ignore {column.name}"
            yield warning("predicts-alone", column.name, f"{column.name} predicts the target alone", action)


def _explains_number(values: NDArray[Any], target: NDArray[Any], is_category: bool) -> bool:
    """By the share of the variance; of levels in units that do not favour many of them."""
    around = target - target.mean()
    total = float(around @ around)
    if not np.isfinite(total) or not total:
        return False
    if not is_category:
        with np.errstate(all="ignore"):
            return bool(np.corrcoef(values, target)[0, 1] ** 2 > ALONE)
    codes = values.astype(np.int64)
    counts = np.bincount(codes)
    within = total - float((np.bincount(codes, around)[counts > 0] ** 2 / counts[counts > 0]).sum())
    spare = len(target) - int((counts > 0).sum())
    return spare >= FEWEST and within / spare < (1 - ALONE) * total / len(target)


def _explains_class(values: NDArray[Any], labels: NDArray[Any], is_category: bool) -> bool:
    """Whether each class lies in a range of its own; of levels, whether each has one class."""
    classes = np.unique(labels)
    if len(classes) < 2:
        return False
    if is_category:
        pairs, counts = np.unique(
            values.astype(np.int64) * len(classes) + np.searchsorted(classes, labels), return_counts=True
        )
        is_first = np.diff(pairs // len(classes), prepend=-1) > 0  # of each level
        most = np.maximum.reduceat(counts, np.flatnonzero(is_first))
        spare = len(labels) - len(most)
        return spare >= FEWEST and (int(most.sum()) - len(most)) / spare > ALONE
    order = np.argsort(values)  # of equal values in any order: of two classes they never pass
    changes = labels[order][1:] != labels[order][:-1]
    return int(changes.sum()) == len(classes) - 1 and bool((np.diff(values[order])[changes] > 0).all())


def conflicts(num_rows: int, num_ambiguous: int) -> Iterator[Finding]:
    """Rows whose features a row with another target has too."""
    if num_ambiguous:
        are_many, limit = num_ambiguous > FEW_CONFLICTS * num_rows, f"{100 * FEW_CONFLICTS:g} %"
        of = f"{100 * num_ambiguous / num_rows:.3g} %{f', above {limit}' if are_many else f'; above {limit} a warning'}"
        found = f"{num_ambiguous:,} of {counted(num_rows, 'row')} ({of}) have the features of a row with another target"
        found += ": no model of these columns tells such rows apart, be the target noisy or a column missing"
        yield (warning if are_many else note)("equal-rows", None, found)


def _sampled(rows: int) -> slice:
    """At most so many rows, evenly spaced."""
    return slice(None, None, -(-rows // SAMPLE))


def _sample(features: Encoded) -> list[NDArray[np.float32]]:
    """Those of each column."""
    rows = _sampled(features.num_rows)
    return [features.floats(at, rows) for at in range(len(features.values))]


def _are_equal(features: Encoded, at: int, other: int) -> bool:
    return np.array_equal(features.floats(at), features.floats(other), equal_nan=True)
