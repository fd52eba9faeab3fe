"""The order of an epoch is a random permutation, whichever way it is drawn."""

import itertools
from collections import Counter

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.networks import tabular


def drawn(n: int, seed: int = 0) -> list[int]:
    return torch.cat(list(tabular.shuffle_in_parts(n, torch.Generator().manual_seed(seed)))).tolist()


@pytest.mark.parametrize("at_once", [0, 10**6])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 1000, 54_321])
def test_every_example_is_seen_once_and_a_seed_says_when(monkeypatch: pytest.MonkeyPatch, at_once: int, n: int) -> None:
    monkeypatch.setattr(tabular, "AT_ONCE", at_once)
    monkeypatch.setattr(tabular, "SORTED", 1000)
    assert sorted(drawn(n)) == list(range(n))
    assert drawn(n) == drawn(n)
    assert n < 1000 or drawn(n) != drawn(n, seed=1)


@pytest.mark.slow
def test_orders_drawn_part_by_part_are_all_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "AT_ONCE", 0)
    generator = torch.Generator().manual_seed(0)
    seen = Counter(tuple(torch.cat(list(tabular.shuffle_in_parts(4, generator))).tolist()) for _ in range(12_000))
    assert scipy.stats.chisquare([seen[each] for each in itertools.permutations(range(4))]).pvalue > 0.001


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(1, 12), min_size=1))
def test_numbers_come_in_the_sizes_asked_for_and_in_their_order(lengths: list[int], sizes: list[int]) -> None:
    everything = torch.arange(sum(lengths), dtype=torch.int32)
    found = list(tabular.regroup(everything.split(lengths), itertools.cycle(sizes)))
    assert torch.cat([*found, everything[:0]]).equal(everything)
    assert all(len(each) == size for each, size in zip(found[:-1], itertools.cycle(sizes), strict=False))
