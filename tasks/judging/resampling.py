"""How far a figure may be off by the chance of which rows are in the test split: the units that are resampled whole.

Everything that resamples test rows, or sums over them, takes its units from here: intervals, the gate ``baseline`` and
the comparison with kept versions.
"""

from collections.abc import Callable

import numpy as np

from tasks.data.recipe import SplitRule
from tasks.machine.arrays import Array

CONFIDENCE = 0.95
RESAMPLES = 2_000
MOST_DRAWN = 1_000  # units of an interval; where there are more, neighbours are taken together: their sums vary alike
FEWEST_BLOCKS = 5  # of time that a comparison takes: by random signs fewer never have a p below 0.05


def number_units(keys: Array, rule: SplitRule | None) -> Array | None:
    """The unit of each row ``(n,)`` int64, whose rows are no evidence independent of each other.

    ``keys`` ``(n,)`` uint64 are those of the split: of a split by time that of each row's time, else of its group, or
    of what it says, which copies have in common. None: every row is a unit.
    """
    return number_blocks(keys) if rule and rule.is_by_time else np.unique(keys, return_inverse=True)[1]


def number_blocks(times: Array) -> Array | None:
    """The block of each row ``(n,)``: consecutive rows by ``times`` ``(n,)``, in order, equal ones in one block.

    Rows near each other in time err alike. A block has about ``n ** (1/3)`` rows, and as many as share a time. None
    where all rows are one block, which says nothing of what another time would bring.
    """
    if not len(times):
        return None
    moments, of_row, counts = np.unique(times, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts  # rows that lie before each moment
    blocks = before // int(np.ceil(len(times) ** (1 / 3)))
    numbers = np.concatenate([[0], np.cumsum(blocks[1:] != blocks[:-1])]) if len(moments) > 1 else np.zeros(1, int)
    return numbers[of_row] if numbers[-1] else None


def join_units(units: Array | None, num_rows: int, most: int) -> tuple[Array, int]:
    """The same units ``(n,)``, joined so that there are at most ``most``; and how many there are.

    Neighbours are joined, for blocks of time beside each other are alike; single rows are dealt out, so that it does
    not matter whether a file is in order of its target.
    """
    if units is None:
        return np.arange(num_rows) % most, min(num_rows, most)
    count = int(units.max()) + 1
    return (units, count) if count <= most else (units * most // count, most)


def find_intervals(parts: Array, figures: Callable[[Array], Array], seed: int = 0) -> Array:
    """Percentile intervals ``(2, k)`` of ``figures`` ``(…, k)``, which are functions of sums ``(…, m)``.

    ``parts`` ``(units, m)`` are the sums over each unit's rows; figures that a resample lacks are NaN, and left out.
    """
    drawn = np.random.default_rng(seed).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), RESAMPLES)
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.nanquantile(figures(drawn @ parts), [tail, 1 - tail], axis=0))


def find_lower_bound(gains: Array, weights: Array, units: Array | None = None) -> float:
    """The one-sided lower bound of a weighted mean ``(n,)``, by Student's t; rows of one unit count as one.

    Of a single row or unit it is minus infinity.
    """
    import scipy.special  # which takes half as long to import as the book's models to judge

    mean = float(np.average(gains, weights=weights))
    parts = weights * (gains - mean) / weights.sum()  # each row's share in the mean's error
    if units is not None:
        parts = np.bincount(np.unique(units, return_inverse=True)[1], weights=parts)
    if (count := len(parts)) < 2:
        return -np.inf
    error = np.sqrt(count / (count - 1) * np.square(parts).sum())
    return float(mean - scipy.special.stdtrit(count - 1, CONFIDENCE) * error)
