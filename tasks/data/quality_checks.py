"""Checks for oddities in encoded rows: some stop the run, most are only reported."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from tasks.data.io.table_builder import Table
from tasks.data.recipe import Column
from tasks.data.report import Finding, error, note, warning
from tasks.data.row_hash import RowNumbers
from tasks.data.statistics import ColumnStats, to_numbers
from tasks.data.target import TargetValues
from tasks.machine.arrays import Array
from tasks.machine.words import format_names, format_number, pluralize

MUCH_MISSING = 0.1
MOST_WEIGHTS = 2_000_000
LARGEST_SHOWN = 3  # columns
MOST_FITTED, BYTES_PER_SCORE = 100_000, 24  # rows that are fitted at once; a row has a score for each class
MOST_BYTES = 4 * 2**30
OFFSET = 1000  # deviations between 0 and numbers that float32 rounds; from 3000 on ``parity_float64`` refused models
ALONE = 0.999  # share of the target's variance, or of the rows, that one column must explain alone
MIN_ROWS = 20  # needed to report this
FAR = 10  # training ranges beyond the training rows, where a straight line says nothing any more
EXACT = 1e-9  # share of the target's variance that rounding leaves where the target is a sum of columns
SUM_ROWS, MOST_SUMMANDS = 2000, 200  # enough to show that a target is no sum; more columns would take seconds
FEWEST_ENTITIES = 10
ENTITY = re.compile(  # names of columns that say whose row it is
    r"((^|[ _.-])(?i:id|uuid|key|nr)|[a-z](Id|ID)|^(?i:account|animal|client|customer|device|donor|household|machine|"
    r"member|patient|person|player|school|sensor|student|subject|user|vehicle))$"
)
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
        yield warning("few-rows", None, found, "get more rows, or name --features")
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


def check_num_weights(
    columns: Sequence[Column], stats: Sequence[ColumnStats], num_training: int, num_classes: int
) -> Iterator[Finding]:
    """Whether a model of these columns, or what it says of the rows that it is fitted to, would be too large."""
    both = zip(columns, stats, strict=True)
    inputs = {column.name: max(1, sum(count > 0 for count in each.counts)) for column, each in both}
    num_inputs, num_outputs = sum(inputs.values()), max(1, num_classes)
    if (num_weights := num_inputs * num_outputs) > MOST_WEIGHTS:
        largest = sorted(inputs, key=inputs.__getitem__, reverse=True)[:LARGEST_SHOWN]
        shown = ", ".join(f"{name} ({inputs[name]:,})" for name in largest if inputs[name] > 1)
        found = f"{num_inputs:,} numbers and levels"
        found += f" and {num_classes:,} classes" if num_classes else ""
        found += f" make {num_weights:,} weights; the largest columns are {shown}"
        action = f"group their levels, or leave some out, as with --ignore {largest[0]}"
        action += "; or join classes" if num_classes else ""
        yield error("too-many-weights", None, found, f"at most {MOST_WEIGHTS:,}", action)
    num_fitted = min(num_training, MOST_FITTED)
    if (size := num_fitted * num_outputs * BYTES_PER_SCORE) > MOST_BYTES:
        found = f"{num_classes:,} classes of {num_fitted:,} rows take {size / 2**30:.1f} GiB of memory"
        most = MOST_BYTES // (num_fitted * BYTES_PER_SCORE)
        yield error("too-many-classes", None, found, f"at most {MOST_BYTES >> 30} GiB", f"join classes: {most:,} fit")


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


def check_sum(
    columns: Sequence[Column], features: Array, targets: TargetValues, sample: RowNumbers
) -> Iterator[Finding]:
    """A target that is a weighted sum of several columns, without any error, as a total of its parts is."""
    numbers = [at for at, column in enumerate(columns) if column.kind != "category"]
    if targets.class_names or not 2 <= len(numbers) <= MOST_SUMMANDS:
        return
    rows = sample[:SUM_ROWS]
    inputs = np.stack([features[at, rows] for at in numbers], axis=1).astype(np.float64)
    y = targets.values[rows].astype(np.float64)
    is_whole = np.isfinite(inputs).all(axis=1) & np.isfinite(y)
    inputs, y = inputs[is_whole], y[is_whole]
    if len(y) < len(numbers) + MIN_ROWS:
        return
    inputs -= inputs.mean(axis=0)
    y -= y.mean()
    deviations = inputs.std(axis=0)
    deviations[deviations == 0] = 1
    effects, *_ = np.linalg.lstsq(inputs / deviations, y)
    residuals = y - inputs / deviations @ effects
    if 0 < y @ y < np.inf and residuals @ residuals <= EXACT * (y @ y):
        is_summand = np.abs(effects) > np.sqrt(EXACT) * y.std()
        summands = [columns[at].name for at, is_part in zip(numbers, is_summand, strict=True) if is_part]
        if len(summands) > 1:
            found = f"the target is a weighted sum of {format_names(summands, 6)}, without any error"
            action = "if they are not known before it is, leave at least one of them out with --ignore"
            yield warning("perfect-fit", None, found, action)


def check_extremes(
    columns: Sequence[Column], features: Array, is_training: Array, name_row: Callable[[int], str]
) -> Iterator[Finding]:
    """Numbers far beyond all training rows in a row that the model is judged by: one can spoil every figure."""
    others = np.flatnonzero(~is_training)
    for column, values in zip(columns, features, strict=True):
        training = values[is_training]
        training = training[np.isfinite(training)]
        if column.kind != "number" or column.part or not len(training):
            continue
        low, high = float(training.min()), float(training.max())
        beyond = np.maximum(low - values[others].astype(np.float64), values[others] - high)
        beyond[~np.isfinite(beyond)] = 0
        if low < high and len(beyond) and beyond.max() > FAR * (high - low):
            row = int(others[beyond.argmax()])
            value = format_number(float(values[row]), 6)
            found = (
                f"{column.name} is {value} in {name_row(row)}, which the model is judged by; the training rows have "
            )
            found += f"{format_number(low, 6)} to {format_number(high, 6)}"
            plain = f"{float(values[row]):.9g}"  # without the commas of thousands
            action = f"correct it, or name it with --missing {plain} if it stands for a missing value"
            yield warning("extreme-value", column.name, found, action)


def suggest_split(table: Table, columns: Sequence[Column], features: Array) -> Iterator[Finding]:
    """Rows in the order of time, or several rows of one patient: a random test part would flatter the model."""
    for name in dict.fromkeys(column.source for column in columns if column.part):
        times = to_numbers(table.data[name])
        steps = np.diff(times[~np.isnan(times)])
        if (
            len(steps) >= MIN_ROWS
            and np.count_nonzero(steps) > len(steps) / 2
            and ((steps >= 0).all() or (steps <= 0).all())
        ):
            found = f"rows are in the order of {name}, and the test rows lie among the others"
            yield note("time-order", name, found, f"if the model is to predict later rows, use --time-column {name}")
    for column, values in zip(columns, features, strict=True):
        if column.part or not ENTITY.search(column.name):
            continue
        num_values, num_entities = np.count_nonzero(~np.isnan(values)), len(np.unique(values[~np.isnan(values)]))
        if FEWEST_ENTITIES <= num_entities <= num_values / 2:
            found = f"{column.name} has {num_entities:,} values in {pluralize(len(values), 'row')}"
            action = f"if the model is to predict rows of others, use --split-by {column.name}"
            yield note("repeated-entity", column.name, f"{found}, so that test rows resemble training rows", action)


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
