"""What is measured on outputs: accuracy and losses, and the book's interpretations of them.

``o`` are scores ``(n, classes)`` float32, ``y`` labels ``(n,)`` int64; for regression ``y_hat`` and ``y`` are
``(n,)`` float32. Every loss is a mean over examples, in nats where it is a surprisal. The metrics of an epoch stay on
the device as 0-dimensional float64 tensors until ``numbers`` reads all at once, so that a GPU keeps working meanwhile.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)


def num_correct(o: Tensor, y: Tensor) -> Tensor:
    """How many examples have their largest score at their label, a scalar int64 (the book calls this ``accuracy``).

    Among equal scores the first counts as the largest. ``argmax`` gives the same in up to twice the time.
    """
    return (o.max(dim=1).indices == y).sum()


def accuracy(o: Tensor, y: Tensor) -> Tensor:
    """The fraction of examples that ``num_correct`` counts, in 0…1."""
    return num_correct(o, y).double() / len(y)


def classification(o: Tensor, y: Tensor) -> dict[str, Tensor]:
    """``loss`` (mean cross-entropy in nats) and ``accuracy`` from scores."""
    return {"loss": mean_cross_entropy(o, y).double(), "accuracy": accuracy(o, y)}


def numbers(*measured: dict[str, Tensor]) -> list[dict[str, float]]:
    """The same as Python's numbers, brought from their device in one go."""
    values = iter(torch.stack([each for figures in measured for each in figures.values()]).tolist())
    return [{name: next(values) for name in figures} for figures in measured]


def mean_cross_entropy(o: Tensor, y: Tensor) -> Tensor:
    """The mean surprisal of the labels in nats.

    It is computed class by class over all examples: for few classes this is ten times as fast on a CPU as
    ``F.cross_entropy``, and twice as fast as ``torch.logsumexp``.
    """
    return 0 - torch.log_softmax(o.T.contiguous(), dim=0).gather(0, y.unsqueeze(0)).mean()  # never -0


def regression(y_hat: Tensor, y: Tensor) -> dict[str, Tensor]:
    """``loss``: half the mean squared error, whatever the model was trained with."""
    return {"loss": F.mse_loss(y_hat, y).double() / 2}


def entropy(y: Tensor, num_classes: int) -> float:
    """Entropy of the label distribution in nats (section 3.4.7).

    A model that knows nothing but how frequent each class is has this cross-entropy.
    """
    frequencies = torch.bincount(y, minlength=num_classes) / len(y)
    return float(torch.special.entr(frequencies).sum())


def bits(nats: float) -> float:
    """Surprisal in bits: 1 nat is 1/log(2) bits."""
    return nats / math.log(2)


def noise_estimate(residuals: Tensor) -> float:
    """The standard deviation of Gaussian noise under which ``residuals`` are most likely (section 3.1.3).

    It is never 0: with a deviation of 0, a perfect fit would have no likelihood.
    """
    return max(float(residuals.square().mean().sqrt()), torch.finfo(torch.float32).tiny)


def gaussian_nll(residuals: Tensor, sigma: float) -> float:
    """Mean negative log-likelihood of ``residuals`` under N(0, sigma²), in nats (section 3.1.3).

    It is an affine function of the squared loss, so for any fixed sigma both have the same minimiser.
    """
    return float(residuals.square().mean()) / (2 * sigma**2) + math.log(sigma * math.sqrt(2 * math.pi))
