"""Softmax regression (section 3.4): its pieces from scratch (section 3.6), and concise (section 3.7).

``X`` is ``(n, …)`` float32, flattened to ``(n, inputs)``; labels ``y`` are ``(n,)`` int64; scores ``o`` are
``(n, outputs)`` float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from tasks.networks import SIGMA, metrics
from tasks.networks.training import ConciseNetwork, ScratchNetwork

LossFunction = Callable[[Tensor, Tensor], Tensor]  # a loss by outputs and truth, or its gradient by the outputs


def softmax(o: Tensor) -> Tensor:
    """Probabilities ``(n, outputs)`` (section 3.6.2), for any finite scores.

    Each row's maximum is subtracted from its scores first: the result is the same, and ``exp`` cannot overflow.
    """
    exponentials = (o - o.amax(dim=1, keepdim=True)).exp_()
    return exponentials.div_(exponentials.sum(dim=1, keepdim=True))


def cross_entropy(o: Tensor, y: Tensor) -> Tensor:
    """Surprisal of each label in nats ``(n,)`` (section 3.6.4), by log-sum-exp of the scores (section 3.7.2).

    This way the logarithm of a probability that has underflowed is never taken. It works class by class, which is
    faster on a CPU. This loss is what is reported; training follows its derivative, ``cross_entropy_gradient``.
    """
    o = o.T.contiguous()
    o = o - o.amax(dim=0)
    return o.exp().sum(dim=0).log() - o.gather(0, y.unsqueeze(0)).squeeze(0)


def cross_entropy_gradient(o: Tensor, y: Tensor) -> Tensor:
    """Derivative of ``cross_entropy`` by the scores ``(n, outputs)``: softmax less the one-hot label (3.4.6)."""
    return softmax(o).scatter_(1, y.unsqueeze(1), -1, reduce="add")


class SoftmaxRegressionScratch(ScratchNetwork):
    """``o = XW + b`` (section 3.6.3) with an explicit gradient.

    ``W`` is stored so that ``W.T`` is contiguous: then both products of a step run several times as fast.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        generator: torch.Generator,
        loss_gradient: LossFunction = cross_entropy_gradient,
    ) -> None:
        self.W = torch.normal(0, SIGMA, (num_outputs, num_inputs), generator=generator).T
        self.b = torch.zeros(num_outputs)
        self.loss_gradient = loss_gradient

    def __call__(self, X: Tensor) -> Tensor:
        """Scores ``(n, outputs)``."""
        return (self.W.T @ X.flatten(1).T).T + self.b

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the scores."""
        o = self(X)
        g = self.loss_gradient(o, y).div_(len(y))
        self.W.grad = (g.T @ X.flatten(1)).T
        self.b.grad = g.sum(dim=0)
        return o

    @staticmethod
    def measure(o: Tensor, y: Tensor) -> dict[str, Tensor]:
        """``loss``, the mean cross-entropy in nats, and ``accuracy`` (section 3.6.5)."""
        return {"loss": cross_entropy(o, y).mean().double(), "accuracy": metrics.accuracy(o, y)}


class SoftmaxRegressionConcise(ConciseNetwork):
    """``nn.Flatten`` and ``nn.Linear`` with the book's start, under ``nn.CrossEntropyLoss`` (section 3.7)."""

    measure = staticmethod(metrics.classification)

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        generator: torch.Generator,
        loss: LossFunction | None = None,
    ) -> None:
        super().__init__(nn.Linear(num_inputs, num_outputs), generator)
        self.net = nn.Sequential(nn.Flatten(), self.linear)
        self.loss = loss or nn.CrossEntropyLoss()

    def __call__(self, X: Tensor) -> Tensor:
        """Scores ``(n, outputs)``."""
        o: Tensor = self.net(X)
        return o

    def backward(self, X: Tensor, y: Tensor) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the scores."""
        o = self(X)
        self.loss(o, y).backward()
        return o.detach()


def weighted_cross_entropy(class_weights: Tensor) -> LossFunction:
    """The mean loss on own data, with examples weighted by ``class_weights`` ``(outputs,)``, for a concise network.

    torch's own mean of a weighted loss divides by the weights of the minibatch; this one divides by its size.
    """
    return lambda o, y: F.cross_entropy(o, y, class_weights, reduction="none").mean()


def weighted_cross_entropy_gradient(class_weights: Tensor) -> LossFunction:
    """Derivative of the same loss by the scores, one row per example, for a network from scratch."""
    return lambda o, y: cross_entropy_gradient(o, y).mul_(class_weights[y].unsqueeze(1))
