"""Columns of a table as numbers, and what they are like: range, mean, deviation, missing values, histograms."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data.io import tabular
from tasks.data.levels import count_codes
from tasks.data.prepared_splits import create_arrays
from tasks.data.recipe import Column, Columns, Target
from tasks.data.report import ColumnProfile
from tasks.machine import side_by_side
from tasks.machine.arrays import Array
from tasks.serving import drift

ENCODED_FILE = "encoded.safetensors"
BLOCK = 2**15  # rows that stay in the processor's cache
CODES_BLOCK = 2**20  # rows whose codes are held, to be counted by few calls: they keep Python's lock
COMMONEST = 9  # levels that have a bin of their own
MIN_MAGNITUDES = 20  # of which a median says something


def to_numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of numbers, booleans, dates, or text that reads as either of the first two, as float64 ``(n,)``.

    NaN is missing. A date is its microseconds since 1970: far from then to the nearest that float64 has.
    """
    result = np.empty(len(column))
    row = 0
    for chunk in column.chunks:
        result[row : row + len(chunk)] = chunk_to_numbers(chunk)
        row += len(chunk)
    return result


def chunk_to_numbers(chunk: pa.Array) -> Array:
    """The same of one chunk."""
    return tabular.to_numbers(chunk)


def min_max(column: pa.ChunkedArray) -> tuple[float, float]:
    """The smallest and the largest of such numbers; NaN where there is none."""

    def of_chunk(chunk: pa.Array) -> tuple[float, float]:
        values = chunk_to_numbers(chunk)
        return np.fmin.reduce(values, initial=np.nan), np.fmax.reduce(values, initial=np.nan)

    bounds = np.array([(np.nan, np.nan), *side_by_side.each(of_chunk, column.chunks)])
    return float(np.fmin.reduce(bounds[:, 0])), float(np.fmax.reduce(bounds[:, 1]))


def parse_booleans(texts: pa.Array) -> pa.Array | None:
    """1 and 0 for texts that all are ``true`` or ``false`` in any case; None where one is not."""
    found = pc.index_in(pc.ascii_lower(texts), value_set=pa.array(["false", "true"]))
    return found.cast(pa.float64()) if found.null_count == texts.null_count else None


def parse_dates(texts: pa.Array) -> pa.Array | None:
    """ISO 8601 texts as timestamps, all with a zone or all without; None where one is no date."""
    for zone in (None, "UTC"):
        try:
            return texts.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    return None


class Encoded(NamedTuple):
    """The features of ``n`` rows column by column: a category's as codes of the smallest type, others as float32.

    A missing value is NaN, and of a category the code after that of its last level.
    """

    values: tuple[Array, ...]  # (n,) of each column
    missing: tuple[int | None, ...]  # that code; None of a number

    @classmethod
    def create(cls, columns: Sequence[Column], num_rows: int, folder: Path) -> Self:
        """Rows to be written; many lie in a file in ``folder``, mapped, and are gone with it."""
        missing = tuple(len(column.levels) if column.kind == "category" else None for column in columns)
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

    def matrix(self, rows: Any) -> NDArray[np.float32]:
        """The same of all columns ``(m, columns)``."""
        first = self.floats(0, rows)
        made = np.empty((len(first), len(self.values)), np.float32)
        made[:, 0] = first
        for at in range(1, len(self.values)):
            made[:, at] = self.floats(at, rows)
        return made


