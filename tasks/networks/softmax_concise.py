"""Concise softmax regression (section 3.7)."""

import torch
from torch import Tensor, nn

from tasks.networks import metrics
from tasks.networks.effects import NONE, Effects
from tasks.networks.linear_concise import linear, named


class ByClass(nn.Linear):
    """``nn.Linear`` whose outputs lie class by class, as those of ``Effects`` do: together in a third of the time.

    In float64, in which every step sees all of few rows, sums stay in the order that they have in ``nn.Linear``.
    """

    def forward(self, X: Tensor) -> Tensor:
        """Outputs ``(n, outputs)``."""
        if X.dtype == torch.float64:
            return super().forward(X)
        return (self.weight @ X.T).T + self.bias


class SoftmaxRegressionConcise:
    """``nn.Flatten`` and ``nn.Linear`` with the book's start, under ``nn.CrossEntropyLoss``.

    Each category of a table adds the effects of its slot. ``X`` is ``(n, …)`` float32, ``places``
    ``(n, groups)`` int64, of ``pairs`` as ``effects`` has them, ``y`` ``(n,)`` int64; scores are ``(n, outputs)``
    float32. ``class_weights`` ``(outputs,)`` say how much an example of each class counts; None: all the same.
    """

    measure = staticmethod(metrics.classification)

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        generator: torch.Generator,
        sigma: float = 0.01,
        dropout_probability: float = 0.0,
        num_slots: int = 0,
        pairs: Tensor = NONE,
        class_weights: Tensor | None = None,
    ) -> None:
        self.linear = linear(num_inputs, num_outputs, ByClass if num_slots else nn.Linear)
        self.effects = Effects(num_slots, pairs, num_outputs)
        self._parameters = named(self.linear, self.effects)
        self.net = nn.Sequential(nn.Flatten(), self.linear)
        dropout = nn.Dropout(dropout_probability)
        self.training_net = nn.Sequential(nn.Flatten(), dropout, self.linear) if dropout_probability else self.net
        nn.init.normal_(self.linear.weight, 0, sigma, generator=generator)
        nn.init.zeros_(self.linear.bias)
        # torch's mean of a weighted loss divides by the weights of the minibatch; ours divides by its size.
        self.loss = nn.CrossEntropyLoss(class_weights, reduction="mean" if class_weights is None else "none")

    def to(self, where: torch.device | torch.dtype) -> "SoftmaxRegressionConcise":
        """Move the parameters to a device, or to another precision."""
        for module in (self.net, self.effects, self.loss):
            module.to(where)
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""
        return list(self._parameters.values())

    def __call__(self, X: Tensor, places: Tensor | None = None) -> Tensor:
        """Scores ``(n, outputs)``."""
        return self._scores(self.net, X, places)

    def backward(self, X: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
        """Leave the gradient of the minibatch's mean cross-entropy in the parameters; return the scores."""
        o = self._scores(self.training_net, X, places)
        # Class by class, which of the few classes of a table is five times as fast.
        loss = self.loss(o, y) if places is None else self.loss(o.T.unsqueeze(0), y.unsqueeze(0))
        (loss.mean() if loss.dim() else loss).backward()
        return o.detach()

    def _scores(self, net: nn.Module, X: Tensor, places: Tensor | None) -> Tensor:
        o: Tensor = net(X) if places is None else self.effects(places) + net(X)
        return o

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, outputs)``, ``effects`` ``(slots, outputs)`` if there are any, and ``b`` ``(outputs,)``."""
        found = {name: weight.detach() for name, weight in self._parameters.items()}
        return {name: weight if name == "b" else weight.T for name, weight in found.items()}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        found = {name: weight.grad for name, weight in self._parameters.items()}
        return {name: grad if grad is None or name == "b" else grad.T for name, grad in found.items()}
