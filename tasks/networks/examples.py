"""A whole split of the data, and the minibatches that a network sees of it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

VALUES = 2**24  # of a minibatch that is only measured
GATHERED = 2**21  # values of the minibatches that are gathered at once: as bytes they stay in the cache


class DeviceExamples(Protocol):
    """A whole split on one device: ``Split``, or ``tabular.TableExamples`` for a split too large for memory."""

    @property
    def y(self) -> Tensor:
        """The truth ``(n,)``."""

    @property
    def device(self) -> torch.device:
        """Where the examples are."""

    @property
    def num_inputs(self) -> int:
        """The number of values in one example."""

    def __len__(self) -> int: ...

    def select(self, index: Tensor) -> "DeviceExamples":
        """The examples at ``index`` ``(m,)`` int64."""

    def pieces(self, size: int) -> Iterator["DeviceExamples"]:
        """The examples in order, ``size`` at a time."""

    def minibatches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """Inputs ``(m, …)``, floating point, truth ``(m,)`` and ``extras`` of one minibatch after another.

        ``order`` ``(n,)`` int64 has the indices of the examples. A minibatch of a ``Split`` is valid until the next
        one.
        """

    def iterate_in_order(self, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """The inputs of all examples and their ``extras``, minibatch by minibatch; each is valid until the next one."""


@dataclass(frozen=True)
class Split:
    """A whole split resident on one device: ``X`` ``(n, …)`` uint8 or floating point, ``y`` ``(n,)``.

    A minibatch of bytes is converted to float32 and multiplied by ``scale`` (1/255 brings pixels to 0…1). ``extras``,
    each ``(n, …)``, are further inputs of a network: for a table, where its categories have their effects.
    """

    X: Tensor
    y: Tensor
    scale: float = 1.0
    extras: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def device(self) -> torch.device:
        """Where the examples are."""
        return self.y.device

    @property
    def num_inputs(self) -> int:
        """The number of values in one example."""
        return sum(math.prod(each.shape[1:]) for each in (self.X, *self.extras))

    def select(self, index: Tensor) -> "Split":
        """The examples at ``index``; ``index_select`` is an order of magnitude faster than ``X[index]`` here."""
        return self._map(lambda tensor: tensor.index_select(0, index))

    def pieces(self, size: int) -> "Iterator[Split]":
        """The examples in order, ``size`` at a time, as views."""
        for start in range(0, len(self), size):
            yield self._map(lambda tensor, start=start: tensor[start : start + size])  # type: ignore[misc]

    def minibatches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """Inputs, truth and extras of one minibatch after another, in one buffer, which so stays in the cache.

        Several minibatches are gathered at once, and each is then a view.
        """
        together = max(1, GATHERED // (batch_size * max(1, self.num_inputs)))
        gathered = (self.select(index) for index in order.split(batch_size * together))
        return self._in_one_memory(part for several in gathered for part in several._parts(batch_size))

    def iterate_in_order(self, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """The inputs of all examples and their extras, minibatch by minibatch.

        Minibatches of very large images are smaller: as float32 they take four times the memory.
        """
        batch_size = min(batch_size, max(1, VALUES // max(1, self.X[:1].numel())))
        return ((inputs, *extras) for inputs, _, *extras in self._in_one_memory(self._parts(batch_size)))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Split":
        return Split(change(self.X), change(self.y), self.scale, tuple(map(change, self.extras)))

    def _parts(self, size: int) -> Iterator[tuple[Tensor, ...]]:
        """Raw inputs, truth and extras, ``size`` at a time; making all views at once takes a sixth of the time."""
        return zip(*(tensor.split(size) for tensor in (self.X, self.y, *self.extras)), strict=True)

    def _in_one_memory(self, parts: Iterator[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
        """The same with inputs for a network, which overwrite those of the last part; the first is the largest."""
        memory: Tensor | None = None  # never a part itself, which may be one of the split
        for X, *others in parts:
            if not X.is_floating_point() or self.scale != 1.0:
                if memory is None:
                    memory = torch.empty_like(X, dtype=torch.float32)
                if len(memory) > len(X):
                    memory = memory[: len(X)]
                X = memory.copy_(X).mul_(self.scale)
            yield X, *others


def split_randomly(num_examples: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The indices of all examples except a random ``share``, and those of the share: training and validation."""
    order = torch.randperm(num_examples, generator=generator)
    held_out = round(share * num_examples)
    return order[held_out:], order[:held_out]
