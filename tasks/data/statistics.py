"""A table's columns as numbers, and their statistics: range, mean, deviation, missing values, histograms."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.io import tabular
from tasks.data.recipe import Column, Recipe
from tasks.data.report import ColumnProfile
from tasks.machine import parallel
from tasks.machine.arrays import Array
from tasks.serving import drift

BLOCK = 2**15  # rows that fit the processor's cache
FLAT = 1e-12  # share of the mean: a deviation as small as the last digits of a float
COMMONEST = 9  # levels that get a bin of their own
MIN_MAGNITUDES = 20  # needed for a meaningful median
MARGIN = 0.25  # share of the training range by which a number may exceed it before it is clamped


def to_numbers(column: pa.ChunkedArray, missing: Sequence[str] = ()) -> NDArray[np.float64]:
    """A column of numbers, booleans, dates, or text that reads as a number or boolean, as float64 ``(n,)``.

    NaN is missing, and so is text with a number that ``missing`` names. A date is in microseconds since 1970, far from
    which it is rounded to the nearest float64.
    """
    chunks = (tabular.to_numbers(chunk, missing=missing) for chunk in column.chunks)
    return np.concatenate([np.empty(0), *chunks])


class ColumnStats(NamedTuple):
    """Statistics of a column."""

    num_missing: int
    is_constant: bool  # all values are equal; a number's value stands for missing ones too, a category's does not
    mean: float = 0.0  # of numbers and booleans
    deviation: float = 0.0  # population standard deviation of the values (divided by their number)
    counts: tuple[int, ...] = ()  # for a category: rows of each level
    limits: tuple[float, float] | None = None  # the smallest and the largest number, if there is any

    @property
    def scale(self) -> float:
        """The deviation; 1 if the column does not vary, or only in the last digits of a float."""
        return self.deviation if self.deviation > FLAT * abs(self.mean) else 1.0


UNMEASURED = ColumnStats(0, is_constant=False)  # for a target: its profile is only used for its bins


@np.errstate(all="ignore")  # for infinite values, which are found elsewhere
def measure_columns(columns: Sequence[Column], num_rows: int, read_rows: Callable[[slice], Array]) -> list[ColumnStats]:
    """The statistics of encoded columns in one pass over their rows.

    ``read_rows`` returns some rows ``(columns, m)``, numbers or codes of levels, NaN where missing. Moments are merged
    block by block (Chan, Golub and LeVeque, 1979), so that a large mean costs no digits.
    """
    totals = {
        at: np.zeros(len(column.levels) + 1, np.int64) for at, column in enumerate(columns) if column.kind == "category"
    }
    numbers = [at for at in range(len(columns)) if at not in totals]
    counting = Lock()

    def measure(start: int) -> tuple[Array, ...]:
        block = read_rows(slice(start, start + BLOCK))
        for at, total in totals.items():
            codes = np.fmin(block[at], np.float32(len(total) - 1)).astype(np.int64)  # NaN is counted last
            counts = np.bincount(codes, minlength=len(total))
            with counting:
                total[:] += counts
        chosen = block[numbers]
        lowest = np.fmin.reduce(chosen, axis=1, initial=np.inf)  # missing values are skipped
        highest = np.fmax.reduce(chosen, axis=1, initial=-np.inf)
        return *_find_moments(chosen.astype(np.float64, order="C")), lowest, highest

    there, means, squares = np.zeros((3, len(numbers)))
    low, high = np.full(len(numbers), np.inf), np.full(len(numbers), -np.inf)
    measured = parallel.map_in_threads(measure, range(0, num_rows, BLOCK))
    for counts, of_block, squares_of_block, lowest, highest in measured:
        low, high = np.minimum(low, lowest), np.maximum(high, highest)
        both, distance = np.maximum(there + counts, 1), of_block - means
        squares += squares_of_block + distance**2 * there * counts / both
        means += distance * counts / both
        there += counts
    stats = []
    moments = np.stack([there, means, np.sqrt(squares / np.maximum(there, 1)), low, high], axis=1).tolist()
    for at in range(len(columns)):
        if at in totals:
            *levels, num_missing = totals[at].tolist()
            stats.append(ColumnStats(num_missing, max(levels, default=0) == num_rows, counts=tuple(levels)))
        else:
            count, mean, deviation, lowest_of_all, highest_of_all = moments.pop(0)
            is_constant = count > 0 and deviation <= FLAT * abs(mean)
            limits = (lowest_of_all, highest_of_all) if count else None
            stats.append(ColumnStats(num_rows - int(count), is_constant, mean, deviation, limits=limits))
    return stats


@np.errstate(all="ignore")
def _find_moments(values: NDArray[np.float64]) -> tuple[Array, Array, Array]:
    """For columns ``(columns, m)``: the number of values, their means, and sums of squared deviations from these.

    The values are overwritten.
    """
    counts, sums = np.full(len(values), values.shape[1]), values.sum(axis=1)
    has_missing = np.isnan(sums).any()  # most blocks have none, and masks take longer than sums
    if has_missing:
        is_missing = np.isnan(values)
        values[is_missing] = 0
        counts, sums = counts - is_missing.sum(axis=1), values.sum(axis=1)
    means = sums / np.maximum(counts, 1)
    values -= means[:, None]
    if has_missing:
        values[is_missing] = 0
    return counts, means, np.einsum("cr,cr->c", values, values)


def fit_recipe(recipe: Recipe, train: Mapping[str, Array]) -> Recipe:
    """The recipe with means, scales and counts from the training split's arrays; for pixels there are none to fit."""
    if not recipe.columns:
        return recipe
    rows, y_true, target, columns = train["features"], train.get("target"), recipe.target, list[Column]()
    stats = measure_columns(recipe.columns, len(rows), lambda some: rows[some].T)
    for column, each in zip(recipe.columns, stats, strict=True):
        facts: dict[str, Any] = {"num_missing": each.num_missing, "counts": each.counts}
        if column.kind != "category":
            facts |= {"mean": each.mean, "scale": 1.0 if column.kind == "boolean" else each.scale}
        if column.kind == "number" and each.limits:
            facts |= {"limits": set_limits(column, each.limits)}
            facts |= {"mean": float(np.float32(each.mean))}  # the graph subtracts exactly this
        columns.append(column.model_copy(update=facts))
    if target and y_true is not None:  # otherwise they are labels
        (y,) = measure_columns([Column(name=target.name)], len(y_true), lambda some: y_true[None, some])
        target = target.model_copy(update={"mean": y.mean, "scale": y.scale})
    return recipe.model_copy(update={"columns": tuple(columns), "target": target})


