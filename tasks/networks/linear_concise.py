"""Concise linear regression (section 3.3)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tasks.networks import metrics

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "squared": nn.MSELoss,
    "huber": lambda: nn.SmoothL1Loss(beta=0.5),
}


class LinearRegressionConcise:
    """``nn.Linear`` with the book's start.

    ``nn.MSELoss`` has no half: at equal learning rate it takes steps twice as long as the scratch version.
    ``X`` is ``(n, inputs)`` float32, ``y`` and predictions are ``(n,)`` float32.
    """

    measure = staticmethod(metrics.regression)

    def __init__(self, num_inputs: int, loss: str, generator: torch.Generator, sigma: float = 0.01) -> None:
        self.linear = nn.Linear(num_inputs, 1)
        self.net = nn.Sequential(self.linear)
        nn.init.normal_(self.linear.weight, 0, sigma, generator=generator)
        nn.init.zeros_(self.linear.bias)
        self.loss = LOSSES[loss]()

    def to(self, device: torch.device) -> "LinearRegressionConcise":
        """Move the parameters to ``device``."""
        self.net.to(device)
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""
        return list(self.net.parameters())

    def __call__(self, X: Tensor) -> Tensor:
        """Predictions ``(n,)``."""
        return self.net(X).squeeze(1)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the predictions."""
        y_hat = self(X)
        self.loss(y_hat, y).backward()
        return y_hat.detach()

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, 1)`` and ``b`` ``(1,)``."""
        return {"W": self.linear.weight.detach().T, "b": self.linear.bias.detach()}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        weight, bias = self.linear.weight, self.linear.bias
        return {"W": None if weight.grad is None else weight.grad.T, "b": bias.grad}
