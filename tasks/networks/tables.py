"""A split of a table that memory should not hold: raw rows become a network's inputs minibatch by minibatch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from tasks.networks.examples import Split


@dataclass(frozen=True)
class Encoding:
    """How raw rows ``(n, columns)`` float32 become standardised numbers and the places of categories.

    The slots of all categorical columns are numbered one column after the other, ``num_slots`` of them; behind them
    every column has one more, that of a code without a weight of its own: a network learns the average effect there.
    ``pairs`` are those of columns that are taken in pairs, as ``effects`` has them. The other tensors: ``numbers`` and
    ``categories`` are positions of columns, int64, of categories the first columns of all pairs, then the second ones,
    then those alone; ``mean`` and ``scale`` ``(numbers, 1)`` of the numbers, in the precision of the network;
    ``last`` ``(categories, 1)`` the number of levels, which is an unknown code, and ``stride`` ``(pairs, 1)`` the codes
    of a pair's second column, both float32; ``offset`` ``(groups, 1)`` int64 where a pair's combinations, and in
    ``alone`` a column's codes, begin, and what the code -1 of missing values takes off; ``alone`` the place of each
    such code; ``frequencies`` ``(categories, num_slots)`` the share of the training rows in each slot, of the column's
    own only.
    """

    numbers: Tensor
    mean: Tensor
    scale: Tensor
    categories: Tensor
    last: Tensor
    stride: Tensor
    offset: Tensor
    pairs: Tensor
    alone: Tensor
    frequencies: Tensor

    @property
    def num_slots(self) -> int:
        """How many effects there are to learn."""
        return self.frequencies.shape[1]

    def to(self, where: torch.device | torch.dtype) -> "Encoding":
        """The same on another device, or for a network of another precision."""
        keep = isinstance(where, torch.dtype)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Encoding(
            **{
                name: each if keep and name not in ("mean", "scale") else each.to(where)
                for name, each in values.items()
            }
        )

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs ``(n, numbers)``, a missing one at its mean, and places ``(n, groups)`` int64, None without any.

        Of several minibatches at once, ``(minibatches, n, columns)``, those of each.
        """
        columns = rows.mT.contiguous()  # whose values then lie side by side, for this and for what networks do with it
        X = columns.index_select(-2, self.numbers).to(self.mean.dtype).sub_(self.mean).div_(self.scale)
        X.nan_to_num_(0.0, posinf=math.inf, neginf=-math.inf)
        if not len(self.categories):
            return X.mT, None
        codes = torch.minimum(columns.index_select(-2, self.categories).nan_to_num_(-1.0), self.last)
        pairs = len(self.stride)
        codes[..., :pairs, :].mul_(self.stride).add_(codes[..., pairs : 2 * pairs, :])
        if not len(self.alone):
            return X.mT, codes[..., :pairs, :].long().add_(self.offset).mT
        places = torch.cat([codes[..., :pairs, :], codes[..., 2 * pairs :, :]], dim=-2).long().add_(self.offset)
        alone = places[..., pairs:, :]
        alone.copy_(self.alone.index_select(0, alone.flatten()).view_as(alone))
        return X.mT, places.mT


@dataclass(frozen=True)
class Table:
    """Raw rows ``(n, columns)`` float32, wherever they lie, a file for instance; of these the ``members``, or all.

    ``truth`` ``(n,)`` is that of all rows that the table has: floating point, or labels of any type.
    """

    rows: Tensor
    truth: Tensor
    encoding: Encoding
    members: Tensor | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def y(self) -> Tensor:
        """The truth as networks take it: labels are int64, made anew each time."""
        return self.truth if self.truth.is_floating_point() else self.truth.long()

    @property
    def device(self) -> torch.device:
        """Where the examples are."""
        return self.truth.device

    @property
    def num_inputs(self) -> int:
        """Values of one example."""
        return self.rows.shape[1]

    def to(self, device: torch.device) -> "Table":
        """The same rows on another device."""
        members = None if self.members is None else self.members.to(device)
        return Table(self.rows.to(device), self.truth.to(device), self.encoding.to(device), members)

    def in_precision(self, dtype: torch.dtype) -> "Table":
        """The same rows for a network of another precision, and the truth too unless it is labels."""
        truth = self.truth.to(dtype) if self.truth.is_floating_point() else self.truth
        return replace(self, truth=truth, encoding=self.encoding.to(dtype))

    def at(self, index: Tensor) -> "Table":
        """The examples at ``index``, of which only the index is copied."""
        members = index if self.members is None else self.members.index_select(0, index)
        return replace(self, truth=self.truth.index_select(0, index), members=members)

    def pieces(self, size: int) -> "Iterator[Table]":
        """The examples in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            if self.members is None:
                yield replace(self, rows=self.rows[part], truth=self.truth[part])
            else:
                yield replace(self, truth=self.truth[part], members=self.members[part])

    def minibatch(self, index: Tensor) -> tuple[Tensor, ...]:
        """Inputs, truth and places of the examples at ``index``."""
        (only,) = self.minibatches_at_once(index, len(index))
        return only

    def minibatches_at_once(self, order: Tensor, batch_size: int) -> list[tuple[Tensor, ...]]:
        """The same of ``order``, ``batch_size`` at a time, encoded by few calls."""
        at, whole = self.at(order), len(order) // batch_size * batch_size
        made: list[tuple[Tensor, ...]] = []
        for part in at.pieces(whole or len(order)):  # the last minibatch may be a smaller one
            inputs = part._inputs(min(batch_size, len(part)))
            made += zip(inputs[0], part.y.split(batch_size), *inputs[1:], strict=True)
        return made

    def minibatches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """The same one after another."""
        return map(self.minibatch, order.split(batch_size))

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """Inputs and places of all examples, minibatch by minibatch."""
        return (piece._inputs() for piece in self.pieces(batch_size))

    def resident(self) -> Split:
        """The same examples encoded once, for many passes over few rows."""
        X, *places = self._inputs()
        return Split(X, self.y, places=places[0] if places else None)

    def _inputs(self, size: int | None = None) -> tuple[Tensor, ...]:
        """Inputs and places, of minibatches if they have a ``size``, which all examples fill."""
        rows = self.rows if self.members is None else _at(self.rows, self.members)
        X, places = self.encoding(rows if size is None else rows.view(-1, size, rows.shape[1]))
        return (X,) if places is None else (X, places)


def _at(rows: Tensor, members: Tensor) -> Tensor:
    """Some of the rows ``(n, columns)``; numpy copies short ones in half the time of torch."""
    if rows.device.type != "cpu":
        return rows.index_select(0, members)
    return torch.from_numpy(np.take(rows.numpy(), members.numpy(), axis=0))
