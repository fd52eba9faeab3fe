"""The one training loop, for all four networks (sections 3.2.7, 3.3.7 and 3.6.6).

Sum or mean: the gradient of a minibatch's *summed* loss is its size times that of the *mean* loss, so SGD on the
sum at lr/batch_size takes the same steps as SGD on the mean at lr. The book's scratch ``sgd`` does the former,
``nn`` losses the latter; every network here does the latter, and a change of batch size needs no change of lr's
meaning. The last minibatch of an epoch may be smaller: its mean counts each of its examples a little more.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tasks.networks import metrics
from tasks.networks.examples import Examples
from tasks.networks.orders import shuffled


class Network(Protocol):
    """What the loop needs of a network; its four implementations say more."""

    @property
    def measure(self) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
        """What is reported of outputs and truth, on their device."""

    def to(self, where: torch.device | torch.dtype) -> "Network":
        """Move the parameters to a device, or to another precision."""

    def __call__(self, X: Tensor, places: Tensor | None = None) -> Tensor:
        """Outputs for a minibatch; ``places`` ``(n, groups)`` says where its categories have effects."""

    def backward(self, X: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
        """Leave the gradient of the mean loss in the parameters; return the outputs, without a graph behind them."""

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""

    def weights(self) -> dict[str, Tensor]:
        """``W`` and ``b``, of tables with categories ``effects`` too, oriented alike in every implementation."""

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""


class Optimizer(Protocol):
    """``torch.optim.SGD`` and our own ``SGD``."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Its parameters, and the learning rate that they have now."""

    def step(self) -> object:
        """Move every parameter against its gradient."""

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""


@torch.no_grad()
def outputs(net: Callable[..., Tensor], split: Examples, batch_size: int | None = None) -> Tensor:
    """The outputs of ``net`` for a whole split ``(n, …)``, in its order, as many at a time as the cache holds."""
    return joined([net(*inputs) for inputs in split.in_order(batch_size or max(512, VALUES // split.num_inputs))])


def joined(outputs: Sequence[Tensor]) -> Tensor:
    """Outputs ``(n, …)`` of minibatches in one, class by class, as they lie and are measured fastest."""
    return torch.cat([o.movedim(-1, 0) for o in outputs], dim=-1).movedim(0, -1)


VALUES = 2**18  # inputs that stay in the processor's cache
PIECE = 2**16  # examples that are measured at once: all of the book's, and never the outputs of millions


def mean_figures(measured: Iterable[tuple[dict[str, Tensor], int]]) -> dict[str, Tensor]:
    """The mean of figures, each with the number of examples that it is the mean of."""
    parts = list(measured)
    total = sum(count for _, count in parts)
    nothing = torch.tensor(0.0, dtype=torch.float64)
    return {name: sum((each[name] * count for each, count in parts), nothing) / total for name in parts[0][0]}


def figures(net: Network, split: Examples) -> dict[str, Tensor]:
    """What ``net.measure`` says of a whole split."""
    pieces = list(split.pieces(PIECE))

    def measured(piece: Examples) -> tuple[dict[str, Tensor], int]:
        return net.measure(outputs(net, piece), piece.y), len(piece)

    with ThreadPoolExecutor(2) as beside:  # of many rows, whose encoding takes as long as the network
        return mean_figures((beside.map if len(pieces) > 1 else map)(measured, pieces))


def take_steps(net: Network, optimizer: Optimizer, split: Examples, order: Tensor, batch_size: int) -> Tensor:
    """Take one step per minibatch of ``order`` ``(n,)`` int64; return the outputs that the steps saw, in that order."""
    seen = []
    is_written_out = not any(param.requires_grad for param in net.parameters())  # its gradient: autograd keeps nothing
    with torch.inference_mode(is_written_out):
        for minibatch in split.minibatches(order, batch_size):
            optimizer.zero_grad()
            seen.append(net.backward(*minibatch))
            optimizer.step()
        return torch.cat(seen)


def train_epoch(
    net: Network, optimizer: Optimizer, split: Examples, parts: Iterable[Tensor], batch_size: int
) -> dict[str, Tensor]:
    """Take one step per minibatch of an order; return what ``net.measure`` says of the outputs that they saw."""
    order = torch.cat(list(parts)).to(split.device, torch.int64)
    seen = take_steps(net, optimizer, split, order, batch_size)
    return net.measure(seen, split.y.index_select(0, order))


Epoch = Callable[[Network, Optimizer, Examples, Iterable[Tensor], int], dict[str, Tensor]]  # of the parts of an order


class Measured(NamedTuple):
    """What ``net.measure`` says after one epoch of the training, the test and (where there is one) validation split."""

    train: dict[str, float]
    test: dict[str, float]
    validation: dict[str, float] | None


def train(
    net: Network,
    optimizer: Optimizer,
    train_split: Examples,
    test_split: Examples,
    learning_rates: Iterable[float],
    batch_size: int,
    generator: torch.Generator,
    validation_split: Examples | None = None,
    run_epoch: Epoch = train_epoch,
    first: Iterable[Tensor] | None = None,
) -> Iterator[Measured]:
    """Train one epoch for each of ``learning_rates`` by ``run_epoch`` and yield what was measured.

    As in the book, the training figures are averages over the epoch while the weights move. ``generator`` lives on
    the CPU, so that the order of the examples is the same on every device. ``first`` are the parts of the first epoch's
    order, if they are being drawn already.
    """
    for lr in learning_rates:
        for group in optimizer.param_groups:
            group["lr"] = lr
        parts = shuffled(len(train_split), generator) if first is None else first
        first = None
        on_train = run_epoch(net, optimizer, train_split, parts, batch_size)
        others = [figures(net, split) for split in (test_split, validation_split) if split is not None]
        train_figures, test_figures, *validation = metrics.numbers(on_train, *others)
        yield Measured(train_figures, test_figures, validation[0] if validation else None)


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
