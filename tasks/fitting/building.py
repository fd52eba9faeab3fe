"""Which network and which optimizer learn a task: one of the four systems of the book."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tasks.networks.linear_regression import (
    HUBER_BETA,
    LOSS_GRADIENTS,
    LinearRegressionConcise,
    LinearRegressionScratch,
)
from tasks.networks.softmax_regression import (
    SoftmaxRegressionConcise,
    SoftmaxRegressionScratch,
    cross_entropy_gradient,
    weighted_cross_entropy,
    weighted_cross_entropy_gradient,
)
from tasks.networks.tabular import Encoding, TabularNetwork, differentiate
from tasks.networks.training import SGD, ConciseSGD, Network, Optimizer, decaying
from tasks.parameters import Implementation, Training
from tasks.records import PreparedDataset


def build(
    training: Training,
    prepared: PreparedDataset,
    generator: torch.Generator,
    device: torch.device,
    class_weights: Tensor | None = None,
) -> tuple[Network, Optimizer]:
    """The network with the book's start, drawn on the CPU so that every device starts alike, and its optimizer."""
    num_inputs, num_outputs = math.prod(prepared.recipe.input.shape), len(prepared.class_names)
    is_scratch, options = training.implementation is Implementation.SCRATCH, dict[str, Any]()
    if class_weights is not None:
        options = (
            {"loss_gradient": weighted_cross_entropy_gradient(class_weights)}
            if is_scratch
            else {"loss": weighted_cross_entropy(class_weights)}
        )
    net: Network
    if prepared.task == "regression":
        linear = LinearRegressionScratch if is_scratch else LinearRegressionConcise
        net = linear(num_inputs, training.loss.value, generator)
    else:
        softmax = SoftmaxRegressionScratch if is_scratch else SoftmaxRegressionConcise
        net = softmax(num_inputs, num_outputs, generator, dropout_probability=training.dropout, **options)
    net.to(device)
    return net, optimizer(training, net, training.steps.weight_decay)


def build_for_table(
    training: Training, prepared: PreparedDataset, encoding: Encoding, class_weights: Tensor | None
) -> TabularNetwork:
    """The network of a table; from scratch the gradient of its loss is a formula, concisely it is autograd's.

    Behind the effects of slots there is one more for each category, that of a code without one.
    """
    is_scratch = training.implementation is Implementation.SCRATCH
    class_weights = None if class_weights is None else class_weights.to(encoding.mean.dtype)
    if prepared.task == "regression":
        losses = {"squared": nn.MSELoss(reduction="sum"), "huber": nn.SmoothL1Loss(reduction="sum", beta=HUBER_BETA)}
        name = training.loss.value
        loss_gradient = LOSS_GRADIENTS[name] if is_scratch else differentiate(losses[name])
    elif is_scratch:
        loss_gradient = cross_entropy_gradient
        if class_weights is not None:
            loss_gradient = weighted_cross_entropy_gradient(class_weights)
    else:
        loss_gradient = differentiate(nn.CrossEntropyLoss(class_weights, reduction="none"))
    return TabularNetwork(
        len(encoding.numbers),
        max(1, len(prepared.class_names)),
        encoding.num_slots + len(encoding.categories),
        encoding.pairs.cpu(),
        loss_gradient,
        training.dropout,
    )


def optimizer(training: Training, net: Network, weight_decay: float, momentum: float = 0.0) -> Optimizer:
    """The implementation's SGD; momentum is Nesterov's."""
    groups = decaying(net.parameters(), weight_decay)
    kind = SGD if training.implementation is Implementation.SCRATCH else ConciseSGD
    return kind(groups, training.steps.lr, momentum)
