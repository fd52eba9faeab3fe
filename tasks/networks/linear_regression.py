"""Linear regression (section 3.1): its pieces from scratch (section 3.2), and concise (section 3.3).

``X`` is ``(n, inputs)`` float32; ``y`` and predictions ``y_hat`` are ``(n,)`` float32.
"""

import torch
from torch import Tensor, nn

from tasks.networks import HUBER_BETA, SIGMA, metrics
from tasks.networks.training import ConciseNetwork, ScratchNetwork


def squared_loss(y_hat: Tensor, y: Tensor) -> Tensor:
    """The book's squared loss with its factor of one half (section 3.2.5), one value per example ``(n,)``."""
    return (y_hat - y) ** 2 / 2


def squared_loss_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """Derivative of ``squared_loss`` by ``y_hat`` ``(n,)``."""
    return y_hat - y


def huber_loss_gradient(y_hat: Tensor, y: Tensor) -> Tensor:
    """Derivative of Huber's loss by ``y_hat`` ``(n,)``; the loss is quadratic for residuals below beta, else linear."""
    return ((y_hat - y) / HUBER_BETA).clamp(-1, 1)


LOSS_GRADIENTS = {"squared": squared_loss_gradient, "huber": huber_loss_gradient}


class LinearRegressionScratch(ScratchNetwork):
    """``y_hat = Xw + b`` (section 3.2.4) with an explicit gradient; ``w`` is the only column of ``W``."""

    def __init__(self, num_inputs: int, loss: str, generator: torch.Generator) -> None:
        self.W = torch.normal(0, SIGMA, (1, num_inputs), generator=generator).T
        self.b = torch.zeros(1)
        self.loss_gradient = LOSS_GRADIENTS[loss]

    def __call__(self, X: Tensor) -> Tensor:
        """Predictions ``(n,)``."""
        return (X @ self.W + self.b).squeeze(1)

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the predictions."""
        y_hat = self(X)
        g = self.loss_gradient(y_hat, y).unsqueeze(1) / len(y)
        self.W.grad = X.T @ g
        self.b.grad = g.sum(dim=0)
        return y_hat

    @staticmethod
    def measure(y_hat: Tensor, y: Tensor) -> dict[str, Tensor]:
        """``loss``: the mean of ``squared_loss``, whatever the network was trained with."""
        return {"loss": squared_loss(y_hat, y).mean().double()}


LOSSES: dict[str, nn.Module] = {"squared": nn.MSELoss(), "huber": nn.SmoothL1Loss(beta=HUBER_BETA)}


class LinearRegressionConcise(ConciseNetwork):
    """``nn.Linear`` with the book's start (section 3.3).

    ``nn.MSELoss`` has no factor of one half: at equal learning rate its steps are twice those of the scratch version.
    """

    measure = staticmethod(metrics.regression)

    def __init__(self, num_inputs: int, loss: str, generator: torch.Generator) -> None:
        super().__init__(nn.Linear(num_inputs, 1), generator)
        self.net = nn.Sequential(self.linear)
        self.loss = LOSSES[loss]

    def __call__(self, X: Tensor) -> Tensor:
        """Predictions ``(n,)``."""
        y_hat: Tensor = self.net(X)
        return y_hat.squeeze(1)

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the predictions."""
        y_hat = self(X)
        self.loss(y_hat, y).backward()
        return y_hat.detach()
