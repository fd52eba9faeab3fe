"""How a job's rows are cut into shards."""

import itertools
from typing import NamedTuple


class Shard(NamedTuple):
    """The rows from ``start`` to ``stop`` of a job; they make the part ``number``."""

    number: int
    start: int
    stop: int


FEWEST_ROWS = 2**16  # fewer are done before another worker has begun


def cut(rows: int, at_most: int, workers: int = 1) -> list[Shard]:
    """Shards of at most ``at_most`` rows that hold ``rows``, their sizes no more than one row apart.

    As few as possible, but as many for each worker as for the others unless they would be very small.
    """
    count = -(-rows // at_most)
    even = -(-count // workers) * workers
    if rows // even >= FEWEST_ROWS:
        count = even
    bounds = [rows * number // count for number in range(count + 1)]
    return [Shard(number, start, stop) for number, (start, stop) in enumerate(itertools.pairwise(bounds))]
