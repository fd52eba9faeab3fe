"""Epochs of a table: one exact step for few rows, and for many rows minibatches whose last weights are averaged."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tasks.networks.examples import Examples
from tasks.networks.training import Measured, Network, Optimizer, mean_figures

ROWS = 2**13  # whose outputs stay in the cache
MEASURED = 64  # minibatches whose figures are computed at once


def one_step(net: Network, optimizer: Optimizer, split: Examples, order: Tensor, batch_size: int) -> dict[str, float]:
    """Take one step by the gradient of all examples, summed piece by piece; no order or batch size changes it."""
    params = net.parameters()
    total, measured = [torch.zeros_like(param) for param in params], []
    for piece in split.pieces(ROWS):
        optimizer.zero_grad()
        ((X, *slots),) = piece.in_order(len(piece))
        measured.append((net.measure(net.backward(X, piece.y, *slots), piece.y), len(piece)))
        for each, param in zip(total, params, strict=True):
            if param.grad is not None:
                each.add_(param.grad, alpha=len(piece) / len(split))
    for each, param in zip(total, params, strict=True):
        param.grad = each
    optimizer.step()
    return mean_figures(measured)


def averaged_steps(
    net: Network, optimizer: Optimizer, split: Examples, order: Tensor, batch_size: int
) -> dict[str, float]:
    """Take one step per minibatch of ``order``; leave the mean of the weights of the second half of the steps.

    The noise of minibatches averages out, so that the learning rate need not fall (Polyak and Juditsky, 1992).
    """
    steps = order.split(batch_size)
    params = net.parameters()
    mean = [torch.zeros_like(param) for param in params]
    measured, seen = [], []
    for number, index in enumerate(steps):
        optimizer.zero_grad()
        X, y, *slots = split.minibatch(index)
        seen.append((net.backward(X, y, *slots), y))
        optimizer.step()
        if len(seen) == MEASURED or number == len(steps) - 1:
            o, y = (torch.cat(each) for each in zip(*seen, strict=True))
            measured.append((net.measure(o, y), len(y)))
            seen.clear()
        if (count := number + 1 - len(steps) // 2) > 0:
            for each, param in zip(mean, params, strict=True):
                each.lerp_(param.detach(), 1 / count)
    with torch.no_grad():
        for each, param in zip(mean, params, strict=True):
            param.copy_(each)
    return mean_figures(measured)


def until_converged(epochs: Iterable[Measured], decrement: Callable[[], float], tolerance: float) -> Iterator[Measured]:
    """Pass measurements on until the gradient is ``tolerance`` of what it was, in whitened inputs.

    ``decrement`` is that gradient's squared length.
    """
    first = math.nan
    for measured in epochs:
        yield measured
        length = math.sqrt(decrement())
        first = length if math.isnan(first) else first
        if length <= tolerance * first:
            return
