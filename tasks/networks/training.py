"""The one training loop, for all four networks (sections 3.2.7, 3.3.7 and 3.6.6).

Sum or mean: the gradient of a minibatch's *summed* loss is its size times that of the *mean* loss, so SGD on the
sum at lr/batch_size takes the same steps as SGD on the mean at lr. The book's scratch ``sgd`` does the former,
``nn`` losses the latter; every network here does the latter, and a change of batch size needs no change of lr's
meaning. The last minibatch of an epoch may be smaller: its mean counts each of its examples a little more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Network(Protocol):
    """What the loop needs of a network; its four implementations say more."""

    @property
    def measure(self) -> Callable[[Tensor, Tensor], dict[str, float]]:
        """What is reported of outputs and truth."""

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

    def minibatch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The examples at ``index``; ``index_select`` is an order of magnitude faster than ``X[index]`` here."""
        X = self.X.index_select(0, index).to(torch.float32)
        return (X if self.scale == 1.0 else X.mul_(self.scale)), self.y.index_select(0, index)


@torch.no_grad()
def outputs(net: Callable[[Tensor], Tensor], split: Split, batch_size: int = 2048) -> Tensor:
    """The outputs of ``net`` for a whole split, in its order; memory stays bounded by ``batch_size``."""
    order = torch.arange(len(split), device=split.y.device)
    return torch.cat([net(split.minibatch(index)[0]) for index in order.split(batch_size)])


def train_epoch(net: Network, optimizer: Optimizer, split: Split, order: Tensor, batch_size: int) -> Tensor:
    """Take one step per minibatch of ``order``; return the outputs that the steps saw, in that order."""
    seen = []
    for index in order.split(batch_size):
        X, y = split.minibatch(index)
        optimizer.zero_grad()
        seen.append(net.backward(X, y))
        optimizer.step()
    return torch.cat(seen)


def train(
    net: Network,
    optimizer: Optimizer,
    train_split: Split,
    test_split: Split,
    num_epochs: int,
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Yield, epoch by epoch, what ``net.measure`` says of the training and of the test split.

    As in the book, the training figures are averages over the epoch while the weights move. ``generator`` lives on
    the CPU, so that the order of the examples is the same on every device.
    """
    for _ in range(num_epochs):
        order = torch.randperm(len(train_split), generator=generator).to(train_split.y.device)
        seen = train_epoch(net, optimizer, train_split, order, batch_size)
        yield (
            net.measure(seen, train_split.y.index_select(0, order)),
            net.measure(outputs(net, test_split), test_split.y),
        )
