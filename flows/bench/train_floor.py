"""What training cannot be faster than: the barest calls of torch that come to the same weights, bit for bit.

Minibatches, their order and the figures of both splits are as ours; there is no module, no loss object, no optimizer.
``inputs`` ``(n, pixels)`` are uint8 or, in a step, float32 from 0 to 1; ``labels`` ``(n,)`` int64; ``weights``
``(classes, pixels)`` and ``bias`` ``(classes,)`` float32; scores ``(n, classes)``. One thread, by who calls.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

LR, SIGMA = 0.1, 0.01
GATHERED = 2**21  # values of the minibatches that are gathered at once
MEASURED = 512  # examples of the test split that are scored at once
ONE = torch.tensor(1.0)
Data = tuple[Tensor, Tensor]  # inputs and labels
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # a minibatch, weights and bias, which move, to scores


def by_hand(inputs: Tensor, labels: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """A step from scratch; its scores."""
    scores = (weights @ inputs.T).T + bias
    g = scores - scores.amax(1, keepdim=True)
    g.exp_()
    g.div_(g.sum(1, keepdim=True)).scatter_(1, labels.unsqueeze(1), -1, reduce="add").div_(len(labels))
    weights.sub_(g.T @ inputs, alpha=LR)
    bias.sub_(g.sum(0), alpha=LR)
    return scores


def by_autograd(inputs: Tensor, labels: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """A step of the concise version, autograd's engine called directly; its scores."""
    scores = F.linear(inputs, weights, bias)
    engine, loss = torch.autograd.Variable._execution_engine, F.cross_entropy(scores, labels)
    by_weights, by_bias = engine.run_backward(
        (loss,), (ONE,), False, False, (weights, bias), allow_unreachable=True, accumulate_grad=False
    )
    weights.detach().sub_(by_weights, alpha=LR)
    bias.detach().sub_(by_bias, alpha=LR)
    return scores.detach()


def by_kernels(inputs: Tensor, labels: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """The same by the kernels that autograd would call; its scores."""
    aten = torch.ops.aten
    scores = F.linear(inputs, weights, bias)
    logarithms = torch.log_softmax(scores, 1)
    _, total = aten.nll_loss_forward(logarithms, labels, None, 1, -100)
    g = aten.nll_loss_backward(ONE, logarithms, labels, None, 1, -100, total)
    g = aten._log_softmax_backward_data(g, logarithms, 1, torch.float32)
    weights.sub_(g.T @ inputs, alpha=LR)
    bias.sub_(g.sum(0), alpha=LR)
    return scores


class Learned(NamedTuple):
    """What a training comes to; ``figures`` are loss and accuracy of the training split, then of the test split."""

    weights: Tensor
    bias: Tensor
    figures: list[float]


def train(step: Step, data: Data, test: Data, batch_size: int, num_epochs: int) -> Learned:
    """Train by ``step``, both splits measured after every epoch."""
    (inputs, labels), generator, figures = data, torch.Generator().manual_seed(0), [0.0]
    weights = torch.normal(0, SIGMA, (int(labels.max()) + 1, inputs.shape[1]), generator=generator)
    bias, is_recorded = torch.zeros(len(weights)), step is by_autograd
    learned = weights.requires_grad_(is_recorded).detach(), bias.requires_grad_(is_recorded).detach()
    with torch.inference_mode(not is_recorded):
        for _ in range(num_epochs):
            order = torch.randperm(len(inputs), generator=generator)
            seen = torch.cat([step(*each, weights, bias) for each in _minibatches(*data, order, batch_size)])
            on_train = _measured(seen, labels.index_select(0, order))
            figures = torch.stack([*on_train, *_measured(_scores(test[0], *learned), test[1])]).tolist()
    return Learned(*learned, figures)


def _minibatches(inputs: Tensor, labels: Tensor, order: Tensor, size: int) -> Iterator[Data]:
    memory = torch.empty(size, inputs.shape[1])
    for several in order.split(max(1, GATHERED // memory.numel()) * size):
        gathered = inputs.index_select(0, several).split(size), labels.index_select(0, several).split(size)
        for pixels, y in zip(*gathered, strict=True):
            yield _converted(pixels, memory), y


def _converted(pixels: Tensor, memory: Tensor) -> Tensor:
    return memory[: len(pixels)].copy_(pixels).mul_(1 / 255)


def _scores(inputs: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    memory = torch.empty(MEASURED, inputs.shape[1])
    return torch.cat([(weights @ _converted(each, memory).T).T + bias for each in inputs.split(MEASURED)])


def _measured(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    by_class = scores.T.contiguous()
    loss = (torch.logsumexp(by_class, 0) - by_class.gather(0, labels.unsqueeze(0)).squeeze(0)).mean()
    return loss.double(), (scores.max(1).indices == labels).sum().double() / len(labels)
