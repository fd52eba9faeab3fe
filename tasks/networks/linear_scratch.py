"""Linear regression from scratch (section 3.2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.networks import metrics


def squared_loss(y_hat: Tensor, y: Tensor) -> Tensor:
    """The book's squared loss with its half, one value an example."""
    return (y_hat - y) ** 2 / 2


def squared_loss_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """Derivative of ``squared_loss`` by ``y_hat``."""
    return y_hat - y


HUBER_BETA = 0.5


def huber_loss(y_hat: Tensor, y: Tensor) -> Tensor:
    """Quadratic for residuals below beta, linear beyond: ``nn.SmoothL1Loss(beta=0.5)``, one value an example."""
    distance = (y_hat - y).abs()
    return torch.where(distance < HUBER_BETA, distance**2 / (2 * HUBER_BETA), distance - HUBER_BETA / 2)


def huber_loss_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """Derivative of ``huber_loss`` by ``y_hat``."""
    return ((y_hat - y) / HUBER_BETA).clamp(-1, 1)


LOSS_GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": squared_loss_gradient,
    "huber": huber_loss_gradient,
}


class LinearRegressionScratch:
    """``y_hat = Xw + b`` with its gradient written out.

    ``X`` is ``(n, inputs)`` float32, ``y`` and predictions are ``(n,)`` float32.
    """

    measure = staticmethod(metrics.regression)

    def __init__(self, num_inputs: int, loss: str, generator: torch.Generator, sigma: float = 0.01) -> None:
        self.w = torch.normal(0, sigma, (1, num_inputs), generator=generator).T
        self.b = torch.zeros(1)
        self.loss_gradient = LOSS_GRADIENTS[loss]

    def to(self, device: torch.device) -> "LinearRegressionScratch":
        """Move the parameters to ``device``."""
        self.w, self.b = self.w.to(device), self.b.to(device)
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""
        return [self.w, self.b]

    def __call__(self, X: Tensor) -> Tensor:
        """Predictions ``(n,)``."""
        return (X @ self.w + self.b).squeeze(1)

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the predictions."""
        y_hat = self(X)
        g = self.loss_gradient(y_hat, y).unsqueeze(1) / len(y)
        self.w.grad = X.T @ g
        self.b.grad = g.sum(dim=0)
        return y_hat

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, 1)`` and ``b`` ``(1,)``."""
        return {"W": self.w, "b": self.b}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        return {"W": self.w.grad, "b": self.b.grad}
