"""Which network and which optimizer learn a task: one of the four systems of the book."""

import math

import torch
from torch import Tensor

from tasks.networks.linear_concise import LinearRegressionConcise
from tasks.networks.linear_scratch import LinearRegressionScratch
from tasks.networks.sgd import SGD, ConciseSGD, decaying
from tasks.networks.softmax_concise import SoftmaxRegressionConcise
from tasks.networks.softmax_scratch import SoftmaxRegressionScratch
from tasks.networks.tables import Encoding
from tasks.networks.training import Network, Optimizer
from tasks.parameters import Implementation, Training
from tasks.records import PreparedDataset

LINEAR: dict[Implementation, type[LinearRegressionScratch | LinearRegressionConcise]] = {
    Implementation.SCRATCH: LinearRegressionScratch,
    Implementation.CONCISE: LinearRegressionConcise,
}
SOFTMAX: dict[Implementation, type[SoftmaxRegressionScratch | SoftmaxRegressionConcise]] = {
    Implementation.SCRATCH: SoftmaxRegressionScratch,
    Implementation.CONCISE: SoftmaxRegressionConcise,
}


def build(
    training: Training,
    prepared: PreparedDataset,
    generator: torch.Generator,
    device: torch.device,
    class_weights: Tensor | None = None,
) -> tuple[Network, Optimizer]:
    """The network with the book's start, drawn on the CPU so that every device starts alike, and its optimizer."""
    num_inputs = math.prod(prepared.recipe.input.shape)
    if prepared.task == "regression":
        net: Network = LINEAR[training.implementation](num_inputs, training.loss.value, generator)
    else:
        kind, num_outputs = SOFTMAX[training.implementation], len(prepared.class_names)
        dropout = training.dropout
        net = kind(num_inputs, num_outputs, generator, dropout_probability=dropout, class_weights=class_weights)
    net.to(device)
    return net, optimizer(training, net, training.steps.weight_decay)


def build_for_table(
    training: Training, prepared: PreparedDataset, encoding: Encoding, class_weights: Tensor | None
) -> Network:
    """The network of a table, which starts at zero: that is the answer of minimum norm where columns are collinear.

    Behind the effects of slots there is one more for each category, that of a code without one.
    """
    num_inputs, num_slots = len(encoding.numbers), encoding.num_slots + len(encoding.categories)
    pairs = encoding.pairs.cpu()
    nothing_drawn = torch.Generator()
    if prepared.task == "regression":
        kind = LINEAR[training.implementation]
        return kind(num_inputs, training.loss.value, nothing_drawn, sigma=0.0, num_slots=num_slots, pairs=pairs)
    return SOFTMAX[training.implementation](
        num_inputs,
        len(prepared.class_names),
        nothing_drawn,
        sigma=0.0,
        dropout_probability=training.dropout,
        num_slots=num_slots,
        pairs=pairs,
        class_weights=class_weights,
    )


def optimizer(training: Training, net: Network, weight_decay: float, momentum: float = 0.0) -> Optimizer:
    """The implementation's SGD; momentum is Nesterov's."""
    groups = decaying(net.parameters(), weight_decay)
    if training.implementation is Implementation.SCRATCH:
        return SGD(groups, training.steps.lr, momentum)
    return ConciseSGD(groups, lr=training.steps.lr, momentum=momentum, nesterov=momentum > 0)
