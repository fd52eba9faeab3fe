"""What columns are like in rows that are encoded, and how far this has moved."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.recipe import Column
from tasks.data.table.encoded import Encoded
from tasks.data.table.hashing import Words
from tasks.data.table.profile import ColumnProfile
from tasks.data.table.splitting import threshold
from tasks.data.table.warnings import SAMPLE, Ranges
from tasks.data.target import Truth
from tasks.machine import side_by_side
from tasks.serving import drift

COMMONEST = 9  # levels that have a bin of their own
FEWEST_MAGNITUDES = 20  # of which a median says something

Values = NDArray[Any]


def sample(digests: Words) -> NDArray[np.int64]:
    """The places of some 20,000 rows ``(n,)`` at most: those of the lowest digests, in whatever order rows come."""
    if len(digests) <= SAMPLE:
        return np.arange(len(digests))
    return np.flatnonzero(digests < threshold(SAMPLE / len(digests)))


def profiles(columns: Sequence[Column], features: Encoded, digests: Words, ranges: Ranges) -> tuple[ColumnProfile, ...]:
    """What each column of ``features`` is like."""
    places = sample(digests)

    def profile(at: int) -> ColumnProfile:
        values, column = features.floats(at, places), columns[at]
        facts: dict[str, Any] = {
            "missing": int(ranges.missing[at]),
            "is_constant": ranges.is_constant(at, column),
        }
        with np.errstate(all="ignore"):  # of infinite values, which are found elsewhere
            facts |= {"magnitude": magnitude(values)} if column.kind == "number" else {}
            return _bins(column, values).model_copy(update=facts)

    return tuple(side_by_side.each(profile, range(len(columns))))


def of_target(column: Column, truth: Truth, digests: Words) -> ColumnProfile:
    """What the target is like; ``column`` is it as a column."""
    values = truth.values[sample(digests)].astype(np.float32)
    facts = {"magnitude": magnitude(values)} if column.kind == "number" else {}
    return _bins(column, values).model_copy(update=facts)


def target_column(name: str, truth: Truth) -> Column:
    """The target as a column: numbers, or classes as levels."""
    return Column(name=name, kind="category" if truth.class_names else "number", levels=truth.class_names)


def _bins(column: Column, values: Values) -> ColumnProfile:
    there = values[~np.isnan(values)]
    bins = ColumnProfile(name=column.name)
    if column.kind == "category":
        found = np.bincount(there.astype(np.int64), minlength=len(column.levels))
        commonest = np.argsort(-found, kind="stable")[:COMMONEST]
        bins = ColumnProfile(name=column.name, levels=tuple(commonest[found[commonest] > 0].tolist()))
    elif len(there):
        edges = np.unique(np.quantile(there, np.linspace(0, 1, drift.QUANTILES + 1)[1:-1]))
        bins = ColumnProfile(name=column.name, edges=tuple(edges.tolist()))
    return bins.model_copy(update={"counts": counts(bins, values)})


def counts(bins: ColumnProfile, values: Values) -> tuple[int, ...]:
    """How many of ``values`` ``(n,)`` are in each bin of a profile, in none of its levels, and missing."""
    there = values[~np.isnan(values)]
    missing = len(values) - len(there)
    if not bins.levels:
        return (*drift.count(there, bins.edges), missing)
    found = [int(np.count_nonzero(there == code)) for code in bins.levels]
    return (*found, len(there) - sum(found), missing)


def magnitude(values: Values) -> float | None:
    """The median of magnitudes ``(n,)`` that are neither 0 nor missing; None where there are hardly any."""
    sizes = np.abs(values[(values != 0) & np.isfinite(values)])
    return float(np.median(sizes)) if len(sizes) >= FEWEST_MAGNITUDES else None
