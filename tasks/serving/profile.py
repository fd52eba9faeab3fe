"""What a model answered: counts by bins, and what it means that they have changed."""

from typing import Literal

from tasks.store.record import Lasting


class Histogram(Lasting):
    """How many values lie in each of the ``len(edges) + 1`` bins; a value on an edge belongs to the bin below it."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __add__(self, other: "Histogram") -> "Histogram":
        """The counts of both, which have the same edges."""
        return Histogram(edges=self.edges, counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)))


class Drift(Lasting):
    """The population stability index of what was watched of a model's answers, and what it means."""

    index: dict[str, float]
    maximum: float
    verdict: Literal["stable", "drift", "too few rows", "no reference"]
