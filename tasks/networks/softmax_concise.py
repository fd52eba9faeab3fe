"""Concise softmax regression (section 3.7)."""

import torch
from torch import Tensor, nn

from tasks.networks import metrics


class SoftmaxRegressionConcise:
    """``nn.Flatten`` and ``nn.Linear`` with the book's start, under ``nn.CrossEntropyLoss``.

    ``X`` is ``(n, …)`` float32, ``y`` is ``(n,)`` int64; scores are ``(n, outputs)`` float32.
    """

    measure = staticmethod(metrics.classification)

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        generator: torch.Generator,
        sigma: float = 0.01,
        dropout_probability: float = 0.0,
    ) -> None:
        self.linear = nn.Linear(num_inputs, num_outputs)
        self.net = nn.Sequential(nn.Flatten(), self.linear)
        dropout = nn.Dropout(dropout_probability)
        self.training_net = nn.Sequential(nn.Flatten(), dropout, self.linear) if dropout_probability else self.net
        nn.init.normal_(self.linear.weight, 0, sigma, generator=generator)
        nn.init.zeros_(self.linear.bias)
        self.loss = nn.CrossEntropyLoss()

    def to(self, device: torch.device) -> "SoftmaxRegressionConcise":
        """Move the parameters to ``device``."""
        self.net.to(device)
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""
        return list(self.net.parameters())

    def __call__(self, X: Tensor) -> Tensor:
        """Scores ``(n, outputs)``."""
        return self.net(X)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the minibatch's mean cross-entropy in the parameters; return the scores."""
        o = self.training_net(X)
        self.loss(o, y).backward()
        scores: Tensor = o.detach()
        return scores

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, outputs)`` and ``b`` ``(outputs,)``."""
        return {"W": self.linear.weight.detach().T, "b": self.linear.bias.detach()}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        weight, bias = self.linear.weight, self.linear.bias
        return {"W": None if weight.grad is None else weight.grad.T, "b": bias.grad}
