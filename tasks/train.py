"""Stage 3: learn the weights, with the whole split resident on the device."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch

from tasks.errors import UsageError
from tasks.fitting.splits import load_split
from tasks.fitting.watching import kept, watch
from tasks.machine import devices
from tasks.machine.settings import Settings
from tasks.networks.cuda_graphs import GraphedEpochs
from tasks.networks.linear_concise import LinearRegressionConcise
from tasks.networks.linear_scratch import LinearRegressionScratch
from tasks.networks.schedules import learning_rates
from tasks.networks.sgd import SGD, decaying
from tasks.networks.softmax_concise import SoftmaxRegressionConcise
from tasks.networks.softmax_scratch import SoftmaxRegressionScratch
from tasks.networks.training import Network, Optimizer, stop_early, train_epoch
from tasks.networks.training import train as train_epochs
from tasks.parameters import Device, Implementation, ModelName, Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.stage import gpu, stage
from tasks.store import atomic
from tasks.store.run_folder import RunFolder

MIN_EXAMPLES = 10  # a validation loss of fewer is noise, and so are weights


@stage(reusable=True)
def train(run: RunFolder, prepared: PreparedDataset, training: Training) -> TrainedModel:
    """Train one of the four systems; write ``weights.safetensors`` and the learning curve into the run's folder.

    Raises:
        UsageError: so few examples are left for training, or held out, that they say nothing.
        TrainingDiverged: the loss is not finite.
        DeviceMissing: CUDA was asked for and is not there.
    """
    device = resolve_device(training.device)
    with (
        gpu.turn(training.device),
        one_thread(),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        torch.manual_seed(training.seed_number)  # dropout draws from torch's own generator
        generator = torch.Generator().manual_seed(training.seed_number)
        net, optimizer = build(training, prepared, generator, device)
        train_split, test_split = (load_split(prepared, name).to(device) for name in ("train", "test"))
        validation_split = None
        if training.validation:
            train_split, validation_split = train_split.without(training.validation, generator)
            require_enough(training.validation, len(train_split), len(validation_split))
        epochs = train_epochs(
            net,
            optimizer,
            train_split,
            test_split,
            learning_rates(training.schedule, training.lr, training.num_epochs),
            training.batch_size,
            generator,
            validation_split,
            GraphedEpochs() if device.type == "cuda" and Settings().cuda_graphs else train_epoch,
        )
        if training.patience:
            epochs = stop_early(epochs, net, training.patience)
        curve, picture = watch(epochs, training, run)
    weights = {name: tensor.cpu().contiguous() for name, tensor in net.weights().items()}
    reference = atomic.write_bytes(run.file("weights.safetensors"), safetensors.torch.save(weights))
    atomic.write_json(run.file("learning-curve.json"), [point.model_dump() for point in curve])
    return TrainedModel(
        weights=reference,
        device=describe(device),
        learning_curve=curve,
        picture=picture,
        kept_epoch=kept(curve, training).epoch,
        num_examples=len(train_split),
        num_validation=len(validation_split) if validation_split else 0,
    )


def require_enough(share: float, num_examples: int, num_validation: int) -> None:
    """Refuse a validation share that leaves a part too small.

    Raises:
        UsageError: fewer than 10 examples are held out, or are left to train on.
    """
    if min(num_examples, num_validation) < MIN_EXAMPLES:
        total = num_examples + num_validation
        raise UsageError(
            f"--validation {share:g} of {total} training examples holds out {num_validation} and leaves {num_examples}",
            f"at least {MIN_EXAMPLES} of each",
            f"use a share such as {0.1 if total >= 10 * MIN_EXAMPLES else 0.5}, more data, or no --validation",
        )


def build(
    training: Training, prepared: PreparedDataset, generator: torch.Generator, device: torch.device
) -> tuple[Network, Optimizer]:
    """The network with the book's start, drawn on the CPU so that every device starts alike, and its optimizer."""
    num_inputs = math.prod(prepared.recipe.input.shape)
    scratch = training.implementation is Implementation.SCRATCH
    net: Any
    if training.model is ModelName.LINEAR_REGRESSION:
        linear = LinearRegressionScratch if scratch else LinearRegressionConcise
        net = linear(num_inputs, training.loss.value, generator)
    else:
        softmax = SoftmaxRegressionScratch if scratch else SoftmaxRegressionConcise
        net = softmax(num_inputs, len(prepared.class_names), generator, dropout_probability=training.dropout)
    net.to(device)
    sgd = SGD if scratch else torch.optim.SGD
    return net, sgd(decaying(net.parameters(), training.weight_decay), lr=training.lr)


def resolve_device(device: Device) -> torch.device:
    """The device to train on.

    Raises:
        DeviceMissing: CUDA was asked for and torch cannot use it.
    """
    available = device is not Device.CPU and torch.cuda.is_available()
    if device is Device.CUDA and not available:
        raise devices.missing(devices.cuda_fault() or f"torch {torch.__version__} cannot use the GPU")
    return torch.device("cuda" if available else "cpu")


def describe(device: torch.device) -> str:
    """``cpu``, or ``cuda`` with the card's name."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks of this size train fastest on one thread (README, Speed)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
