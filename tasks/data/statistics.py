"""Columns of a table as numbers, and what they are like: range, mean, deviation, missing values, histograms."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.io import tabular
from tasks.data.prepared_splits import create_arrays
from tasks.data.recipe import Column, Columns, Target
from tasks.data.report import ColumnProfile
from tasks.machine import side_by_side
from tasks.machine.arrays import Array
from tasks.serving import drift

ENCODED_FILE = "encoded.safetensors"
BLOCK = 2**15  # rows that stay in the processor's cache
FLAT = 1e-12  # of the mean: a deviation that is the last digits of a float
COMMONEST = 9  # levels that have a bin of their own
MIN_MAGNITUDES = 20  # of which a median says something


def to_numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of numbers, booleans, dates, or text that reads as either of the first two, as float64 ``(n,)``.

    NaN is missing. A date is its microseconds since 1970: far from then to the nearest that float64 has.
    """
    return np.concatenate([np.empty(0), *map(tabular.to_numbers, column.chunks)])


def parse_dates(texts: pa.Array) -> pa.Array | None:
    """ISO 8601 texts as timestamps, all with a zone or all without; None where one is no date."""
    for zone in (None, "UTC"):
        try:
            return texts.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return None


class ColumnStats(NamedTuple):
    """What a column holds."""

    num_missing: int
    is_constant: bool  # there is one value; a number's stands for missing ones too, a category's does not
    mean: float = 0.0  # of numbers and booleans
    deviation: float = 0.0  # of the values themselves (divided by their number)
    counts: tuple[int, ...] = ()  # of a category: rows of each level

    @property
    def scale(self) -> float:
        """The deviation; 1 of what does not vary, but for the last digits of a float."""
        return self.deviation if self.deviation > FLAT * abs(self.mean) else 1.0


class Encoded(NamedTuple):
    """The features of ``n`` rows column by column: a category's as codes of the smallest type, others as float32.

    A missing value is NaN, and of a category the code after that of its last level.
    """

    values: tuple[Array, ...]  # (n,) of each column
    missing: tuple[int | None, ...]  # that code; None of a number

    @classmethod
    def create(cls, columns: Sequence[Column], num_rows: int, folder: Path) -> Self:
        """Rows to be written; they lie in a file in ``folder``, mapped, and are gone with it."""
        missing = missing_codes(columns)
        dtypes = [np.dtype(np.float32) if code is None else np.min_scalar_type(code) for code in missing]
        arrays = create_arrays(folder / ENCODED_FILE, {str(at): (each, (num_rows,)) for at, each in enumerate(dtypes)})
        return cls(tuple(arrays[str(at)] for at in range(len(columns))), missing)

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.values[0])

    def floats(self, at: int, rows: Any = slice(None)) -> NDArray[np.float32]:
        """Some rows ``(m,)`` of a column, as a model takes them: NaN is missing."""
        values, code = self.values[at][rows], self.missing[at]
        found: NDArray[np.float32] = values.astype(np.float32, copy=False)
        if code is not None and (is_missing := values == code).any():
            found[is_missing] = np.nan
        return found

    def matrix(self, rows: Any, axis: int = 1) -> NDArray[np.float32]:
        """The same of all columns, which are the ``axis``: ``(m, columns)``, or ``(columns, m)``."""
        return np.stack([self.floats(at, rows) for at in range(len(self.values))], axis)

    def measure(self) -> list[ColumnStats]:
        """The statistics of each column."""
        return measure_columns(self.missing, self.num_rows, lambda rows: self.matrix(rows, axis=0))


def missing_codes(columns: Sequence[Column]) -> tuple[int | None, ...]:
    """The code of a missing value of each category, which is how many levels it has; None of a number."""
    return tuple(len(column.levels) if column.kind == "category" else None for column in columns)