@dataclass
class ColumnStats:
    """What each column holds, arrays ``(columns,)``: made of blocks of rows, and merged.

    Moments are float64 sums around each block's mean (Chan, Golub and LeVeque, 1979): a large mean costs no digits.
    """

    counts: NDArray[np.int64]  # values that are there
    missing: NDArray[np.int64]
    means: NDArray[np.float64]
    squares: NDArray[np.float64]  # sums of squared distances from the mean
    low: NDArray[np.float64]  # NaN where there is no value
    high: NDArray[np.float64]

    @classmethod
    def empty(cls, num_columns: int) -> Self:
        """Those of no rows."""
        whole, real = np.zeros((2, num_columns), np.int64), np.zeros((4, num_columns))
        real[2:] = np.nan
        return cls(*whole, *real)

    @classmethod
    def of_block(cls, block: NDArray[Any]) -> Self:
        """Those of a block ``(columns, m)``, NaN where a value is missing."""
        low, high = np.fmin.reduce(block, axis=1), np.fmax.reduce(block, axis=1)
        values = block.astype(np.float64)
        missing, sums = np.zeros(len(values), np.int64), values.sum(axis=1)
        if np.isnan(sums).any():
            is_missing = np.isnan(values)
            missing = is_missing.sum(axis=1)
            values[is_missing] = 0
            sums = values.sum(axis=1)
        counts = values.shape[1] - missing
        means = sums / np.maximum(counts, 1)
        values -= means[:, None]
        if missing.any():
            values[is_missing] = 0
        return cls(counts, missing, means, np.einsum("cr,cr->c", values, values), low, high)

    @classmethod
    def of_columns(cls, features: Encoded) -> Self:
        """Those of all rows; of a category's codes only the range and what is missing."""
        stats = cls.empty(len(features.values))
        numbers = [at for at, code in enumerate(features.missing) if code is None]
        of_numbers = cls.empty(len(numbers))
        for start in range(0, features.num_rows if numbers else 0, BLOCK):
            block = np.stack([features.values[at][start : start + BLOCK] for at in numbers])
            with np.errstate(all="ignore"):  # of infinite values, which are found elsewhere
                of_numbers.merge(cls.of_block(block))
        for field in dataclasses.fields(cls):
            getattr(stats, field.name)[numbers] = getattr(of_numbers, field.name)
        for at, code in enumerate(features.missing):
            codes = features.values[at]
            if code is not None:
                stats.missing[at] = np.count_nonzero(codes == code)
                there = codes[codes != code] if stats.missing[at] else codes
                stats.low[at], stats.high[at] = (there.min(), there.max()) if len(there) else (np.nan, np.nan)
        return stats

    def merge(self, block: "ColumnStats") -> None:
        """Take in the rows of a block."""
        total = np.maximum(self.counts + block.counts, 1)
        distance = block.means - self.means
        self.squares += block.squares + distance**2 * self.counts * block.counts / total
        self.means += distance * block.counts / total
        self.counts += block.counts
        self.missing += block.missing
        self.low, self.high = np.fmin(self.low, block.low), np.fmax(self.high, block.high)

    @property
    def deviations(self) -> NDArray[np.float64]:
        """Standard deviations, of the values themselves (divided by their number)."""
        deviations: NDArray[np.float64] = np.sqrt(self.squares / np.maximum(self.counts, 1))
        return deviations

    @property
    def scales(self) -> NDArray[np.float64]:
        """The same; 1 of what does not vary, but for the last digits of a float."""
        deviations = self.deviations
        return np.where((deviations > 1e-12 * np.abs(self.means)) & (deviations > 0), deviations, 1.0)

    def is_constant(self, at: int, column: Column) -> bool:
        """Whether a column has one value; a number's stands for missing ones too, a category's does not."""
        return bool(self.low[at] == self.high[at]) and not (column.kind == "category" and self.missing[at])


def fit_recipe(
    columns: Sequence[Column], target: str, train: Mapping[str, Array], has_missing: Sequence[bool]
) -> Columns:
    """The recipe with means, scales and counts of the training split (arrays of a prepared split).

    ``has_missing`` says of each column whether any row has no value there, be it of the training part or not.
    """
    facts = _fit_columns(columns, train["features"])
    fitted = tuple(
        column.model_copy(update=each | {"has_missing": missing})
        for column, each, missing in zip(columns, facts, has_missing, strict=True)
    )
    if "target" not in train:  # but labels
        return Columns(columns=fitted, target=Target(name=target))
    stats = ColumnStats.empty(1)
    for start in range(0, len(train["target"]), BLOCK):
        stats.merge(ColumnStats.of_block(train["target"][None, start : start + BLOCK]))
    return Columns(columns=fitted, target=Target(name=target, mean=float(stats.means[0]), scale=float(stats.scales[0])))


def _fit_columns(columns: Sequence[Column], rows: NDArray[np.float32]) -> list[dict[str, Any]]:
    """What is fitted of each column, in one pass over the rows ``(n, columns)``."""
    numbers = [at for at, column in enumerate(columns) if column.kind != "category"]
    num_levels = {at: len(column.levels) for at, column in enumerate(columns) if column.kind == "category"}
    counts, stats = count_levels_and_numbers(rows, numbers, num_levels)
    facts = {at: {"counts": tuple(each[:-1].tolist()), "num_missing": int(each[-1])} for at, each in counts.items()}
    for place, at in enumerate(numbers):
        scale = 1.0 if columns[at].kind == "boolean" else float(stats.scales[place])
        facts[at] = {"mean": float(stats.means[place]), "scale": scale, "num_missing": int(stats.missing[place])}
    return [facts[at] for at in range(len(columns))]


