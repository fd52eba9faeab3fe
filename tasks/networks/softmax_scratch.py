"""Softmax regression from scratch (sections 3.4 and 3.6)."""

import torch
from torch import Tensor

from tasks.networks import metrics
from tasks.networks.effects import NONE, gathered, gradient_of_gathered


def shifted(o: Tensor) -> Tensor:
    """Scores less each row's maximum: softmax does not see the difference, and ``exp`` cannot overflow."""
    return o - o.amax(dim=1, keepdim=True)


def softmax(o: Tensor) -> Tensor:
    """Probabilities ``(n, classes)``, for any finite scores."""
    exponentials = shifted(o).exp_()
    return exponentials.div_(exponentials.sum(dim=1, keepdim=True))


def cross_entropy(o: Tensor, y: Tensor) -> Tensor:
    """Surprisal of each label in nats ``(n,)``, by log-sum-exp of the scores (section 3.7.2).

    The logarithm of a probability that has vanished is never taken.
    """
    o = shifted(o)
    return o.exp().sum(dim=1).log() - o[torch.arange(len(y)), y]


def dropout(X: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Inputs of any shape, some at random set to zero, the others scaled: their expectation stays (section 4.6)."""
    kept = torch.empty_like(X).bernoulli_(1 - probability, generator=generator)
    return X * kept / (1 - probability)


class SoftmaxRegressionScratch:
    """``o = XW + b`` with its gradient written out; each category of a table adds the effects of its slot.

    ``X`` is ``(n, …)`` float32, flattened to ``(n, inputs)``; ``places`` is ``(n, groups)``, of ``pairs`` as in
    ``effects``, and ``y`` ``(n,)``, int64; scores are ``(n, outputs)``. ``W`` is stored so that ``W.T`` is contiguous:
    then both products of a step run several times as fast. ``class_weights`` ``(outputs,)`` say how much an example of
    each class counts; None: all the same.
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
        self.W = torch.normal(0, sigma, (num_outputs, num_inputs), generator=generator).T
        self.b = torch.zeros(num_outputs)
        self.pairs, self.effects = pairs, torch.zeros(num_outputs, num_slots).T
        self.class_weights = class_weights
        self.dropout_probability = dropout_probability

    def to(self, where: torch.device | torch.dtype) -> "SoftmaxRegressionScratch":
        """Move the parameters to a device, or to another precision."""
        self.W, self.effects, self.b = self.W.to(where), self.effects.to(where), self.b.to(where)
        self.pairs = self.pairs.to(where) if isinstance(where, torch.device) else self.pairs
        self.class_weights = None if self.class_weights is None else self.class_weights.to(where)
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves."""
        return list(self.weights().values())

    def __call__(self, X: Tensor, places: Tensor | None = None) -> Tensor:
        """Scores ``(n, outputs)``."""
        o = (self.W.T @ X.flatten(1).T).T + self.b
        return o if places is None else o + gathered(self.effects, self.pairs, places)

    def backward(self, X: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
        """Leave the gradient of the minibatch's mean cross-entropy in the parameters; return the scores.

        The derivative of cross-entropy by the scores is ``softmax(o) - y`` with one-hot ``y`` (section 3.4.6).
        """
        if self.dropout_probability:
            X = dropout(X, self.dropout_probability)
        o = self(X, places)
        g = softmax(o)
        g.scatter_(1, y.unsqueeze(1), -1, reduce="add")
        g /= len(y)
        if self.class_weights is not None:
            g *= self.class_weights[y].unsqueeze(1)
        self.W.grad = (g.T @ X.flatten(1)).T
        if places is not None:
            self.effects.grad = gradient_of_gathered(g, self.effects, self.pairs, places)
        self.b.grad = g.sum(dim=0)
        return o

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(inputs, outputs)``, ``effects`` ``(slots, outputs)`` if there are any, and ``b`` ``(outputs,)``."""
        return {"W": self.W, **({"effects": self.effects} if len(self.effects) else {}), "b": self.b}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        return {name: weight.grad for name, weight in self.weights().items()}
