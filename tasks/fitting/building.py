"""Which network and which optimizer learn a task: one of the four systems of the book."""

import math

import torch

from tasks.networks.linear_concise import LinearRegressionConcise
from tasks.networks.linear_scratch import LinearRegressionScratch
from tasks.networks.sgd import SGD, decaying
from tasks.networks.softmax_concise import SoftmaxRegressionConcise
from tasks.networks.softmax_scratch import SoftmaxRegressionScratch
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
OPTIMIZERS = {Implementation.SCRATCH: SGD, Implementation.CONCISE: torch.optim.SGD}


def build(
    training: Training, prepared: PreparedDataset, generator: torch.Generator, device: torch.device
) -> tuple[Network, Optimizer]:
    """The network with the book's start, drawn on the CPU so that every device starts alike, and its optimizer."""
    net = NETWORKS[prepared.task](training, prepared, generator).to(device)
    groups = decaying(net.parameters(), training.steps.weight_decay)
    return net, OPTIMIZERS[training.implementation](groups, lr=training.steps.lr)


def _linear(training: Training, prepared: PreparedDataset, generator: torch.Generator) -> Network:
    return LINEAR[training.implementation](_num_inputs(prepared), training.loss.value, generator)


def _softmax(training: Training, prepared: PreparedDataset, generator: torch.Generator) -> Network:
    kind, num_outputs = SOFTMAX[training.implementation], len(prepared.class_names)
    return kind(_num_inputs(prepared), num_outputs, generator, dropout_probability=training.dropout)


def _num_inputs(prepared: PreparedDataset) -> int:
    return math.prod(prepared.recipe.input.shape)


NETWORKS = {"regression": _linear, "classification": _softmax}
