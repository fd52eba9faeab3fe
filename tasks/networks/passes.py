"""Epochs of a table: one exact step for few rows, and for many rows minibatches whose weights are averaged."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tasks.networks.examples import Examples
from tasks.networks.orders import AT_ONCE, in_sizes
from tasks.networks.training import Measured, Network, Optimizer, joined, mean_figures

ROWS = 2**13  # whose outputs stay in the cache
MEASURED = 2**16  # examples whose figures are computed at once
TOGETHER = 2**20  # values of the minibatches made at once: each call that makes them takes Python's lock from the steps
LATE = 1  # tried: 2 and 3 leave twice and three times as much of the objective after a pass, 0 more of the start
Minibatches = list[tuple[Tensor, ...]]


def one_step(
    net: Network, optimizer: Optimizer, split: Examples, parts: Iterable[Tensor], batch_size: int
) -> dict[str, Tensor]:
    """Take one step by the gradient of all examples, summed piece by piece; no order or batch size changes it."""
    params = net.parameters()
    total, measured = [torch.zeros_like(param) for param in params], []
    for piece in split.pieces(ROWS):
        optimizer.zero_grad()
        ((X, *places),) = piece.in_order(len(piece))
        measured.append((net.measure(net.backward(X, piece.y, *places), piece.y), len(piece)))
        for each, param in zip(total, params, strict=True):
            if param.grad is not None:
                each.add_(param.grad, alpha=len(piece) / len(split))
    for each, param in zip(total, params, strict=True):
        param.grad = each
    optimizer.step()
    return mean_figures(measured)


class AveragedSteps:
    """Epochs of one step a minibatch, each of which leaves the mean of the weights of all steps until then.

    The noise of minibatches averages out, so that the learning rate need not fall (Polyak and Juditsky, 1992). Step t
    counts by t to the power ``LATE``, and so the way from the start next to nothing (Shamir and Zhang, 2013).
    """

    def __init__(self, ahead: Callable[[Iterator[Any]], Iterator[Any]] = iter) -> None:
        """``ahead`` passes on minibatches, some at a time, and parts of an order, and may make the next meanwhile."""
        self._ahead = ahead
        self._steps = 0
        self._halfway: list[Tensor] = []  # the mean when half of the first epoch was over
        self._mean: list[Tensor] = []
        self._last: list[Tensor] = []  # the weights from which the next step is taken

    def __call__(
        self, net: Network, optimizer: Optimizer, split: Examples, parts: Iterable[Tensor], batch_size: int
    ) -> dict[str, Tensor]:
        """Take the steps of one epoch, in an order whose ``parts`` are asked for when they are needed."""
        params = net.parameters()
        self._set(params, self._last)
        self._mean = self._mean or [torch.zeros_like(param) for param in params]
        measured, seen, rest, whole = [], [], len(split), min(batch_size, len(split))
        half = math.ceil(len(split) / batch_size) // 2
        together = max(1, TOGETHER // (batch_size * split.num_inputs))
        sizes = (batch_size * min(2**at, together) for at in itertools.count())  # the first ones are waited for
        parts = self._ahead(iter(parts)) if len(split) > AT_ONCE else parts  # of one part nothing is left to draw
        drawn = (some.to(split.device, torch.int64) for some in in_sizes(parts, sizes))
        made: Iterator[Minibatches] = (split.minibatches_at_once(index, batch_size) for index in drawn)
        with ThreadPoolExecutor(1) as beside:  # the next steps
            for X, y, *places in itertools.chain.from_iterable(self._ahead(made)):
                if self._steps == half:
                    self._halfway = [each.clone() for each in self._mean]
                if len(y) < whole:  # the last: each of its examples counts as much as any
                    for group in optimizer.param_groups:
                        group["lr"] *= len(y) / whole
                optimizer.zero_grad()
                seen.append((net.backward(X, y, *places), y))
                optimizer.step()
                self._count(params)
                rest -= len(y)
                if len(seen) * batch_size >= MEASURED or not rest:
                    o, y = joined([each for each, _ in seen]), torch.cat([each for _, each in seen])
                    measured.append((beside.submit(net.measure, o, y), len(y)))
                    seen.clear()
        self._last = [param.detach().clone() for param in params]
        self._set(params, self._mean)
        return mean_figures((each.result(), count) for each, count in measured)

    @contextmanager
    def at_halfway(self, net: Network) -> Iterator[None]:
        """The network as it was when half of the first epoch was over, while the block runs."""
        params = net.parameters()
        now = [param.detach().clone() for param in params]
        self._set(params, self._halfway)
        yield
        self._set(params, now)

    def _count(self, params: list[Tensor]) -> None:
        self._steps += 1
        for each, param in zip(self._mean, params, strict=True):
            each.lerp_(param.detach(), (LATE + 1) / (LATE + self._steps))

    @torch.no_grad()
    def _set(self, params: list[Tensor], values: list[Tensor]) -> None:
        for param, value in zip(params, values, strict=False):  # of the first epoch there are none
            param.copy_(value)


def until_converged(epochs: Iterable[Measured], decrement: Callable[[], float], tolerance: float) -> Iterator[Measured]:
    """Pass measurements on until the gradient is ``tolerance`` of what it was, in whitened inputs.

    ``decrement`` is that gradient's squared length.
    """
    first = math.nan
    for measured in epochs:
        yield measured
        length = math.sqrt(max(0.0, decrement()))  # rounding may leave less than nothing of it
        first = length if math.isnan(first) else first
        if length <= tolerance * first:
            return


def until_settled(
    epochs: Iterable[Measured],
    objective: Callable[[], float],
    halfway: Callable[[], float],
    tolerance: float,
    least: int,
) -> Iterator[Measured]:
    """Pass measurements on until twice as many epochs, and ``least``, have not lowered ``objective`` by ``tolerance``.

    That is a share of the objective. The first epoch is compared with half of it, of which ``halfway`` is the value.
    """
    values: list[float] = []
    for number, measured in enumerate(epochs, 1):
        yield measured
        values += [objective()] if values else [halfway(), objective()]
        if number >= least and values[number // 2] - values[-1] <= tolerance * abs(values[-1]):
            return
