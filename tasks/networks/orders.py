"""The order in which an epoch sees its examples: numbers from 0, int32, as parts of one random permutation."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AT_ONCE = 2**21  # numbers that are shuffled in one: beyond the processor's cache each swap takes ten times as long
PARTS = 8  # of more; a power of two
BLOCK = 2**16  # numbers that are sorted by part at once, in the cache


def shuffled(n: int, generator: torch.Generator) -> Iterator[Tensor]:
    """A random permutation of ``n`` numbers.

    Of many each falls into a part by lot, and a part is shuffled when it is asked for: all orders are as likely as by
    one shuffle (Rao, 1961; Sandelius, 1962), and nobody waits for all of it.
    """
    if n <= AT_ONCE:
        yield torch.randperm(n, generator=generator, dtype=torch.int32)
        return
    lots = torch.empty(-(-n // 8), dtype=torch.int64).random_(generator=generator)  # the lowest bits of each byte
    members: list[list[NDArray[Any]]] = [[] for _ in range(PARTS)]
    part_of = lots.view(torch.uint8)[:n].bitwise_and_(PARTS - 1).numpy()
    for start in range(0, n, BLOCK):
        block = part_of[start : start + BLOCK]
        by_part = np.argsort(block, kind="stable").astype(np.int32) + np.int32(start)
        firsts = np.bincount(block, minlength=PARTS).cumsum()[:-1]
        for part, some in zip(members, np.split(by_part, firsts), strict=True):
            part.append(some)
    for part in members:
        numbers = torch.from_numpy(np.concatenate(part))
        yield numbers.index_select(0, torch.randperm(len(numbers), generator=generator, dtype=torch.int32))


def in_sizes(parts: Iterable[Tensor], sizes: Iterable[int]) -> Iterator[Tensor]:
    """The numbers of all parts in their order, so many at a time; the last may be fewer."""
    following, rest = iter(parts), torch.empty(0, dtype=torch.int32)
    for size in sizes:
        while len(rest) < size and (part := next(following, None)) is not None:
            rest = torch.cat([rest, part])
        if not len(rest):
            return
        yield rest[:size]
        rest = rest[size:]
