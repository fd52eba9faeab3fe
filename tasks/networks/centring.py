"""Steps as on inputs less their mean, for bright pictures: there the book's rate goes up and down and never arrives.

With ``m`` the mean, ``o = (X - m)W + b`` is the network ``XW + c`` with ``c = b - mW``: what is learned is the same
kind of model, and its inputs stay as they are. Only the gradient of ``W`` differs, by ``m`` times that of ``b``.
"""

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from tasks.networks.examples import Examples
from tasks.networks.training import Network, Optimizer

SEEN = 2048  # examples, spread evenly: the mean and the first direction of many more are hardly others
ROUNDS = 6  # of power iteration; the mean of bright pictures stands out so far that three would do
VALUES = 2**18  # of inputs that are float32 at a time: of all of them, large pictures would take gigabytes


def mean_and_curvature(split: Examples) -> tuple[Tensor, float]:
    """The mean input ``(inputs,)``, and the largest eigenvalue of ``XᵀX/n``."""
    some = split.at(torch.arange(0, len(split), max(1, len(split) // SEEN), device=split.device))

    def read() -> Iterator[Tensor]:
        return (X.flatten(1) for X, *_ in some.in_order(max(1, VALUES // split.num_inputs)))

    mean = reduce(torch.add, (X.sum(dim=0) for X in read())) / len(some)
    direction, curvature = torch.ones_like(mean), torch.zeros(())
    for _ in range(ROUNDS):
        direction = reduce(torch.add, (X.T @ (X @ direction) for X in read())) / len(some)
        curvature = direction.norm()
        direction = direction / curvature.clamp(min=torch.finfo(mean.dtype).tiny)
    return mean, float(curvature)


class CentredSGD:
    """An optimizer around another one, of a network that sees inputs whose mean is ``mean`` ``(inputs,)``."""

    def __init__(self, optimizer: Optimizer, net: Network, mean: Tensor) -> None:
        self._optimizer, self._net, self._mean = optimizer, net, mean
        self.param_groups, self.zero_grad = optimizer.param_groups, optimizer.zero_grad

    @torch.no_grad()
    def step(self) -> None:
        """Move ``W`` by its gradient on centred inputs, and ``b`` so that it stays that of the network as it is."""
        weights, gradients = self._net.weights(), self._net.gradients()
        assert gradients["W"] is not None and gradients["b"] is not None  # noqa: S101, PT018  (after a backward pass)
        before = self._mean @ weights["W"]
        gradients["W"].sub_(torch.outer(self._mean, gradients["b"]))
        self._optimizer.step()
        weights["b"].add_(before - self._mean @ weights["W"])
