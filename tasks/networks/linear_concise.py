"""Concise linear regression (section 3.3)."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tasks.networks import metrics
from tasks.networks.effects import NONE, Effects

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "squared": nn.MSELoss,
    "huber": lambda: nn.SmoothL1Loss(beta=0.5),
}


class LinearRegressionConcise:
    """``nn.Linear`` with the book's start; each category of a table adds the effect of its slot.

    ``nn.MSELoss`` has no half: at equal learning rate it takes steps twice as long as the scratch version.
    ``X`` is ``(n, inputs)`` float32, ``places`` ``(n, groups)`` int64, of ``pairs`` as ``effects`` has them, ``y`` and
    predictions are ``(n,)`` float32.
    """

    measure = staticmethod(metrics.regression)

    def __init__(
        self,
        num_inputs: int,
        loss: str,
        generator: torch.Generator,
        sigma: float = 0.01,
        num_slots: int = 0,
        pairs: Tensor = NONE,
    ) -> None:
        self.linear = linear(num_inputs, 1)
        self.effects = Effects(num_slots, pairs, 1)
        self.net = nn.Sequential(self.linear)
        nn.init.normal_(self.linear.weight, 0, sigma, generator=generator)
        nn.init.zeros_(self.linear.bias)
        self._parameters = named(self.linear, self.effects)
        self.loss = LOSSES[loss]()

    def to(self, where: torch.device | torch.dtype) -> "LinearRegressionConcise":
        """Move the parameters to a device, or to another precision."""
        self.net.to(where)
        self.effects.to(where)
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""
        return list(self._parameters.values())

    def __call__(self, X: Tensor, places: Tensor | None = None) -> Tensor:
        """Predictions ``(n,)``."""
        y_hat: Tensor = self.net(X) if places is None else self.net(X) + self.effects(places)
        return y_hat.squeeze(1)

    def backward(self, X: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the predictions."""
        y_hat = self(X, places)
        self.loss(y_hat, y).backward()
        return y_hat.detach()

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, 1)``, ``effects`` ``(slots, 1)`` if there are any, and ``b`` ``(1,)``."""
        found = {name: weight.detach() for name, weight in self._parameters.items()}
        return {name: weight if name == "b" else weight.T for name, weight in found.items()}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        found = {name: weight.grad for name, weight in self._parameters.items()}
        return {name: grad if grad is None or name == "b" else grad.T for name, grad in found.items()}


def linear(num_inputs: int, num_outputs: int, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """``nn.Linear``, which would warn of a table without numbers that there is nothing to draw."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        return kind(num_inputs, num_outputs)


def named(linear: nn.Linear, effects: Effects) -> dict[str, Tensor]:
    """What the optimizer moves, the bias last."""
    of_categories = {"effects": effects.weight} if effects.weight.numel() else {}
    return {"W": linear.weight, **of_categories, "b": linear.bias}
