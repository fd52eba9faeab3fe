"""Steps as if inputs were centred, for bright pictures: on these the book's rate oscillates and never converges.

With ``m`` the mean, ``o = (X - m)W + b`` is the network ``XW + c`` with ``c = b - mW``: what is learned is the same
kind of model, and its inputs stay as they are. Only the gradient of ``W`` differs, by ``m`` times that of ``b``.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tasks.networks.examples import DeviceExamples
from tasks.networks.training import Network, Optimizer

ROUNDS = 6  # of power iteration; the mean of bright pictures stands out so far that three would be enough
VALUES = 2**23  # of inputs, from examples spread evenly: the mean and first direction of many more hardly differ


def mean_and_curvature(split: DeviceExamples) -> tuple[Tensor, float]:
    """The mean input ``(inputs,)``, and the largest eigenvalue of ``XᵀX/n``."""
    step = max(1, len(split) // max(1, VALUES // split.num_inputs))
    some = split.select(torch.arange(0, len(split), step, device=split.device))
    X = torch.cat([inputs.flatten(1).clone() for inputs, *_ in some.iterate_in_order(len(some))])
    direction = X.new_ones(split.num_inputs)
    for _ in range(ROUNDS):
        direction = normalize(X.T @ (X @ direction), dim=0)
    return X.mean(dim=0), float((X.T @ (X @ direction)).norm()) / len(X)


class CentredSGD:
    """An optimizer wrapped around another, for a network whose inputs have the mean ``mean`` ``(inputs,)``."""

    def __init__(self, optimizer: Optimizer, net: Network, mean: Tensor) -> None:
        self._optimizer, self._net, self._mean = optimizer, net, mean
        self.param_groups, self.zero_grad = optimizer.param_groups, optimizer.zero_grad

    @torch.no_grad()
    def step(self) -> None:
        """Move ``W`` by its gradient on centred inputs, and ``b`` so that it stays the network's bias on raw inputs."""
        weights, gradients = self._net.weights(), self._net.gradients()
        before = self._mean @ weights["W"]
        gradients["W"].sub_(torch.outer(self._mean, gradients["b"]))
        self._optimizer.step()
        weights["b"].add_(before - self._mean @ weights["W"])
