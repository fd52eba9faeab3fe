"""Checks for oddities in encoded rows: some stop the run, most are only reported."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from tasks.data.recipe import Column
from tasks.data.report import Finding, note, warning
from tasks.data.row_hash import RowNumbers
from tasks.data.statistics import ColumnStats
from tasks.data.target import TargetValues
from tasks.machine.arrays import Array
from tasks.machine.words import format_number, pluralize

MUCH_MISSING = 0.1
MANY_RARE = 0.02  # share of the training rows
OFFSET = 1000  # deviations between 0 and numbers that float32 rounds; from 3000 on ``parity_float64`` refused models
ALONE = 0.999  # share of the target's variance, or of the rows, that one column must explain alone
MIN_ROWS = 20  # needed to report this
FEW_CONFLICTS = 0.02  # share of the rows: every table has some pairs of equal rows, and a few are no reason to warn


def check_columns(
    columns: Sequence[Column], num_rows: int, num_training: int, stats: Sequence[ColumnStats], lossy: Collection[int]
) -> Iterator[Finding]:
    """What is odd about each column by itself, and whether there are more numbers than rows to learn from.

    More numbers than rows fit the training part whatever it contains. ``lossy`` are columns with digits that float32
    cannot hold: elsewhere, as in years, an offset costs nothing.
    """
    numbers = sum(column.kind != "category" for column in columns)
    if numbers >= num_training > 0:
        found = f"{pluralize(numbers, 'number')} and {pluralize(num_training, 'training row')}: "
        found += "any target can be fitted to so few rows"
        yield warning("few-rows", None, found, "get more rows, name --features, or try --weight-decay auto")
    first = {column.source: column for column in reversed(columns) if column.part}
    for at, (column, each) in enumerate(zip(columns, stats, strict=True)):
        name, missing = column.input_name, each.num_missing
        if column.part and column is not first[name]:
            continue  # for dates only missing values are odd, and all parts have the same ones
        if not column.part and (each.is_constant or missing == num_rows):
            values = "no value at all" if missing == num_rows else "one value"
            yield warning("constant-column", name, f"{name} has {values}; its weight will be 0")
        elif missing > MUCH_MISSING * num_rows:
            found = f"{name} is missing in {100 * missing / num_rows:.3g} % of the rows"
            yield warning("missing-values", name, found)
        if at in lossy and not each.is_constant and abs(each.mean) > OFFSET * each.deviation:
            found = f"{name} is {format_number(each.mean, 6)} on average, varying by {format_number(each.deviation)}"
            action = f"subtract an offset from it, or leave it out with --ignore {name}"
            yield warning("offset", name, f"{found}: too little for float32", action)


def check_rare_levels(columns: Sequence[Column], features: Array, is_training: Array) -> Iterator[Finding]:
    """Categories in which many training rows have a rare level, although their effects may differ."""
    for column, values in zip(columns, features, strict=True):
        if column.kind != "category" or column.part:
            continue
        counts = np.bincount(values[is_training & ~np.isnan(values)].astype(np.int64))
        rare = counts[(counts > 0) & (counts < column.rare)]
        share = rare.sum() / max(1, np.count_nonzero(is_training))
        if len(rare) > 1 and share > MANY_RARE:
            found = f"{column.name} has {len(rare):,} levels with fewer than {column.rare} training rows, in "
            found += f"{100 * share:.3g} % of these rows: they share one weight"
            action = "try --min-level-rows 3, or group the levels" if column.rare > 3 else "group the levels"
            yield warning("rare-levels", column.name, found, action)


def check_duplicate_columns(columns: Sequence[Column], features: Array, sample: RowNumbers) -> Iterator[Finding]:
    """Columns that equal an earlier one in every row, and are neither constant nor wholly missing."""
    known = defaultdict[tuple[str, bytes], list[int]](list)  # columns by kind and sampled values
    for at, column in enumerate(columns):
        values = features[at, sample]
        if column.part or np.nanmin(values, initial=np.inf) >= np.nanmax(values, initial=-np.inf):
            continue
        alike = known[column.kind, values.tobytes()]
        for other in alike:
            if np.array_equal(features[at], features[other], equal_nan=True):
                found = f"{column.name} equals {columns[other].name} in every row"
                yield warning(
                    "duplicate-column", column.name, found, f"leave one out, for example with --ignore {column.name}"
                )
                break
        else:
            alike.append(at)


def check_leaks(
    columns: Sequence[Column], features: Array, targets: TargetValues, sample: Any = slice(None)
) -> Iterator[Finding]:
    """Columns that predict the target alone, as values known only afterwards do; judged on a ``sample`` of rows."""
    explains, y = _explains_class if targets.class_names else _explains_number, targets.values[sample]
    for at, column in enumerate(columns):
        values = features[at, sample].astype(np.float64)
        is_there = ~np.isnan(values)
        is_enough = is_there.sum() >= max(MIN_ROWS, 0.9 * len(y))
        if is_enough and explains(values[is_there], y[is_there], column.kind == "category"):
            found = f"{column.name} alone predicts the target"
            action = f"if it is not known at prediction time, leave it out with --ignore {column.name}"
            yield warning("predicts-alone", column.name, found, action)


def _explains_number(values: Array, y: Array, is_category: bool) -> bool:
    """Whether a column explains a number, by its share of the variance, without favouring columns of many levels."""
    around = y - y.mean()
    total = float(around @ around)
    if not 0 < total < np.inf:
        return False
    if not is_category:
        with np.errstate(all="ignore"):
            return bool(np.corrcoef(values, y)[0, 1] ** 2 > ALONE)
    codes = values.astype(np.int64)
    counts, sums = np.bincount(codes), np.bincount(codes, around)
    within = total - float((sums**2 / np.maximum(counts, 1)).sum())
    spare = len(y) - np.count_nonzero(counts)
    return bool(spare >= MIN_ROWS and within / spare < (1 - ALONE) * total / len(y))


def _explains_class(values: Array, labels: Array, is_category: bool) -> bool:
    """Whether each class lies in a range of its own; for levels, whether each level has one class."""
    classes, y = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return False
    if is_category:
        pairs, counts = np.unique(values.astype(np.int64) * len(classes) + y, return_counts=True)
        is_first = np.diff(pairs // len(classes), prepend=-1) > 0  # the first pair of each level
        most = np.maximum.reduceat(counts, np.flatnonzero(is_first))
        spare = len(labels) - len(most)
        return spare >= MIN_ROWS and (int(most.sum()) - len(most)) / spare > ALONE
    order = np.argsort(values)  # equal values in any order: with two classes they never pass
    y, values = y[order], values[order]  # values may be infinite: they are compared, not subtracted
    changes = y[1:] != y[:-1]
    return int(changes.sum()) == len(classes) - 1 and bool((values[1:] > values[:-1])[changes].all())


def check_conflicts(num_rows: int, num_ambiguous: int) -> Iterator[Finding]:
    """Rows whose features also occur with another target."""
    if num_ambiguous:
        are_many, limit = num_ambiguous > FEW_CONFLICTS * num_rows, f"{100 * FEW_CONFLICTS:g} %"
        of = f"{100 * num_ambiguous / num_rows:.3g} %{f', above {limit}' if are_many else f'; above {limit} a warning'}"
        found = (
            f"{num_ambiguous:,} of {pluralize(num_rows, 'row')} ({of}) have the same features as a row with a different"
        )
        found += " target: no model of these columns tells such rows apart, because the target is noisy or a column is "
        found += "missing"
        yield (warning if are_many else note)("equal-rows", None, found)