def count_levels_and_numbers(
    rows: NDArray[np.float32], numbers: Sequence[int], num_levels: Mapping[int, int]
) -> tuple[dict[int, NDArray[np.int64]], ColumnStats]:
    """How often each code is there ``(levels + 1,)``, last missing ones, and the statistics of numbers.

    ``numbers`` are positions among the columns of ``rows`` ``(n, columns)``, ``num_levels`` has those of categories.
    """
    counts = {at: np.zeros(size + 1, np.int64) for at, size in num_levels.items()}
    stats = ColumnStats.empty(len(numbers))
    for first in range(0, len(rows), CODES_BLOCK):
        part = rows[first : first + CODES_BLOCK]
        codes = {at: np.empty(len(part), np.min_scalar_type(size)) for at, size in num_levels.items()}

        def look(start: int, part: Array = part, codes: dict[int, Array] = codes) -> ColumnStats:
            block = np.ascontiguousarray(part[start : start + BLOCK].T)
            for at, size in num_levels.items():
                codes[at][start : start + BLOCK] = np.fmin(block[at], np.float32(size))
            return ColumnStats.of_block(block[numbers])

        for each in side_by_side.each(look, range(0, len(part), BLOCK)):
            stats.merge(each)
        for at, values in codes.items():
            counts[at] += count_codes(values, num_levels[at] + 1)
    return counts, stats


def profile_columns(
    columns: Sequence[Column], features: Encoded, rows: NDArray[np.int64], stats: ColumnStats
) -> tuple[ColumnProfile, ...]:
    """What each column is like, by a sample of ``rows`` and the statistics of all."""

    def profile(at: int) -> ColumnProfile:
        facts = {"missing": int(stats.missing[at]), "is_constant": stats.is_constant(at, columns[at])}
        return profile_column(columns[at], features.floats(at, rows)).model_copy(update=facts)

    return tuple(side_by_side.each(profile, range(len(columns))))


def profile_target(name: str, values: NDArray[Any], class_names: tuple[str, ...]) -> ColumnProfile:
    """What the target of sampled rows ``(m,)`` is like: numbers, or classes as levels."""
    column = Column(name=name, kind="category" if class_names else "number", levels=class_names)
    return profile_column(column, values.astype(np.float32))


def profile_column(column: Column, values: NDArray[np.float32]) -> ColumnProfile:
    """What values ``(m,)`` of a column are like: the bins of its commonest levels, or of equally many numbers."""
    there = values[~np.isnan(values)]
    bins = ColumnProfile(name=column.name)
    with np.errstate(all="ignore"):  # of infinite values, which are found elsewhere
        if column.kind == "category":
            found = np.bincount(there.astype(np.int64), minlength=len(column.levels))
            commonest = np.argsort(-found, kind="stable")[:COMMONEST]
            bins = ColumnProfile(name=column.name, levels=tuple(commonest[found[commonest] > 0].tolist()))
        elif len(there):
            edges = np.unique(np.quantile(there, np.linspace(0, 1, drift.QUANTILES + 1)[1:-1]))
            bins = ColumnProfile(name=column.name, edges=tuple(edges.tolist()))
        magnitude = median_magnitude(values) if column.kind == "number" else None
    return bins.model_copy(update={"counts": count_bins(bins, values), "magnitude": magnitude})


def count_bins(bins: ColumnProfile, values: NDArray[Any]) -> tuple[int, ...]:
    """How many of ``values`` ``(n,)`` are in each bin of a profile, in none of its levels, and missing."""
    there = values[~np.isnan(values)]
    num_missing = len(values) - len(there)
    if not bins.levels:
        return (*drift.count(there, bins.edges), num_missing)
    found = [int(np.count_nonzero(there == code)) for code in bins.levels]
    return (*found, len(there) - sum(found), num_missing)


def median_magnitude(values: NDArray[Any]) -> float | None:
    """The median of magnitudes ``(n,)`` that are neither 0 nor missing; None where there are hardly any."""
    sizes = np.abs(values[(values != 0) & np.isfinite(values)])
    return float(np.median(sizes)) if len(sizes) >= MIN_MAGNITUDES else None
