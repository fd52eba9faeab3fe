"""What of a table's recipe is fitted anew at every retrain: statistics of the training part."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data.levels import count_codes
from tasks.data.recipe import Column, Columns, Target
from tasks.data.schema import Schema
from tasks.machine import side_by_side

BLOCK = 2**15  # rows that stay in the processor's cache
COUNTED = 2**20  # rows whose codes are held, to be counted by few calls: they keep Python's lock


def fitted(fixed: Schema, train: dict[str, NDArray[Any]], has_missing: Sequence[bool]) -> Columns:
    """The recipe with means, scales and counts of the training split (arrays of a prepared split).

    ``has_missing`` says of each column whether any row has no value there, be it on neither side of the split.
    """
    found = _found(fixed.columns, train["features"])
    columns = tuple(
        column.model_copy(update=facts | {"has_missing": missing})
        for column, facts, missing in zip(fixed.columns, found, has_missing, strict=True)
    )
    target = Target(name=fixed.target)
    if fixed.task == "regression":
        truth = Statistics.of(train["target"][:, None])
        target = Target(name=fixed.target, mean=float(truth.means[0]), scale=_scale(truth, 0))
    return Columns(columns=columns, target=target)


def _found(columns: Sequence[Column], rows: NDArray[np.float32]) -> list[dict[str, Any]]:
    """What is fitted of each column, in one pass over the rows ``(n, columns)``."""
    numbers = [at for at, column in enumerate(columns) if column.kind != "category"]
    sizes = {at: len(column.levels) for at, column in enumerate(columns) if column.kind == "category"}
    statistics = Statistics(len(numbers))
    counts = {at: np.zeros(size + 1, np.int64) for at, size in sizes.items()}  # last those of missing values

    for first in range(0, len(rows), COUNTED):
        of_codes, of_numbers = counts_and_moments(rows[first : first + COUNTED], numbers, sizes)
        for each in of_numbers:
            statistics.join(each)
        for at, more in of_codes.items():
            counts[at] += more
    found = {at: {"counts": tuple(each[:-1].tolist()), "num_missing": int(each[-1])} for at, each in counts.items()}
    for place, at in enumerate(numbers):
        scale = 1.0 if columns[at].kind == "boolean" else _scale(statistics, place)
        mean, num_missing = float(statistics.means[place]), int(statistics.missing[place])
        found[at] = {"mean": mean, "scale": scale, "num_missing": num_missing}
    return [found[at] for at in range(len(columns))]


def counts_and_moments(
    rows: NDArray[np.float32], numbers: list[int], sizes: dict[int, int]
) -> tuple[dict[int, NDArray[np.int64]], list["Moments"]]:
    """How often each code is there ``(size + 1,)``, last missing ones, and the moments of numbers, block by block.

    ``numbers`` are positions among the columns of ``rows`` ``(n, columns)``, ``sizes`` the numbers of levels of the
    categories by theirs.
    """
    codes = {at: np.empty(len(rows), np.min_scalar_type(size)) for at, size in sizes.items()}

    def look(start: int) -> "Moments":
        block = _block(rows, start)
        for at, size in sizes.items():
            codes[at][start : start + BLOCK] = np.fmin(block[at], np.float32(size))
        return moments(block[numbers].astype(np.float64))

    of_numbers = side_by_side.each(look, range(0, len(rows), BLOCK))
    return {at: count_codes(each, sizes[at] + 1) for at, each in codes.items()}, of_numbers


def _block(rows: NDArray[Any], start: int) -> NDArray[Any]:
    """Some of the rows ``(n, columns)``, column by column ``(columns, rows)``."""
    return np.ascontiguousarray(rows[start : start + BLOCK].T)


def _scale(statistics: "Statistics", at: int) -> float:
    """The standard deviation; 1 of what does not vary, but for the last digits of a float."""
    mean, deviation = abs(float(statistics.means[at])), float(statistics.deviations[at])
    return deviation if deviation > 1e-12 * mean and deviation > 0 else 1.0


class Moments(NamedTuple):
    """Of each column of a block: how many values are there, how many not, their mean, and squares around it."""

    counts: NDArray[np.int64]
    missing: NDArray[np.int64]
    means: NDArray[np.float64]
    squares: NDArray[np.float64]


def moments(values: NDArray[np.float64]) -> Moments:
    """Those of a block ``(columns, rows)``, which is used up."""
    missing, sums = np.zeros(len(values), np.int64), values.sum(axis=1)
    if np.isnan(sums).any():
        is_missing = np.isnan(values)
        missing = is_missing.sum(axis=1)
        values = np.where(is_missing, 0, values)
        sums = values.sum(axis=1)
    counts = values.shape[1] - missing
    means = sums / np.maximum(counts, 1)
    values -= means[:, None]
    if missing.any():
        values[is_missing] = 0
    return Moments(counts, missing, means, np.einsum("cr,cr->c", values, values))


class Statistics:
    """Mean and standard deviation of each column of ``(n, columns)``, and how many values are missing.

    They are of float64 sums, block by block (Chan, Golub and LeVeque, 1979), so that a large mean costs no digits.
    """

    def __init__(self, columns: int) -> None:
        self.counts = np.zeros(columns)
        self.missing = np.zeros(columns, np.int64)
        self.means = np.zeros(columns)
        self._squares = np.zeros(columns)

    @classmethod
    def of(cls, rows: NDArray[Any]) -> "Statistics":
        """Those of all rows."""
        statistics = cls(rows.shape[1])
        for start in range(0, len(rows), BLOCK):
            statistics.join(moments(_block(rows, start).astype(np.float64)))
        return statistics

    def join(self, block: "Moments") -> None:
        """Take in a block."""
        total = np.maximum(self.counts + block.counts, 1)
        distance = block.means - self.means
        self._squares += block.squares + distance**2 * self.counts * block.counts / total
        self.means += distance * block.counts / total
        self.counts += block.counts
        self.missing += block.missing

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Standard deviations, of the values themselves (divided by their number)."""
        deviations: NDArray[np.float64] = np.sqrt(self._squares / np.maximum(self.counts, 1))
        return deviations
