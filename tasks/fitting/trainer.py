"""What learns from a prepared data set: the book's models with the book's constants, own pictures and tables by rules.

A trainer reads the splits, finds the values that were not given, and runs a network of ``tasks/networks`` in the one
training loop. Tables are memory-mapped: their rows stay raw, and become inputs while a network learns.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.data.levels import count_codes
from tasks.data.prepared_splits import hold_out, read_split
from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting import devices
from tasks.fitting.objective import Objective
from tasks.machine.run_messages import print_message
from tasks.networks.centred_sgd import CentredSGD, mean_and_curvature
from tasks.networks.examples import DeviceExamples, Split, split_randomly
from tasks.networks.linear_regression import LinearRegressionConcise, LinearRegressionScratch
from tasks.networks.softmax_regression import (
    SoftmaxRegressionConcise,
    SoftmaxRegressionScratch,
    weighted_cross_entropy,
    weighted_cross_entropy_gradient,
)
from tasks.networks.training import (
    SGD,
    ConciseSGD,
    EpochMetrics,
    Network,
    Optimizer,
    RunEpoch,
    compute_outputs,
    group_parameters,
    list_learning_rates,
    stop_early,
    stop_when,
    train,
    train_epoch,
)
from tasks.parameters import Hyperparameters, Implementation, Training, Use
from tasks.records import PreparedDataset

MIN_EXAMPLES = 10  # a validation loss on fewer examples is noise, and so are weights fitted to fewer
VALIDATION = 0.2  # share of the training rows on which a weight decay is chosen
# For pictures: the book's values, with Fashion-MNIST.
NUM_INPUTS, BATCH_SIZE, LR, NUM_EPOCHS = 784, 256, 0.1, 10
LEAST_STEPS = 2350  # as many as 10 epochs of 60 000 pictures have
LARGEST_STEP = 1.5


LINEAR: dict[Implementation, Callable[..., Network]] = {
    Implementation.SCRATCH: LinearRegressionScratch,
    Implementation.CONCISE: LinearRegressionConcise,
}
SOFTMAX: dict[Implementation, Callable[..., Network]] = {
    Implementation.SCRATCH: SoftmaxRegressionScratch,
    Implementation.CONCISE: SoftmaxRegressionConcise,
}


@dataclass
class Learner:
    """A network, and how it is trained."""

    net: Network
    optimizer: Optimizer
    run_epoch: RunEpoch = train_epoch
    has_ended: Callable[[], bool] | None = None  # None: it ends after the given number of epochs
    note: str = ""  # what was found by rule, for people to read


@dataclass(kw_only=True)
class TrainingRun(Learner):
    """A network and the epochs that train it when iterated; ``training`` has every value that was found."""

    epochs: Iterator[EpochMetrics]
    training: Training
    prepared: PreparedDataset  # with statistics of those examples only that weights are fitted to
    num_examples: int  # number of these examples
    num_validation: int

    def read_weights(self) -> dict[str, Tensor]:
        """The weights in float32 on the CPU.

        Raises:
            TrainingDiverged: one of them is not a finite number, though the loss in float64 was.
        """
        weights = {name: each.cpu().float().contiguous() for name, each in self.net.weights().items()}
        if not all(each.isfinite().all() for each in weights.values()):
            found = f"weights beyond the range of float32 at lr {self.training.lr}"
            raise TrainingDiverged(found, "finite weights", "use a smaller --lr")
        return weights


class Parts(NamedTuple):
    """The examples that weights are fitted to and those that they are measured on, where these exist."""

    fitted: DeviceExamples
    validation: DeviceExamples | None = None
    test: DeviceExamples | None = None


class Trainer:
    """Trains one of the four systems; the trainers for the user's own data find the values that were not given."""

    follows_data = True  # which decide what is not given, and give the same bytes on a GPU, too
    unit = 1.0  # of losses: training of own numbers sees a target in deviations

    def __init__(self, training: Training, prepared: PreparedDataset, device: torch.device) -> None:
        self.training, self.prepared, self.device = training, prepared, device
        self.is_scratch = training.implementation is Implementation.SCRATCH  # gradients and steps are explicit
        self.objective = Objective.choose(training, prepared)
        weights = self.objective.class_weights
        self.class_weights = torch.tensor(weights, device=device) if weights else None  # None: all count alike

    def with_training(self, training: Training) -> Trainer:
        """A trainer of the same data with other training settings."""
        return type(self)(training, self.prepared, self.device)

    def load(self, name: Any) -> DeviceExamples:
        """A split on the device; pixels stay uint8 and are scaled to 0…1 one minibatch at a time.

        Raises:
            DataError: the file is missing or has changed since it was prepared.
        """
        rows = read_split(getattr(self.prepared, name), self.prepared)
        inputs, y = (torch.as_tensor(each, device=self.device) for each in rows[:2])
        return Split(inputs, y if y.is_floating_point() else y.long(), self.prepared.recipe.scale)

    def split_rows(self, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The int64 indices of the training examples without a ``share``, and of that share.

        The share has the largest split keys, so that equal rows are on the same side.
        """
        is_held_out = torch.from_numpy(hold_out(read_split(self.prepared.train, self.prepared).key, share))
        return torch.where(~is_held_out)[0], torch.where(is_held_out)[0]

    def refit(self, fitted: Tensor) -> PreparedDataset:
        """The data with statistics of the ``fitted`` training examples only: how many each class has.

        Raises:
            DataError: the file is missing or has changed since it was prepared.
        """
        if not self.prepared.class_names:
            return self.prepared
        y_true = read_split(self.prepared.train, self.prepared).y_true[fitted.numpy()]
        counts = count_codes(y_true, len(self.prepared.class_names)).tolist()
        return self.prepared.model_copy(update={"class_counts": tuple(counts)})

    def hold_out(self, share: float, generator: torch.Generator, option: str = "") -> tuple[Trainer, Parts]:
        """A trainer, and its parts: the data's own training and validation, or training with a ``share`` held out.

        The trainer's statistics leave out a share that is held out; if ``share`` is 0, nothing is held out.

        Raises:
            UsageError: so few examples are left for training, or held out, that results mean nothing; it names
                ``option``.
            DataError: a file is missing or has changed since it was prepared.
        """
        if self.prepared.validation:
            return self, Parts(self.load("train"), self.load("validation"))
        if not share:
            return self, Parts(self.load("train"))
        fitted, held_out = self.split_rows(share, generator)
        require_enough(share, len(fitted), len(held_out), option)
        trainer = type(self)(self.training, self.refit(fitted), self.device)
        train = trainer.load("train")
        return trainer, Parts(*(train.select(index.to(self.device)) for index in (fitted, held_out)))

    def begin_training(self, generator: torch.Generator) -> TrainingRun:
        """Read the splits, find the values that were not given, and build what learns from them.

        Raises:
            UsageError: so few examples are left for training, or held out, that results mean nothing.
            DataError: a file is missing or has changed since it was prepared.
        """
        training = self.training
        trainer, parts = self.hold_out(training.validation, generator)
        validation = parts.validation
        if validation is None and training.patience:
            found = "--patience without validation rows"
            raise UsageError(found, "rows to watch", "hold some out: --validation 0.1")
        if validation is not None and (training.patience or training.weight_decay == "auto"):
            require_rows_to_choose_by(validation)
        if validation is not None and self.prepared.validation and training.validation:
            print_message(
                f"the {len(validation)} rows marked as validation are used for validation; no further share is held out"
            )
        if training.weight_decay == "auto":
            decay = self.choose_weight_decay()
            print_message(f"weight decay {decay:.3g} has the smallest validation loss")
            trainer = trainer.with_training(training.model_copy(update={"weight_decay": decay}))
        run = trainer.start(parts._replace(test=trainer.load("test")), generator)
        if run.note:
            print_message(run.note, short="")
        return run

    def choose_weight_decay(self) -> float:
        """The penalty from a short grid with the smallest validation loss; all are tried on rows in the same order."""
        losses, share = dict[float, float](), self.training.validation or VALIDATION
        trainer, parts = self.hold_out(share, torch.Generator(), "--weight-decay auto")
        # Powers of ten: for a classifier around the penalty that it has by rule, otherwise for a target in deviations.
        decays = [0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
        if self.objective.is_of_classes:
            decays = [10.0**power / self.prepared.num_train for power in range(-1, 4)]
        for decay in decays:
            training = self.training.model_copy(update={"weight_decay": decay, "patience": None})
            losses[decay] = trainer.with_training(training).list_validation_losses(parts, training.seed_number)[-1]
        return min(losses, key=lambda decay: (math.isnan(losses[decay]), losses[decay]))

    def list_validation_losses(self, parts: Parts, seed: int, deadline: float = math.inf) -> list[float]:
        """Train, and list the validation loss without a penalty after each epoch, up to the first that is not finite.

        Losses are weighted by class weights if there are any; a regression's is half the mean squared error, in the
        target's units. The list is empty if the ``deadline`` (in seconds since 1970) has passed.

        Raises:
            UsageError: there is no validation part, or it has too few rows.
        """
        losses, generator = list[float](), torch.Generator().manual_seed(seed)
        with devices.one_thread():
            run, weighed = self.start(parts, generator), self.encode(require_rows_to_choose_by(parts.validation))
            for measured in run.epochs:
                if time.time() > deadline:
                    return []
                is_weighted = self.class_weights is not None
                loss = compute_loss(run.net, weighed, self.objective) if is_weighted else measured.validation["loss"]
                losses.append(loss)
                if not math.isfinite(loss):
                    break
        return losses

    def find_hyperparameters(self, num_examples: int) -> Hyperparameters:
        """The values that were given, and for the others those that follow from this number of examples."""
        return self.training.hyperparameters

    def start(self, parts: Parts, generator: torch.Generator) -> TrainingRun:
        """The network at its start, and the epochs that fit it to examples and measure it on others."""
        encoded: Iterator[Any] = (each and self.encode(each) for each in parts)
        fitted, validation, test = Parts(*encoded)
        values = self.find_hyperparameters(len(fitted))
        learner, training = self.build(values, fitted, generator), self.training.model_copy(update=values.model_dump())
        epochs = train(
            learner.net,
            learner.optimizer,
            fitted,
            test,
            list_learning_rates(training.schedule, values.lr, values.num_epochs),
            values.batch_size,
            generator,
            validation,
            learner.run_epoch,
        )
        if learner.has_ended:
            epochs = stop_when(epochs, learner.has_ended)
        if training.patience:
            epochs = stop_early(epochs, learner.net, training.patience)
        in_raw_units = ([each and each | {"loss": each["loss"] * self.unit} for each in epoch] for epoch in epochs)
        return TrainingRun(
            **vars(learner),
            epochs=itertools.starmap(EpochMetrics, in_raw_units),
            training=training,
            prepared=self.prepared,
            num_examples=len(fitted),
            num_validation=len(validation or ()),
        )

    def build(self, values: Hyperparameters, fitted: DeviceExamples, generator: torch.Generator) -> Learner:
        """The network with the book's start, drawn on the CPU so that every device starts alike, and its optimizer."""
        num_inputs = math.prod(self.prepared.recipe.input.shape)
        net: Any
        implementation = self.training.implementation
        if self.prepared.task == "regression":
            net = LINEAR[implementation](num_inputs, self.training.loss.value, generator)
        else:
            options: dict[str, Any] = {}
            if self.class_weights is not None and self.is_scratch:
                options["loss_gradient"] = weighted_cross_entropy_gradient(self.class_weights)
            elif self.class_weights is not None:
                options["loss"] = weighted_cross_entropy(self.class_weights)
            net = SOFTMAX[implementation](num_inputs, len(self.prepared.class_names), generator, **options)
        net.to(self.device)
        return Learner(net, self.make_optimizer(net, values.lr, values.weight_decay))

    def make_optimizer(self, net: Network, lr: float, weight_decay: float, momentum: float = 0.0) -> SGD:
        """The implementation's SGD; momentum is Nesterov's."""
        kind = SGD if self.is_scratch else ConciseSGD
        return kind(group_parameters(net.parameters(), weight_decay), lr, momentum)

    def encode(self, split: DeviceExamples) -> DeviceExamples:
        """The split in the form that the network takes."""
        return split


class BookTrainer(Trainer):
    """Trains on the book's data with the book's values: the held-out share is random, and nothing was fitted before."""

    follows_data = False

    def split_rows(self, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same indices, drawn at random by the generator."""
        return split_randomly(self.prepared.num_train, share, generator)

    def refit(self, fitted: Tensor) -> PreparedDataset:
        """The data unchanged: they have no statistics."""
        return self.prepared


class ImageTrainer(Trainer):
    """Trains on the user's own pictures: the book's network and loop, a small penalty, and enough steps if few."""

    def find_hyperparameters(self, num_examples: int) -> Hyperparameters:
        """The values that were given, and for the others those that follow from the pictures."""
        num_inputs = math.prod(self.prepared.recipe.input.shape)
        return find_image_steps(self.training, num_examples, num_inputs, self.objective.weight_decay)

    def build(self, values: Hyperparameters, fitted: DeviceExamples, generator: torch.Generator) -> Learner:
        """The network at the book's start, and its optimizer, which centres pixels where this is necessary.

        A step at equal probabilities multiplies the error along the mean by ``1 - lr * curvature / classes``: where
        ``lr * curvature / classes`` is beyond 2, the error grows. For Fashion-MNIST it is 1.1; for colour pictures on
        white with three classes, 17.
        """
        learner, (mean, curvature) = super().build(values, fitted, generator), mean_and_curvature(fitted)
        learner.note = describe_values(f"minibatches of {values.batch_size}", values)
        if values.lr * curvature / len(self.prepared.class_names) > LARGEST_STEP:
            learner.optimizer = CentredSGD(learner.optimizer, learner.net, mean)
            learner.note += ", pixels less their mean"
        return learner


TRAINERS: dict[Use, type[Trainer]] = {Use.BOOK: BookTrainer, Use.IMAGES: ImageTrainer}


def make_trainer(training: Training, prepared: PreparedDataset, device: torch.device) -> Trainer:
    """The trainer for a data set."""
    # There are three kinds, which nothing else in training distinguishes.
    return TRAINERS[prepared.find_use(prepared.recipe)](training, prepared, device)


# Rules for values that were not given


def describe_values(rows: str, values: Hyperparameters) -> str:
    """The values that were found, for people to read; ``rows`` says how many rows a step sees."""
    return f"{rows}, learning rate {values.lr:g}, weight decay {values.weight_decay:.3g}"


def find_image_steps(training: Training, num_examples: int, num_inputs: int, weight_decay: float) -> Hyperparameters:
    """The values given; otherwise the book's, with a smaller rate for more pixels and more epochs for fewer pictures.

    A step's size, by one picture's gradient, grows with its inputs, and 10 epochs of 500 pictures would be 20 steps.
    """
    batch_size = training.batch_size or BATCH_SIZE
    num_epochs = max(NUM_EPOCHS, math.ceil(LEAST_STEPS / math.ceil(num_examples / batch_size)))
    return Hyperparameters(
        num_epochs=training.num_epochs or num_epochs,
        batch_size=batch_size,
        lr=training.lr or LR * min(1.0, NUM_INPUTS / num_inputs),
        weight_decay=weight_decay,
    )


def compute_loss(net: Network, examples: DeviceExamples, objective: Objective) -> float:
    """The mean loss, without the penalty."""
    scores = compute_outputs(net, examples).cpu().numpy()
    return objective.mean(scores.reshape(len(scores), -1), examples.y.cpu().numpy())


# Parts too small to mean anything are refused


def require_enough(share: float, num_examples: int, num_validation: int, option: str) -> None:
    """Refuse parts that are too small to mean anything.

    Raises:
        UsageError: too few examples are left for training, or held out; ``option`` may be the one that asked for it.
    """
    total, least = num_examples + num_validation, 2 * MIN_EXAMPLES
    if min(num_examples, num_validation) >= MIN_EXAMPLES:
        return
    found = f"{option or f'--validation {share:g}'} of {total} training examples holds out {num_validation}"
    if option:
        action = "give a number, such as --weight-decay 0.01, or more data"
    elif total >= least:
        action = f"use a share such as {max(0.1, least / 2 / total):.2g}, more data, or no --validation"
    else:
        action = f"at least {least} training examples are needed: give more data, or no --validation"
    raise UsageError(f"{found} and leaves {num_examples}", f"at least {MIN_EXAMPLES} of each", action)


def require_rows_to_choose_by(validation: DeviceExamples | None) -> DeviceExamples:
    """Refuse to choose by a validation part that is too small to mean anything; otherwise return it.

    Raises:
        UsageError: there is no validation part, or it has too few rows.
    """
    if validation is None or len(validation) < MIN_EXAMPLES:
        raise UsageError(
            f"only {len(validation or ())} validation rows",
            f"at least {MIN_EXAMPLES}",
            "have more of them, or do without: leave out --patience and give a number for --weight-decay",
        )
    return validation
