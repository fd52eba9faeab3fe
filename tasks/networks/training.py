"""The one training loop, for all networks (sections 3.2.7, 3.3.7 and 3.6.6), and the steps that it takes.

Sum or mean: the gradient of a minibatch's *summed* loss is its size times that of the *mean* loss, so SGD on the sum at
lr/batch_size takes the same steps as SGD on the mean at lr. The book's scratch ``sgd`` does the former, ``nn`` losses
the latter; every network here does the latter, so lr keeps its meaning when the batch size changes. The last minibatch
of an epoch may be smaller: its mean gives each of its examples a little more weight.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd as torch_sgd

from tasks.networks import SIGMA, metrics
from tasks.networks.examples import DeviceExamples


class Network(Protocol):
    """What the loop needs from a network."""

    @property
    def measure(self) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
        """The metrics of outputs and truth, on their device."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs for the inputs of a minibatch."""

    def backward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Leave the gradient of a minibatch's mean loss in the parameters; return the outputs, without a graph."""

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves, the bias last."""

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, outputs)`` and ``b`` ``(outputs,)``, and for tables ``effects``, in each implementation."""

    def gradients(self) -> dict[str, Any]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""


class ScratchNetwork:
    """Parameters that are plain tensors: ``W`` ``(inputs, outputs)`` and ``b`` ``(outputs,)``."""

    W: Tensor
    b: Tensor

    def to(self, device: torch.device) -> None:
        """Move the parameters to a device."""
        for name, weight in self.weights().items():
            setattr(self, name, weight.to(device))

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves, the bias last."""
        return list(self.weights().values())

    def weights(self) -> dict[str, Tensor]:
        """``W`` and ``b``."""
        return {"W": self.W, "b": self.b}

    def gradients(self) -> dict[str, Any]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        return {name: weight.grad for name, weight in self.weights().items()}


class ConciseNetwork:
    """The parameters of an ``nn.Linear``, which starts as the book's networks do."""

    net: nn.Module

    def __init__(self, linear: nn.Linear, generator: torch.Generator) -> None:
        self.linear = linear
        nn.init.normal_(linear.weight, 0, SIGMA, generator=generator)
        nn.init.zeros_(linear.bias)

    def to(self, device: torch.device) -> None:
        """Move the parameters to a device."""
        self.net.to(device)

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves, the bias last."""
        return [self.linear.weight, self.linear.bias]

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, outputs)`` and ``b`` ``(outputs,)``."""
        return {"W": self.linear.weight.detach().T, "b": self.linear.bias.detach()}

    def gradients(self) -> dict[str, Any]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        gradient = self.linear.weight.grad
        return {"W": None if gradient is None else gradient.T, "b": self.linear.bias.grad}


# Minibatch stochastic gradient descent


class Optimizer(Protocol):
    """``SGD``, ``ConciseSGD`` and ``torch.optim.SGD``."""

    param_groups: list[dict[str, Any]]  # parameters, and their current learning rate

    def step(self) -> object:
        """Move every parameter against its gradient."""

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""


