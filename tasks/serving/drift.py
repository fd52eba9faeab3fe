"""Has the input changed? A model's answers on new rows against its answers on the test split.

Also: are answers on rows whose truth is known less accurate than on the test split?
"""

from __future__ import annotations  # for array annotations: whoever reads records need not import arrays

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tasks.serving.contract import LABEL
from tasks.store.record_base import PersistedRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUANTILES = 10
SMALLEST_SHARE = 1e-4  # stands for an empty bin, whose logarithm would be infinite
FEWEST_JUDGED = 20  # rows whose truth is known
ONE_IN_1000 = 3.09  # standard errors, above which a normal variable is in one of 1000 cases
FEWEST_ROWS = 1000  # among fewer, chance alone moves the index by more than a hundredth


class Histogram(PersistedRecord):
    """How many values lie in each of the ``len(edges) + 1`` bins; a value on an edge belongs to the bin below it."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __add__(self, other: Histogram) -> Histogram:
        """The counts of both, which have the same edges."""
        return Histogram(edges=self.edges, counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))


Profile = dict[str, Histogram]


class Drift(PersistedRecord):
    """The population stability index of each watched quantity of a model's answers, and the verdict on it."""

    index: dict[str, float]
    maximum: float
    verdict: Literal["stable", "drift", "too few rows", "no reference"]

    def describe(self) -> str:
        """Each index in words, ``label 0.310, confidence 0.100``; empty where none was computed."""
        return ", ".join(f"{name} {value:.3f}" for name, value in self.index.items())

    def judge_by(self, maximum: float) -> Drift:
        """The verdict by another bound; quantities without an index, for want of rows or a reference, stay unjudged."""
        verdict = self.verdict
        if self.index:
            verdict = "drift" if max(self.index.values()) > maximum else "stable"
        return Drift(index=self.index, maximum=maximum, verdict=verdict)


def count_in_bins(values: NDArray[Any], edges: tuple[float, ...]) -> Histogram:
    """How many of ``values`` ``(n,)`` lie in each bin. One comparison per edge is faster than a search for so few.

    Whole numbers are compared with whole numbers, which gives the same counts without a float64 copy.
    """
    import numpy as np

    bounds = tuple(map(math.floor, edges)) if values.dtype.kind in "iu" else edges
    above = [len(values), *(int(np.count_nonzero(values > bound)) for bound in bounds), 0]
    return Histogram(edges=edges, counts=tuple(more - fewer for more, fewer in itertools.pairwise(above)))


def find_quantiles(values: NDArray[Any]) -> tuple[float, ...]:
    """The edges of bins that have (nearly) equal counts of ``values`` ``(n,)``."""
    import numpy as np

    edges: list[float] = np.unique(np.quantile(values, np.linspace(0, 1, QUANTILES + 1)[1:-1])).tolist()
    return tuple(edges)


def make_profile(observed: Mapping[str, NDArray[Any]], num_classes: int) -> Profile:
    """The profile of what is watched on the test split: labels one by one, all else in bins of (nearly) equal counts.

    ``observed`` is as ``Task`` gives it.
    """
    labels = tuple(code + 0.5 for code in range(num_classes - 1))
    return {
        name: count_in_bins(values, labels if name == LABEL else find_quantiles(values))
        for name, values in observed.items()
    }


def stability_index(expected: Sequence[int], actual: Sequence[int]) -> float:
    """The population stability index of counts in the same bins, ``Σ (a - e) ln(a / e)`` over the bins' shares.

    By the usual rule of thumb 0.1 is some drift and 0.25 is much.
    """
    return float(_index_bins(expected, actual).sum())


def find_most_moved(expected: Sequence[int], actual: Sequence[int]) -> int:
    """The bin that contributes more to the index than any other."""
    return int(_index_bins(expected, actual).argmax())


def _index_bins(expected: Sequence[int], actual: Sequence[int]) -> NDArray[np.float64]:
    import numpy as np

    e, a = (np.maximum(np.divide(each, sum(each)), SMALLEST_SHARE) for each in (expected, actual))
    terms: NDArray[np.float64] = (a - e) * np.log(a / e)
    return terms


def judge_drift(expected: Profile, actual: Profile, maximum: float) -> Drift:
    """Compare two profiles; ``drift`` where any index is above ``maximum``."""
    if not expected or not actual:
        return Drift(index={}, maximum=maximum, verdict="no reference")
    if sum(next(iter(actual.values())).counts) < FEWEST_ROWS:
        return Drift(index={}, maximum=maximum, verdict="too few rows")
    index = {name: stability_index(expected[name].counts, actual[name].counts) for name in expected}
    return Drift(index=index, maximum=maximum, verdict="stable").judge_by(maximum)


# Rows whose truth is known


def is_less_accurate(accuracy: float, rows: int, published: float, published_rows: int) -> bool:
    """Whether an accuracy is so much lower than the published one that chance explains it in one of 1000 cases.

    By the normal approximation of both shares, which assumes that rows are independent; fewer than ``FEWEST_JUDGED``
    rows say nothing.
    """
    common = (accuracy * rows + published * published_rows) / (rows + published_rows)
    error = math.sqrt(common * (1 - common) * (1 / rows + 1 / published_rows))
    return rows >= FEWEST_JUDGED and published - accuracy > ONE_IN_1000 * error
