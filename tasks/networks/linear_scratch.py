"""Linear regression from scratch (section 3.2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.networks import metrics
from tasks.networks.effects import NONE, gathered, gradient_of_gathered


def squared_loss(y_hat: Tensor, y: Tensor) -> Tensor:
    """The book's squared loss with its half, one value an example ``(n,)``."""
    return (y_hat - y) ** 2 / 2


def squared_loss_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """Derivative of ``squared_loss`` by ``y_hat`` ``(n,)``."""
    return y_hat - y


HUBER_BETA = 0.5


def huber_loss(y_hat: Tensor, y: Tensor) -> Tensor:
    """Quadratic for residuals below beta, linear beyond: ``nn.SmoothL1Loss(beta=0.5)``, for each example ``(n,)``."""
    distance = (y_hat - y).abs()
    return torch.where(distance < HUBER_BETA, distance**2 / (2 * HUBER_BETA), distance - HUBER_BETA / 2)


def huber_loss_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """Derivative of ``huber_loss`` by ``y_hat`` ``(n,)``."""
    return ((y_hat - y) / HUBER_BETA).clamp(-1, 1)


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[Loss, Loss]] = {
    "squared": (squared_loss, squared_loss_gradient),
    "huber": (huber_loss, huber_loss_gradient),
}


class LinearRegressionScratch:
    """``y_hat = Xw + b`` with its gradient written out; each category of a table adds the effect of its slot.

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
        self.w = torch.normal(0, sigma, (1, num_inputs), generator=generator).T
        self.pairs, self.effects = pairs, torch.zeros(1, num_slots).T
        self.b = torch.zeros(1)
        self.loss, self.loss_gradient = LOSSES[loss]

    def to(self, where: torch.device | torch.dtype) -> "LinearRegressionScratch":
        """Move the parameters to a device, or to another precision."""
        self.w, self.effects, self.b = self.w.to(where), self.effects.to(where), self.b.to(where)
        self.pairs = self.pairs.to(where) if isinstance(where, torch.device) else self.pairs
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""
        return list(self.weights().values())

    def __call__(self, X: Tensor, places: Tensor | None = None) -> Tensor:
        """Predictions ``(n,)``."""
        y_hat = X @ self.w + self.b
        return (y_hat if places is None else y_hat + gathered(self.effects, self.pairs, places)).squeeze(1)

    def backward(self, X: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the predictions."""
        y_hat = self(X, places)
        g = self.loss_gradient(y_hat, y).unsqueeze(1) / len(y)
        self.w.grad = X.T @ g
        if places is not None:
            self.effects.grad = gradient_of_gathered(g, self.effects, self.pairs, places)
        self.b.grad = g.sum(dim=0)
        return y_hat

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, 1)``, ``effects`` ``(slots, 1)`` if there are any, and ``b`` ``(1,)``."""
        return {"W": self.w, **({"effects": self.effects} if len(self.effects) else {}), "b": self.b}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        return {name: weight.grad for name, weight in self.weights().items()}
