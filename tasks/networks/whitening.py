"""Steps that are as long as they should be in every direction, whatever the columns of a table have to do with another.

The covariance of the inputs is the squared loss's curvature and bounds that of the others, up to a constant. SGD on
weights V of *whitened* inputs, whose covariance is the identity, converges as fast as on the book's synthetic data.
With ``W = R.T V``, a step of V is a step of W against ``R.T R`` times its gradient, and ``R.T R`` is the inverse of the
covariance: so networks keep the weights of the inputs as they are, and their optimizer multiplies gradients.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor

from tasks.networks.moments import Inverse, Moments
from tasks.networks.training import Network, Optimizer

Whitener = Callable[[Tensor], Tensor]  # to steps of inputs, unknown codes and bias, from gradients by inputs and bias


def whitener(moments: Moments, inverse: Inverse, frequencies: Tensor, dtype: torch.dtype) -> Whitener:
    """What turns gradients ``(inputs + 1, outputs)`` into steps ``(inputs + columns + 1, outputs)`` of this ``dtype``.

    ``frequencies`` ``(columns, slots)``: behind the slots there is one more effect a column, that of an unknown code,
    which moves by the average of the others and so stays the average effect.
    """
    is_matrix = not len(inverse.of_others) and dtype != torch.float64  # one product for many, found in float64
    exact = moments.mean if is_matrix else moments.mean.to(dtype)
    mean, inverse, frequencies = exact.unsqueeze(1), inverse.to(exact), frequencies.to(exact)

    def found(gradient: Tensor) -> Tensor:
        step = inverse(gradient[:-1] - mean * gradient[-1:])
        of_bias = gradient[-1:] / moments.weight - mean.T @ step
        return torch.cat([step, frequencies @ step[len(step) - frequencies.shape[1] :], of_bias])

    if not is_matrix:
        return found
    matrix = found(torch.eye(len(mean) + 1).to(exact)).T.to(dtype)
    return lambda gradient: (gradient.T @ matrix).T


class Whitened:
    """An optimizer whose gradients are multiplied by the inverse covariance, penalty included."""

    def __init__(
        self, optimizer: Optimizer, net: Network, whitener: Future[Whitener], num_slots: int, weight_decay: float
    ) -> None:
        """``whitener`` is waited for by the first step."""
        self._optimizer, self._net, self._weight_decay = optimizer, net, weight_decay
        self._whitener, self._num_slots = whitener, num_slots
        self.decrement: Callable[[], Tensor] = lambda: torch.zeros(())  # about twice what the last step gains

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer that takes the steps."""
        return self._optimizer.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self._optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter."""
        gradients: dict[str, Any] = self._net.gradients()
        W, b = gradients["W"], gradients["b"]
        effects = gradients.get("effects", W[:0])
        if self._weight_decay:
            weights = self._net.weights()
            W.add_(weights["W"], alpha=self._weight_decay)
            effects.add_(weights.get("effects", effects), alpha=self._weight_decay)
        # Class by class, as they lie: so their product takes a fifth of the time.
        gradient = torch.cat([W.T, effects.T[:, : self._num_slots], b.unsqueeze(1)], dim=1).T
        step, inputs = self._whitener.result()(gradient), len(gradient) - 1
        self.decrement = lambda: (step[:inputs] * gradient[:inputs]).sum() + (step[-1] * gradient[-1]).sum()
        W.copy_(step[: len(W)])
        effects.copy_(step[len(W) : -1])
        b.copy_(step[-1])
        self._optimizer.step()
