"""What of a table's recipe is fitted anew at every retrain: statistics of the training part."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.recipe import Column, Columns, Target
from tasks.data.table.fixed import FixedRecipe

BLOCK = 2**15  # rows that stay in the processor's cache


def fitted(fixed: FixedRecipe, train: dict[str, NDArray[Any]], has_missing: Sequence[bool]) -> Columns:
    """The recipe with means, scales and counts of the training split (arrays of a prepared split).

    ``has_missing`` says of each column whether any row has no value there, be it on neither side of the split.
    """
    statistics = Statistics.of(train["features"])
    columns = tuple(
        _column(column, at, statistics, train["features"][:, at], has_missing[at])
        for at, column in enumerate(fixed.columns)
    )
    target = Target(name=fixed.target)
    if fixed.task == "regression":
        truth = Statistics.of(train["target"][:, None])
        target = Target(name=fixed.target, mean=float(truth.means[0]), scale=_scale(truth, 0))
    return Columns(columns=columns, target=target)


def _column(column: Column, at: int, statistics: "Statistics", codes: NDArray[np.float32], has_missing: bool) -> Column:
    num_missing = int(statistics.missing[at])
    found: dict[str, Any] = {"num_missing": num_missing, "has_missing": has_missing}
    if column.kind == "category":
        found["counts"] = tuple(np.bincount(_whole(codes), minlength=len(column.levels)).tolist())
    else:
        found["mean"] = float(statistics.means[at])
        found["scale"] = 1.0 if column.kind == "boolean" else _scale(statistics, at)
    return column.model_copy(update=found)


def _whole(codes: NDArray[np.float32]) -> NDArray[np.int32]:
    return codes[~np.isnan(codes)].astype(np.int32)


def _scale(statistics: "Statistics", at: int) -> float:
    """The standard deviation; 1 of what does not vary, but for the last digits of a float."""
    mean, deviation = abs(float(statistics.means[at])), float(statistics.deviations[at])
    return deviation if deviation > 1e-12 * mean and deviation > 0 else 1.0


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
            statistics.add(np.array(rows[start : start + BLOCK].T, np.float64, order="C"))
        return statistics

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in a block ``(columns, rows)``."""
        is_missing = np.isnan(values)
        missing = is_missing.sum(axis=1)
        counts = values.shape[1] - missing
        if missing.any():
            values = np.where(is_missing, 0, values)
        means = values.sum(axis=1) / np.maximum(counts, 1)
        values -= means[:, None]
        if missing.any():
            values[is_missing] = 0
        total = np.maximum(self.counts + counts, 1)
        distance = means - self.means
        self._squares += np.einsum("cr,cr->c", values, values) + distance**2 * self.counts * counts / total
        self.means += distance * counts / total
        self.counts += counts
        self.missing += missing

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Standard deviations, of the values themselves (divided by their number)."""
        deviations: NDArray[np.float64] = np.sqrt(self._squares / np.maximum(self.counts, 1))
        return deviations