@np.errstate(all="ignore")  # of infinite values, which are found elsewhere
def measure_columns(
    missing: Sequence[int | None], num_rows: int, read_rows: Callable[[slice], Array]
) -> list[ColumnStats]:
    """The statistics of columns in one pass over their rows.

    ``missing`` is as ``missing_codes`` has it; ``read_rows`` gives some rows ``(columns, m)``, NaN where there is none.
    Moments are merged block by block (Chan, Golub and LeVeque, 1979): a large mean costs no digits.
    """
    numbers = [at for at, code in enumerate(missing) if code is None]
    totals = {at: np.zeros(code + 1, np.int64) for at, code in enumerate(missing) if code is not None}
    counting = Lock()

    def measure(start: int) -> tuple[Array, Array, Array]:
        block = np.ascontiguousarray(read_rows(slice(start, start + BLOCK)))
        for at, total in totals.items():
            codes = np.fmin(block[at], np.float32(len(total) - 1)).astype(np.int64)  # NaN takes the last
            counts = np.bincount(codes, minlength=len(total))
            with counting:
                np.add(total, counts, out=total)
        return _find_moments(block[numbers])

    there, means, squares = np.zeros(len(numbers), np.int64), np.zeros(len(numbers)), np.zeros(len(numbers))
    for counts, of_block, squares_of_block in side_by_side.each(measure, range(0, num_rows, BLOCK)):
        both, distance = np.maximum(there + counts, 1), of_block - means
        squares += squares_of_block + distance**2 * there * counts / both
        means += distance * counts / both
        there += counts
    deviations, stats = np.sqrt(squares / np.maximum(there, 1)), dict[int, ColumnStats]()
    for at, count, mean, deviation in zip(numbers, there.tolist(), means.tolist(), deviations.tolist(), strict=True):
        stats[at] = ColumnStats(num_rows - count, count > 0 and deviation <= FLAT * abs(mean), mean, deviation)
    for at, total in totals.items():
        *levels, num_missing = total.tolist()
        stats[at] = ColumnStats(num_missing, max(levels, default=0) == num_rows, counts=tuple(levels))
    return [stats[at] for at in range(len(missing))]


@np.errstate(all="ignore")
def _find_moments(block: Array) -> tuple[Array, Array, Array]:
    """Of columns ``(columns, m)``: how many values there are, their means, sums of squared distances from these."""
    values = block.astype(np.float64)
    is_missing = np.isnan(values)
    np.copyto(values, 0, where=is_missing)
    counts = values.shape[1] - is_missing.sum(axis=1)
    means = values.sum(axis=1) / np.maximum(counts, 1)
    values -= means[:, None]
    np.copyto(values, 0, where=is_missing)
    return counts, means, np.einsum("cr,cr->c", values, values)


def fit_recipe(
    columns: Sequence[Column], target: str, train: Mapping[str, Array], has_missing: Sequence[bool]
) -> Columns:
    """The recipe with means, scales and counts of the training split (arrays of a prepared split).

    ``has_missing`` says of each column whether any row has no value there, be it of the training part or not.
    """
    rows, y_true, fitted = train["features"], train.get("target"), []
    stats = measure_columns(missing_codes(columns), len(rows), lambda some: rows[some].T)
    for column, each, is_missing in zip(columns, stats, has_missing, strict=True):
        facts: dict[str, Any] = {"num_missing": each.num_missing, "has_missing": is_missing, "counts": each.counts}
        if column.kind != "category":
            facts |= {"mean": each.mean, "scale": 1.0 if column.kind == "boolean" else each.scale}
        fitted.append(column.model_copy(update=facts))
    if y_true is None:  # but labels
        return Columns(columns=tuple(fitted), target=Target(name=target))
    (y,) = measure_columns([None], len(y_true), lambda some: y_true[None, some])
    return Columns(columns=tuple(fitted), target=Target(name=target, mean=y.mean, scale=y.scale))


@np.errstate(all="ignore")  # of infinite values, which are found elsewhere
def profile_column(
    column: Column, values: NDArray[np.float32], missing: int = 0, is_constant: bool = False
) -> ColumnProfile:
    """What a column is like, by sampled values ``(m,)``; ``missing`` and ``is_constant`` are of all rows.

    Bins are those of its commonest levels, or of equally many numbers.
    """
    there = values[~np.isnan(values)]
    facts: dict[str, Any] = {"missing": missing, "is_constant": is_constant}
    if column.kind == "category":
        found = np.bincount(there.astype(np.int64), minlength=len(column.levels))
        commonest = np.argsort(-found, kind="stable")[:COMMONEST]
        facts["levels"] = tuple(commonest[found[commonest] > 0].tolist())
    elif len(there):
        facts["edges"] = drift.find_quantiles(there)
    if column.kind == "number":
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