def set_limits(column: Column, limits: tuple[float, float]) -> tuple[float, float]:
    """Where a number is clamped: a quarter of its training range beyond it, as values a little outside are common.

    A year is clamped to the training range itself: a line through time would go on for ever.
    """
    low, high = limits
    margin = 0.0 if column.part == "year" else MARGIN * (high - low)
    largest = float(np.finfo(np.float32).max)
    return max(low - margin, -largest), min(high + margin, largest)


@np.errstate(all="ignore")  # for infinite values, which are found elsewhere
def profile_column(column: Column, values: Array, stats: ColumnStats = UNMEASURED) -> ColumnProfile:
    """The profile of a column, from sampled values ``(m,)`` float32; ``stats`` are from all rows.

    There is a bin for each of its most common levels, or bins with equal counts of numbers.
    """
    there = values[~np.isnan(values)]
    facts: dict[str, Any] = {"missing": stats.num_missing, "is_constant": stats.is_constant, "part_of": column.source}
    if column.kind == "category":
        found = np.bincount(there.astype(np.int64), minlength=len(column.levels))
        commonest = np.argsort(-found, kind="stable")[:COMMONEST]
        facts["levels"] = tuple(commonest[found[commonest] > 0].tolist())
    elif len(there):
        facts["edges"] = drift.find_quantiles(there)
    if column.kind == "number" and not column.part:
        facts["magnitude"] = median_magnitude(values)
    bins = ColumnProfile(name=column.name, **facts)
    return bins.model_copy(update={"counts": count_bins(bins, values)})


def count_bins(bins: ColumnProfile, values: NDArray[Any]) -> tuple[int, ...]:
    """How many of ``values`` ``(n,)`` are in each bin of a profile, in none of its levels, and missing."""
    there = values[~np.isnan(values)]
    num_missing = len(values) - len(there)
    if not bins.levels:
        return (*drift.count_in_bins(there, bins.edges).counts, num_missing)
    found = [int(np.count_nonzero(there == code)) for code in bins.levels]
    return (*found, len(there) - sum(found), num_missing)


def median_magnitude(values: NDArray[Any]) -> float | None:
    """The median of magnitudes ``(n,)`` that are neither 0 nor missing; None where there are hardly any."""
    sizes = np.abs(values[(values != 0) & np.isfinite(values)])
    return float(np.median(sizes)) if len(sizes) >= MIN_MAGNITUDES else None
