"""Has the input changed? A model's answers on new rows against its answers on the test split."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.serving.profile import Drift, Histogram

QUANTILES = 10
SMALLEST_SHARE = 1e-4  # stands for an empty bin, whose logarithm would be infinite
FEWEST_ROWS = 1000  # among fewer, chance alone moves the index by more than a hundredth

Profile = dict[str, Histogram]


def count(values: NDArray[Any], edges: tuple[float, ...]) -> tuple[int, ...]:
    """How many of ``values`` ``(n,)`` lie in each bin. One comparison an edge: quicker than a search for so few.

    Whole numbers are compared with whole ones, which says the same and makes no float64 of them.
    """
    if values.dtype.kind in "iu":
        edges = tuple(math.floor(edge) for edge in edges)
    above = [len(values), *(int(np.count_nonzero(values > edge)) for edge in edges), 0]
    return tuple(more - fewer for more, fewer in itertools.pairwise(above))


def of(values: NDArray[Any], reference: Histogram) -> Histogram:
    """The histogram of ``values`` ``(n,)`` over the bins of ``reference``."""
    return Histogram(edges=reference.edges, counts=count(values, reference.edges))


def reference(observed: Mapping[str, NDArray[Any]], num_levels: Mapping[str, int]) -> Profile:
    """The profile of what is watched of the test split: levels one by one, all else in bins of (nearly) equal counts.

    ``observed`` and ``num_levels`` are as ``Task`` gives them.
    """
    profile = {}
    for name, values in observed.items():
        if name in num_levels:
            edges = np.arange(num_levels[name] - 1) + 0.5
        else:
            edges = np.unique(np.quantile(values, np.linspace(0, 1, QUANTILES + 1)[1:-1]))
        bounds = tuple(edges.tolist())
        profile[name] = Histogram(edges=bounds, counts=count(values, bounds))
    return profile


def stability_index(expected: Sequence[int], found: Sequence[int]) -> float:
    """The population stability index of counts in the same bins, ``Σ (f - e) ln(f / e)`` over the bins' shares.

    By the usual rule of thumb 0.1 is some drift and 0.25 is much.
    """
    return float(_of_each_bin(expected, found).sum())


def most_moved(expected: Sequence[int], found: Sequence[int]) -> int:
    """The bin that the index comes from more than from any other."""
    return int(_of_each_bin(expected, found).argmax())


def _of_each_bin(expected: Sequence[int], found: Sequence[int]) -> NDArray[np.float64]:
    e, f = (np.maximum(np.divide(each, sum(each)), SMALLEST_SHARE) for each in (expected, found))
    terms: NDArray[np.float64] = (f - e) * np.log(f / e)
    return terms


def judge(expected: Profile, found: Profile, maximum: float) -> Drift:
    """Compare two profiles; ``drift`` where any index is above ``maximum``."""
    if not expected or not found:
        return Drift(index={}, maximum=maximum, verdict="no reference")
    rows = sum(next(iter(found.values())).counts)
    if rows < FEWEST_ROWS:
        return Drift(index={}, maximum=maximum, verdict="too few rows")
    index = {name: stability_index(expected[name].counts, found[name].counts) for name in expected}
    return judge_again(Drift(index=index, maximum=maximum, verdict="stable"), maximum)


def judge_again(known: Drift, maximum: float) -> Drift:
    """The verdict by another bound; what was not judged for want of rows or of a reference is not judged now."""
    if not known.index:
        return known.model_copy(update={"maximum": maximum})
    verdict = "drift" if max(known.index.values()) > maximum else "stable"
    return Drift(index=known.index, maximum=maximum, verdict=verdict)
