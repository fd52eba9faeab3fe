"""Prepared splits of a user's own table, by memory map: raw rows, which become inputs while a network learns."""

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.data import mapped
from tasks.data.recipe import Columns
from tasks.data.splits import PREPARE_ANEW, SPLIT_KEY, read_split
from tasks.fitting.learning import Parts, require_enough
from tasks.networks.examples import Examples
from tasks.networks.tables import Encoding, Table
from tasks.networks.whitening import Moments
from tasks.records import PreparedDataset
from tasks.store.record import FileRef

DETERMINED = "these columns determine one another, as far as can be told; their weights are those of minimum norm"
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
    keys: NDArray[np.uint64] = mapped.read(prepared.train, PREPARE_ANEW)[SPLIT_KEY]
    return keys


def latest(keys: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Which rows ``(n,)`` are held out: of the largest keys, equal ones on one side, as near to ``share`` as can be.

    Hashes are spread evenly, so that the largest are any rows or groups; the largest times are the latest.
    """
    cut = np.partition(keys, at := round((1 - share) * (len(keys) - 1)))[at]
    above, from_cut = keys > cut, keys >= cut
    return min(above, from_cut, key=lambda part: abs(part.sum() - share * len(keys)))


def encoding(recipe: Columns, dtype: torch.dtype) -> Encoding:
    """How rows of this recipe become a network's inputs."""
    numbers = [recipe.columns[at] for at in recipe.numbers]
    categories = [recipe.columns[at] for at in recipe.categories]
    num_slots = sum(column.num_slots for column in categories)
    lookup, frequencies, start = [], torch.zeros(len(categories), num_slots, dtype=torch.float64), 0
    for at, column in enumerate(categories):
        slots = torch.from_numpy(np.roll(column.slots()[:-1], 1))  # a missing value comes first
        slots = torch.where(slots < 0, num_slots + at, slots + start)
        lookup.append(torch.cat([slots, torch.tensor([num_slots + at])]))
        counts = torch.tensor([column.num_missing, *column.counts], dtype=torch.float64)
        has_slot = slots < num_slots
        frequencies[at].index_add_(0, slots[has_slot], counts[has_slot] / counts.sum())
        start += column.num_slots
    sizes = torch.tensor([len(each) for each in lookup], dtype=torch.int64)
    return Encoding(
        numbers=torch.tensor(recipe.numbers, dtype=torch.int64),
        mean=torch.tensor([column.mean or 0.0 for column in numbers], dtype=dtype).unsqueeze(1),
        scale=torch.tensor([column.scale for column in numbers], dtype=dtype).unsqueeze(1),
        categories=torch.tensor(recipe.categories, dtype=torch.int64),
        first=(sizes.cumsum(0) - sizes + 1).float().unsqueeze(1),
        last=(sizes.cumsum(0) - 1).float().unsqueeze(1),
        slots=torch.cat(lookup) if lookup else torch.zeros(0, dtype=torch.int64),
        frequencies=frequencies,
    )


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
    held_out = torch.from_numpy(latest(split_keys(prepared), share)).to(table.device)
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
