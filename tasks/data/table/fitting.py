"""What of a table's recipe is fitted anew at every retrain: statistics of the training part."""

from collections.abc import Iterator, Sequence
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
    for block in _blocks(rows):
        statistics.add(block[numbers].astype(np.float64))
        for at, size in sizes.items():
            codes = np.nan_to_num(block[at], nan=size).astype(np.int32)
            counts[at] += np.bincount(codes, minlength=size + 1)
    found = {at: {"counts": tuple(each[:-1].tolist()), "num_missing": int(each[-1])} for at, each in counts.items()}
    for place, at in enumerate(numbers):
        scale = 1.0 if columns[at].kind == "boolean" else _scale(statistics, place)
        mean, num_missing = float(statistics.means[place]), int(statistics.missing[place])
        found[at] = {"mean": mean, "scale": scale, "num_missing": num_missing}
    return [found[at] for at in range(len(columns))]


def _blocks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Rows ``(n, columns)``, some at a time and column by column ``(columns, rows)``."""
    return (np.ascontiguousarray(rows[start : start + BLOCK].T) for start in range(0, len(rows), BLOCK))


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
        for block in _blocks(rows):
            statistics.add(block.astype(np.float64))
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
