"""Prepared splits of a user's own table, by memory map: raw rows, which become inputs while a network learns."""

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.data.prepared_splits import PREPARE_ANEW, SPLIT_KEY, hold_out, read_arrays, read_split
from tasks.data.recipe import Columns
from tasks.fitting.learning import Parts, require_enough
from tasks.networks.effects import NONE
from tasks.networks.examples import Examples
from tasks.networks.moments import Moments
from tasks.networks.tables import Encoding, Table
from tasks.records import PreparedDataset
from tasks.store.record import FileRef

DETERMINED = "these columns determine one another, as far as can be told; their weights are those of minimum norm"
PAIR, PAIR_ROWS = 2**10, 16  # combined codes of two columns at most, and rows for each: a step looks at all of them
RESIDENT = 20_000_000  # values of a split that are encoded once, 160 MB; a larger one is encoded in every pass


def load(prepared: PreparedDataset, file: FileRef, dtype: torch.dtype, known: Encoding | None = None) -> Table:
    """A split of a table, one ``file`` of ``prepared``; a regression's truth is in deviations of the target.

    ``known`` is the encoding that another split of it has.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    recipe = prepared.recipe
    assert isinstance(recipe, Columns)  # noqa: S101  (whoever calls has looked)
    assert recipe.target is not None  # noqa: S101
    features, truth = read_split(file, prepared)
    if prepared.task == "regression":
        y = torch.from_numpy((truth - recipe.target.mean) / recipe.target.scale).to(dtype)
    else:
        y = torch.from_numpy(truth if truth.dtype == np.uint8 else truth.astype(np.int64))
    return Table(torch.from_numpy(features), y, known or encoding(recipe, dtype))


def split_keys(prepared: PreparedDataset) -> NDArray[np.uint64]:
    """By what a validation part is cut off the training split: the hash of a row or group, or its time ``(n,)``.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    keys: NDArray[np.uint64] = read_arrays(prepared.train, PREPARE_ANEW)[SPLIT_KEY]
    return keys


def encoding(recipe: Columns, dtype: torch.dtype) -> Encoding:
    """How rows of this recipe become a network's inputs."""
    numbers = [recipe.columns[at] for at in recipe.numbers]
    categories = [recipe.columns[at] for at in recipe.categories]
    num_slots, start = sum(column.num_slots for column in categories), 0
    lookup, frequencies = list[torch.Tensor](), torch.zeros(len(categories), num_slots, dtype=torch.float64)
    for at, column in enumerate(categories):
        slots = torch.from_numpy(np.roll(column.slots()[:-1], 1))  # a missing value comes first
        slots = torch.where(slots < 0, num_slots + at, slots + start)
        lookup.append(torch.cat([slots, torch.tensor([num_slots + at])]))
        counts = torch.tensor([column.num_missing, *column.counts], dtype=torch.float64)
        has_slot = slots < num_slots
        frequencies[at].index_add_(0, slots[has_slot], counts[has_slot] / counts.sum())
        start += column.num_slots
    sizes = [len(each) for each in lookup]
    num_rows = sum(each.num_missing + sum(each.counts) for each in categories[:1])
    together, alone = _paired(sizes, min(PAIR, num_rows // PAIR_ROWS))
    combined = [torch.cartesian_prod(lookup[first], lookup[second]) for first, second in together]
    pairs, strides = torch.cat([NONE, *combined]), [sizes[second] for _, second in together]
    order = [*(first for first, _ in together), *(second for _, second in together), *alone]
    offsets = [start + 1 + stride for start, stride in zip(_starts(map(len, combined)), strides, strict=True)]
    offsets += [start + 1 for start in _starts(sizes[at] for at in alone)]
    return Encoding(
        numbers=torch.tensor(recipe.numbers, dtype=torch.int64),
        mean=torch.tensor([column.mean or 0.0 for column in numbers], dtype=dtype).unsqueeze(1),
        scale=torch.tensor([column.scale for column in numbers], dtype=dtype).unsqueeze(1),
        categories=torch.tensor([recipe.categories[at] for at in order], dtype=torch.int64),
        last=torch.tensor([sizes[at] - 2.0 for at in order]).unsqueeze(1),
        stride=torch.tensor(strides, dtype=torch.float32).unsqueeze(1),
        offset=torch.tensor(offsets, dtype=torch.int64).unsqueeze(1),
        pairs=pairs,
        alone=torch.cat([NONE[:, 0], *(len(pairs) + lookup[at] for at in alone)]),
        frequencies=frequencies,
    )


def _starts(lengths: Iterable[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)][:-1]


def _paired(sizes: list[int], most: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Columns of so many codes each in pairs, largest with smallest, of at most ``most`` together; and those alone."""
    rest, together, alone = sorted(range(len(sizes)), key=sizes.__getitem__), list[tuple[int, int]](), list[int]()
    while rest:
        largest = rest.pop()
        if rest and sizes[largest] * sizes[rest[0]] <= most:
            together.append((largest, rest.pop(0)))
        else:
            alone.append(largest)
    return together, alone


def parts(
    share: float, prepared: PreparedDataset, table: Table, test: Table, validation: Table | None, is_whole: bool
) -> Parts[Examples]:
    """The training rows, without those of a validation part if a ``share`` is asked for, and the test rows.

    Where the data have a ``validation`` part of their own no share is cut off. ``is_whole``: every step sees all rows.
    """
    fitted = table
    if share and validation is None:
        fitted, validation = cut(share, prepared, table)
    return Parts(kept(fitted, is_whole), validation and kept(validation, is_whole), kept(test, is_whole))


def cut(share: float, prepared: PreparedDataset, table: Table) -> tuple[Table, Table]:
    """The training rows without a ``share`` of them, and those."""
    held_out = torch.from_numpy(hold_out(split_keys(prepared), share)).to(table.device)
    fitted, validation = (table.at(torch.nonzero(each).squeeze(1)) for each in (~held_out, held_out))
    require_enough(share, len(fitted), len(validation))
    return fitted, validation


def kept(split: Examples, is_whole: bool) -> Examples:
    """Encoded once, where every step sees all rows and memory should hold them."""
    is_small = len(split) * split.num_inputs <= RESIDENT
    return split.resident() if is_whole and is_small and isinstance(split, Table) else split


def determined(recipe: Columns, inputs: Moments) -> tuple[str, ...]:
    """The names of columns that others determine."""
    categories = [recipe.columns[at] for at in recipe.categories]
    owners = [recipe.columns[at].name for at in recipe.numbers]
    owners += [column.name for column in categories for _ in range(column.num_slots)]
    return tuple(dict.fromkeys(owners[at] for at in inputs.collinear([each.num_slots for each in categories])))