class SGD:
    """The book's ``sgd`` (section 3.2.6) with weight decay (4.5) and Nesterov's momentum, defined as in torch.

    ``groups`` are like those of ``torch.optim.SGD``: dictionaries with ``params`` and, if these decay,
    ``weight_decay``. The book divides by the batch size; here the gradient is already that of the mean loss.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.0) -> None:
        self._momentum = momentum
        self._velocities: dict[int, Tensor] = {}  # by the identity of the parameter
        self.param_groups: list[dict[str, Any]] = [{"weight_decay": 0.0, "lr": lr} | group for group in groups]

    def step(self) -> None:
        """Move every parameter against its gradient, and by weight decay towards zero."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    if group["weight_decay"]:
                        param.grad.add_(param, alpha=group["weight_decay"])
                    if self._momentum:
                        velocity = self._velocities.setdefault(id(param), torch.zeros_like(param))
                        velocity.mul_(self._momentum).add_(param.grad)
                        param.grad.add_(velocity, alpha=self._momentum)
                    param.sub_(param.grad, alpha=group["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None


class ConciseSGD(SGD):
    """The same by the function behind ``torch.optim.SGD``.

    The class itself imports ``torch.compile`` when it is first used, which takes two seconds, and reports every step to
    a profiler, which takes longer than the step.
    """

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient, and by weight decay towards zero."""
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            velocities: list[Tensor | None] = [self._velocities.get(id(param)) for param in params]
            torch_sgd(
                params,
                [param.grad for param in params if param.grad is not None],
                velocities,
                foreach=False,  # with two parameters, the other ways take longer to set up
                weight_decay=group["weight_decay"],
                momentum=self._momentum,
                lr=group["lr"],
                dampening=0.0,
                nesterov=self._momentum > 0,
                maximize=False,
            )
            for param, velocity in zip(params, velocities, strict=True):
                if velocity is not None:
                    self._velocities[id(param)] = velocity


def group_parameters(params: list[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups in which the weights decay but the bias, which comes last, does not (as in the book)."""
    if not weight_decay:
        return [{"params": params}]
    return [{"params": params[:-1], "weight_decay": weight_decay}, {"params": params[-1:]}]


def list_learning_rates(schedule: str, lr: float, num_epochs: int) -> Iterator[float]:
    """The rate of every epoch (section 11.11): ``constant``, ``cosine`` (towards 0) or ``step`` (by tenths)."""
    for epoch in range(num_epochs):
        if schedule == "cosine":
            yield lr * (1 + math.cos(math.pi * epoch / num_epochs)) / 2
        elif schedule == "step":
            yield lr * 0.1 ** (epoch // math.ceil(num_epochs / 4))
        else:
            yield lr


# The loop


@torch.no_grad()
def compute_outputs(net: Callable[..., Tensor], split: DeviceExamples) -> Tensor:
    """The outputs of ``net`` for a whole split ``(n, …)``, in order, as many examples at a time as fit the cache."""
    return concatenate([net(*inputs) for inputs in split.iterate_in_order(max(512, VALUES // split.num_inputs))])


def concatenate(outputs: Sequence[Tensor]) -> Tensor:
    """Outputs ``(n, …)`` of several minibatches as one tensor, stored class by class, which is fastest to measure."""
    return torch.cat([o.movedim(-1, 0) for o in outputs], dim=-1).movedim(0, -1)


VALUES = 2**18  # inputs that stay in the processor's cache
PIECE = 2**16  # examples that are measured at once: all of the book's, and never the outputs of millions


def average_metrics(measured: Iterable[tuple[dict[str, Tensor], int]]) -> dict[str, Tensor]:
    """The mean of metrics, each given with the number of examples that it averages."""
    values, counts = zip(*measured, strict=True)
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    stacked = {name: torch.stack([each[name] for each in values]) for name in values[0]}
    return {name: each @ shares.to(each.device) for name, each in stacked.items()}


def evaluate(net: Network, split: DeviceExamples) -> dict[str, Tensor]:
    """What ``net.measure`` returns for a whole split: loss and accuracy (the book's ``evaluate_accuracy``, 3.6.5)."""
    pieces = list(split.pieces(PIECE))

    def measure(piece: DeviceExamples) -> tuple[dict[str, Tensor], int]:
        return net.measure(compute_outputs(net, piece), piece.y), len(piece)

    with ThreadPoolExecutor(2) as pool:  # for many rows, encoding takes as long as the network
        return average_metrics((pool.map if len(pieces) > 1 else map)(measure, pieces))


def train_epoch(
    net: Network, optimizer: Optimizer, split: DeviceExamples, batch_size: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Take one step per minibatch, in a newly drawn order (the book's ``train_epoch_ch3``, 3.6.6).

    The loss is in ``net.backward``. Returns what ``net.measure`` gives for the outputs computed on the way.
    """
    order = torch.randperm(len(split), generator=generator, dtype=torch.int32).to(split.device, torch.int64)
    outputs_seen = []
    is_written_out = not any(param.requires_grad for param in net.parameters())  # its gradient: autograd keeps nothing
    with torch.inference_mode(is_written_out):
        for minibatch in split.minibatches(order, batch_size):
            optimizer.zero_grad()
            outputs_seen.append(net.backward(*minibatch))
            optimizer.step()
        return net.measure(torch.cat(outputs_seen), split.y.index_select(0, order))


# The type of ``train_epoch`` and the like.
RunEpoch = Callable[[Network, Optimizer, DeviceExamples, int, torch.Generator], dict[str, Tensor]]


class EpochMetrics(NamedTuple):
    """What ``net.measure`` returns for each split after one epoch; empty for a split that does not exist."""

    train: dict[str, float]
    test: dict[str, float]
    validation: dict[str, float]


def train(
    net: Network,
    optimizer: Optimizer,
    train_split: DeviceExamples,
    test_split: DeviceExamples | None,
    learning_rates: Iterable[float],
    batch_size: int,
    generator: torch.Generator,
    validation_split: DeviceExamples | None = None,
    run_epoch: RunEpoch = train_epoch,
) -> Iterator[EpochMetrics]:
    """Train one epoch for each of ``learning_rates`` by ``run_epoch`` and yield the measurements.

    As in the book, the training figures are averages over the epoch while the weights move. ``generator`` lives on
    the CPU, so that the order of the examples is the same on every device.
    """
    for lr in learning_rates:
        for group in optimizer.param_groups:
            group["lr"] = lr
        on_train = run_epoch(net, optimizer, train_split, batch_size, generator)
        others = (evaluate(net, split) if split is not None else {} for split in (test_split, validation_split))
        yield EpochMetrics(*metrics.numbers(on_train, *others))


def stop_when(epochs: Iterable[EpochMetrics], has_ended: Callable[[], bool]) -> Iterator[EpochMetrics]:
    """Pass measurements on until it ``has_ended`` after one of them."""
    for measured in epochs:
        yield measured
        if has_ended():
            return


def stop_early(epochs: Iterable[EpochMetrics], net: Network, patience: int) -> Iterator[EpochMetrics]:
    """Pass measurements on until the validation loss has not fallen for ``patience`` epochs.

    Whether it stops early or not, the network ends with the weights of the epoch whose validation loss was smallest.
    """
    smallest, waited, best = math.inf, 0, copy_parameters(net)
    for measured in epochs:
        yield measured
        waited += 1
        if measured.validation["loss"] < smallest:
            smallest, waited, best = measured.validation["loss"], 0, copy_parameters(net)
        if waited == patience:
            break
    set_parameters(net, best)


def copy_parameters(net: Network) -> list[Tensor]:
    """Copies of the parameters' current values."""
    return [param.detach().clone() for param in net.parameters()]


@torch.no_grad()
def set_parameters(net: Network, values: list[Tensor]) -> None:
    """Set the parameters to these values."""
    for param, value in zip(net.parameters(), values, strict=True):
        param.copy_(value)
