"""The one training loop, for all four networks (sections 3.2.7, 3.3.7 and 3.6.6).

Sum or mean: the gradient of a minibatch's *summed* loss is its size times that of the *mean* loss, so SGD on the
sum at lr/batch_size takes the same steps as SGD on the mean at lr. The book's scratch ``sgd`` does the former,
``nn`` losses the latter; every network here does the latter, and a change of batch size needs no change of lr's
meaning. The last minibatch of an epoch may be smaller: its mean counts each of its examples a little more.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Network(Protocol):
    """What the loop needs of a network; its four implementations say more."""

    @property
    def measure(self) -> Callable[[Tensor, Tensor], dict[str, float]]:
        """What is reported of outputs and truth."""

    def to(self, device: torch.device) -> "Network":
        """Move the parameters to ``device``."""

    def __call__(self, X: Tensor) -> Tensor:
        """Outputs for a minibatch."""

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the mean loss in the parameters; return the outputs."""

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""

    def weights(self) -> dict[str, Tensor]:
        """``W`` and ``b``, in the same orientation for every implementation."""

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step."""


class Optimizer(Protocol):
    """``torch.optim.SGD`` and our own ``SGD``."""

    param_groups: list[dict[str, Any]]

    def step(self) -> object:
        """Move every parameter against its gradient."""

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""


@dataclass(frozen=True)
class Split:
    """A whole split resident on one device: ``X`` ``(n, …)`` uint8 or float32, ``y`` ``(n,)``.

    A minibatch of ``X`` is converted to float32 and multiplied by ``scale`` (1/255 brings pixels to 0…1).
    """

    X: Tensor
    y: Tensor
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> "Split":
        """The same split on another device."""
        return Split(self.X.to(device), self.y.to(device), self.scale)

    def without(self, share: float, generator: torch.Generator) -> "tuple[Split, Split]":
        """This split without a random ``share`` of its examples, and those: training and validation."""
        order = torch.randperm(len(self), generator=generator).to(self.y.device)
        held_out = round(share * len(self))
        return self._at(order[held_out:]), self._at(order[:held_out])

    def _at(self, index: Tensor) -> "Split":
        return Split(self.X.index_select(0, index), self.y.index_select(0, index), self.scale)

    def minibatch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The examples at ``index``; ``index_select`` is an order of magnitude faster than ``X[index]`` here."""
        return self._inputs(self.X.index_select(0, index)), self.y.index_select(0, index)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """The inputs of all examples, minibatch by minibatch."""
        return map(self._inputs, self.X.split(batch_size))

    def _inputs(self, X: Tensor) -> Tensor:
        if self.scale == 1.0:
            return X.to(torch.float32)
        return X.to(torch.float32, copy=True).mul_(self.scale)  # a copy, for X may be a part of the split itself


@torch.no_grad()
def outputs(net: Callable[[Tensor], Tensor], split: Split, batch_size: int = 512) -> Tensor:
    """The outputs of ``net`` for a whole split, in its order; memory stays bounded by ``batch_size``."""
    return torch.cat([net(X) for X in split.in_order(batch_size)])


def train_epoch(net: Network, optimizer: Optimizer, split: Split, order: Tensor, batch_size: int) -> Tensor:
    """Take one step per minibatch of ``order``; return the outputs that the steps saw, in that order."""
    seen = []
    for index in order.split(batch_size):
        optimizer.zero_grad()
        seen.append(net.backward(*split.minibatch(index)))  # no name keeps the minibatch: the next takes its memory
        optimizer.step()
    return torch.cat(seen)


class Measured(NamedTuple):
    """What ``net.measure`` says after one epoch of the training, the test and (where there is one) validation split."""

    train: dict[str, float]
    test: dict[str, float]
    validation: dict[str, float] | None


def train(
    net: Network,
    optimizer: Optimizer,
    train_split: Split,
    test_split: Split,
    learning_rates: Iterable[float],
    batch_size: int,
    generator: torch.Generator,
    validation_split: Split | None = None,
    run_epoch: Callable[[Network, Optimizer, Split, Tensor, int], Tensor] = train_epoch,
) -> Iterator[Measured]:
    """Train one epoch for each of ``learning_rates`` by ``run_epoch`` and yield what was measured.

    As in the book, the training figures are averages over the epoch while the weights move. ``generator`` lives on
    the CPU, so that the order of the examples is the same on every device.
    """
    for lr in learning_rates:
        for group in optimizer.param_groups:
            group["lr"] = lr
        order = torch.randperm(len(train_split), generator=generator).to(train_split.y.device)
        seen = run_epoch(net, optimizer, train_split, order, batch_size)
        yield Measured(
            train=net.measure(seen, train_split.y.index_select(0, order)),
            test=net.measure(outputs(net, test_split), test_split.y),
            validation=None
            if validation_split is None
            else net.measure(outputs(net, validation_split), validation_split.y),
        )


def stop_early(epochs: Iterable[Measured], net: Network, patience: int) -> Iterator[Measured]:
    """Pass measurements on until the validation loss has not fallen for ``patience`` epochs.

    Whether it stops early or not, the network ends with the weights of the epoch whose validation loss was smallest.
    """
    smallest, waited = math.inf, 0
    best = [param.detach().clone() for param in net.parameters()]
    for measured in epochs:
        yield measured
        if measured.validation is None:
            raise ValueError("early stopping watches the validation loss: hold out a validation split")
        if measured.validation["loss"] < smallest:
            smallest, waited = measured.validation["loss"], 0
            best = [param.detach().clone() for param in net.parameters()]
        else:
            waited += 1
        if waited == patience:
            break
    with torch.no_grad():
        for param, value in zip(net.parameters(), best, strict=True):
            param.copy_(value)
