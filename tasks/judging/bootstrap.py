"""How far a figure may be off by the chance of which rows are in the test split."""

from collections.abc import Callable

import numpy as np

from tasks.machine.arrays import Array

RESAMPLES = 2_000
BLOCKS = 1_000  # of units that are drawn whole, where there are more: their sums vary as the rows' do


def intervals(
    sums: Array, clusters: Array | None, figures: Callable[[Array], Array], confidence: float = 0.95, seed: int = 0
) -> Array:
    """Percentile intervals of ``figures`` ``(…, k)``, which are functions of sums over rows ``(…, m)``.

    ``sums`` are ``(n, m)``, one row's each; rows of one cluster ``(n,)`` are drawn together. Returns ``(2, k)``.
    """
    of, count = blocks(len(sums), clusters)
    parts = np.stack([np.bincount(of, weights=column, minlength=count) for column in sums.T], axis=1)
    return between(parts, figures, confidence, seed)


def blocks(num_rows: int, clusters: Array | None) -> tuple[Array, int]:
    """The block of each row ``(n,)``, which is drawn whole, and how many blocks there are."""
    units = np.arange(num_rows) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    count = min(int(units.max()) + 1, BLOCKS)
    return units % count, count


def between(parts: Array, figures: Callable[[Array], Array], confidence: float = 0.95, seed: int = 0) -> Array:
    """The same of sums over each block ``(blocks, m)``; figures that a resample lacks are NaN, and left out."""
    count = len(parts)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    tail = (1 - confidence) / 2
    return np.asarray(np.nanquantile(figures(drawn @ parts), [tail, 1 - tail], axis=0))
