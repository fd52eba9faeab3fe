"""What learns from a prepared data set: the book's models with the book's constants, own pictures and tables by rules.

A trainer reads the splits, finds the values that were not given, and runs a network of ``tasks/networks`` in the one
training loop. Tables are memory-mapped: their rows stay raw, and become inputs while a network learns.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from tasks.data.levels import count_codes
from tasks.data.prepared_splits import hold_out, read_split
from tasks.data.recipe import Columns
from tasks.data.statistics import fit_recipe
from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting import devices
from tasks.judging.objective import Objective
from tasks.machine import parallel
from tasks.machine.run_messages import print_message
from tasks.networks import HUBER_BETA
from tasks.networks.centred_sgd import CentredSGD, mean_and_curvature
from tasks.networks.examples import DeviceExamples, Split, split_randomly
from tasks.networks.linear_regression import LOSS_GRADIENTS, LinearRegressionConcise, LinearRegressionScratch
from tasks.networks.softmax_regression import (
    SoftmaxRegressionConcise,
    SoftmaxRegressionScratch,
    cross_entropy_gradient,
    weighted_cross_entropy,
    weighted_cross_entropy_gradient,
)
from tasks.networks.table_network import (
    AveragedSGD,
    Conditioning,
    Encoding,
    PreconditionedSGD,
    TableExamples,
    TabularNetwork,
    compute_moments,
    differentiate_loss,
    make_preconditioner,
    train_epoch_whole,
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
from tasks.parameters import Hyperparameters, Implementation, Loss, Training, Use
from tasks.records import PreparedDataset

MIN_EXAMPLES = 10  # a validation loss on fewer examples is noise, and so are weights fitted to fewer
VALIDATION = 0.2  # share of the training rows on which a weight decay is chosen
# For pictures: the book's values, with Fashion-MNIST.
NUM_INPUTS, BATCH_SIZE, LR, NUM_EPOCHS = 784, 256, 0.1, 10
LEAST_STEPS = 2350  # as many as 10 epochs of 60 000 pictures have
LARGEST_STEP = 1.5
# For tables.
MANY_ROWS = 50_000  # up to this number of rows a pass is so short that every step may see all of them
MANY_SCORES = 1_000_000  # scores of all rows: the same limit where there are many classes
WHITENED_INPUTS = 1000  # their covariance is inverted in half a second and takes 8 MB
SMALLEST_BATCH_SIZE = 4096  # from here on a step's arithmetic outweighs the overhead of its calls
LARGEST_BATCH_SIZE = 2**15  # the overhead of a step's calls is negligible, and its noise is a third
STEPS = 40  # per pass, before minibatches grow
SEEN_ROWS = 500_000  # that minibatches see, at least: the noise of 100 weights is then a ten-thousandth of a nat
MOST_EPOCHS = 2000  # of one step each; scikit-learn's digits, ten classes of which most are separable, need 1000
MOST_PASSES = 100  # passes over minibatches
SETTLED = 5e-4  # share of the objective: twice as many minibatch steps gained no more, so what is left is less
MOMENTUM = 0.9  # the book's: ten times as fast where curvature falls to a hundredth on the way
MINIBATCH_MOMENTUM = 0.5  # with minibatches, more would make their noise last: tried on a class of 1 % and one of 24 %
TOLERANCE = 1e-5  # share of the gradient at the start; the objective is then within 1e-6 of its optimum
# An upper bound of each loss's second derivative by its output; cross-entropy has that of softmax (Böhning, 1992).
# Steps of one over it are certain to go down, and those of a squared loss reach its optimum at once.
CURVATURE = {Loss.SQUARED: 1.0, Loss.HUBER: 2.0, Loss.CROSS_ENTROPY: 0.5}
SAMPLE = 2**15  # rows whose covariance stands for that of millions: minibatches need no better
SCORES = 2**17  # of a sample of rows, by which the objective is followed from pass to pass
PAIR, PAIR_ROWS = 2**10, 16  # combined codes of two columns at most, and rows for each: a step looks at all of them
RESIDENT = 20_000_000  # values of a split that are encoded once, 160 MB; a larger one is encoded in every pass
DETERMINED = "these columns determine one another, as far as can be told; their weights are those of minimum norm"


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
    num_slots: int = 0  # effects that are kept; those of unknown codes come after them
    collinear: tuple[str, ...] = ()  # columns that other columns determine
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
        """The weights in float32 on the CPU, without the effects of unknown codes.

        Raises:
            TrainingDiverged: one of them is not a finite number, though the loss in float64 was.
        """
        weights = {name: each.cpu().float().contiguous() for name, each in self.net.weights().items()}
        if "effects" in weights:
            weights["effects"] = weights["effects"][: self.num_slots].clone()
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
    converges = False  # whether training goes on until nothing is left to gain
    is_deterministic = False  # whether any seed gives the same weights

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
        if run.collinear:
            print_message(f"{', '.join(run.collinear)}: {DETERMINED}")
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


class Plan(NamedTuple):
    """How a table is trained, as its inputs require."""

    is_full_batch: bool  # every step sees all rows, in float64, until the objective has converged
    num_whitened: int  # how many of the first inputs are whitened in all directions; the others are scaled one by one
    momentum: float

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of inputs and weights: only full-batch steps come so near the optimum that float32 would matter."""
        return torch.float64 if self.is_full_batch else torch.float32


class TableTrainer(Trainer):
    """Trains on a user's own table."""

    def __init__(self, training: Training, prepared: PreparedDataset, device: torch.device) -> None:
        super().__init__(training, prepared, device)
        self.recipe = cast("Columns", prepared.recipe)
        numbers, num_slots = len(self.recipe.numbers), sum(column.num_slots for column in self.recipe.columns)
        self.plan = make_plan(training, prepared.num_train, numbers, num_slots, len(prepared.class_names))
        self.converges, self.is_deterministic = training.num_epochs is None, self.plan.is_full_batch
        self.encoding = make_encoding(self.recipe, self.plan.dtype).to(device)
        self.unit = self.objective.scale**2
        self.objective = replace(self.objective, scale=1.0)
        # ``nn.MSELoss`` has no half: this is how many times our loss a network's own loss is.
        self.loss_factor = 2.0 if training.loss is Loss.SQUARED and not self.is_scratch else 1.0

    def load(self, name: Any) -> TableExamples:
        """A split on the device; a regression's truth is in deviations of the target.

        Raises:
            DataError: the file is missing or has changed since it was prepared.
        """
        features, y_true, _ = read_split(getattr(self.prepared, name), self.prepared)
        if self.prepared.task == "regression":
            target = self.recipe.target_scaling
            y = torch.as_tensor((y_true - target.mean) / target.scale, dtype=self.plan.dtype, device=self.device)
        else:
            y_true = y_true if y_true.dtype == np.uint8 else y_true.astype(np.int64)
            y = torch.as_tensor(y_true, device=self.device)
        return TableExamples(torch.as_tensor(features, device=self.device), y, self.encoding)

    def refit(self, fitted: Tensor) -> PreparedDataset:
        """The same, and the recipe's means, scales and counts; the list of levels stays."""
        prepared, (features, y_true, _) = super().refit(fitted), read_split(self.prepared.train, self.prepared)
        rows = {"features": features[fitted.numpy()]}
        if not prepared.class_names:
            rows["target"] = y_true[fitted.numpy()]
        return prepared.model_copy(update={"recipe": fit_recipe(self.recipe, rows)})

    def find_hyperparameters(self, num_examples: int) -> Hyperparameters:
        """The values that were given, and for the others those that follow from the data."""
        training, is_full_batch = self.training, self.plan.is_full_batch
        return Hyperparameters(
            num_epochs=training.num_epochs or (MOST_EPOCHS if is_full_batch else MOST_PASSES),
            batch_size=training.batch_size or (num_examples if is_full_batch else find_batch_size(num_examples)),
            lr=training.lr or 1 / (CURVATURE[training.loss] * self.loss_factor),
            weight_decay=self.objective.weight_decay,
        )

    def build(self, values: Hyperparameters, fitted: DeviceExamples, generator: torch.Generator) -> Learner:
        """The network at zero, and steps on all rows or on minibatches, until nothing is left to gain."""
        rows = fitted if self.plan.is_full_batch else sample(fitted, SAMPLE, generator)
        # It is computed while minibatches are drawn.
        conditioning = parallel.start(self.find_conditioning, rows, values, len(fitted))
        num_outputs = max(1, len(self.prepared.class_names))
        net = TabularNetwork(self.encoding, num_outputs, self.find_loss_gradient())
        sgd = self.make_optimizer(net, values.lr, 0.0, self.plan.momentum)
        optimizer = PreconditionedSGD(sgd, net, conditioning, values.weight_decay * self.loss_factor)
        run_epoch: RunEpoch = train_epoch_whole
        step_rows, has_ended = "all rows a step", partial(optimizer.has_converged, TOLERANCE)
        if not self.plan.is_full_batch:
            objective = self.follow(net, fitted, generator) if self.converges else None
            run_epoch = averaged = AveragedSGD(parallel.read_ahead, objective)
            least = min(MOST_PASSES, math.ceil(SEEN_ROWS / len(fitted)))
            step_rows, has_ended = f"minibatches of {values.batch_size}", partial(averaged.has_settled, SETTLED, least)
        return Learner(
            net,
            optimizer,
            run_epoch,
            has_ended if self.converges else None,
            self.encoding.num_slots,
            self.find_collinear(conditioning),
            f"{describe_values(step_rows, values)}, at most {values.num_epochs} epochs",
        )

    def find_loss_gradient(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The derivative of the loss by the outputs: a formula from scratch, autograd's in the concise version."""
        weights = None if self.class_weights is None else self.class_weights.to(self.plan.dtype)
        if self.is_scratch:
            of_classes = cross_entropy_gradient if weights is None else weighted_cross_entropy_gradient(weights)
            return LOSS_GRADIENTS.get(self.training.loss, of_classes)
        losses: dict[Loss, nn.Module] = {
            Loss.SQUARED: nn.MSELoss(reduction="sum"),
            Loss.HUBER: nn.SmoothL1Loss(reduction="sum", beta=HUBER_BETA),
            Loss.CROSS_ENTROPY: nn.CrossEntropyLoss(weights, reduction="none"),
        }
        return differentiate_loss(losses[self.training.loss])

    def encode(self, split: DeviceExamples) -> DeviceExamples:
        """The split in this plan's precision; encoded once if every step sees all rows and memory can hold them."""
        table = replace(cast("TableExamples", split), encoding=self.encoding)
        if table.targets.is_floating_point():
            table = replace(table, targets=table.targets.to(self.plan.dtype))
        return encode_small(table) if self.plan.is_full_batch else table

    def find_conditioning(self, rows: DeviceExamples, values: Hyperparameters, num_rows: int) -> Conditioning:
        """The moments of the inputs, and a preconditioner that gives steps the right length in every direction.

        Minibatch steps are damped, so that no example moves its own output too far: an example alone in its minibatch
        has ``spread / batch_size`` of curvature along itself, and a rare level far less than that on average.
        """
        encoding, ridge = self.encoding, values.weight_decay / CURVATURE[self.training.loss]
        moments = compute_moments(rows, encoding, self.class_weights, self.plan.num_whitened)
        if not self.plan.is_full_batch:
            ridge += moments.spread * max(0.0, 1 / values.batch_size - 1 / num_rows)
        elif not self.objective.is_of_classes and not len(moments.variances):
            offsets = (encoding.mean / encoding.scale).squeeze(1)
            moments = moments.with_effective_rank(F.pad(offsets, (0, encoding.num_slots)))
        return moments, make_preconditioner(moments, ridge, encoding.frequencies, self.plan.dtype)

    def follow(self, net: Network, rows: DeviceExamples, generator: torch.Generator) -> Callable[[], float]:
        """A function that computes the objective on a sample of rows, by which minibatches are repeated."""
        size = SCORES // max(1, len(self.prepared.class_names))
        drawn = cast("TableExamples", sample(rows, size, generator))
        examples = parallel.start(encode_small, drawn)  # while steps are taken

        def compute_objective() -> float:
            weights = {name: each.detach().cpu().numpy() for name, each in net.weights().items()}
            return compute_loss(net, examples.result(), self.objective) + self.objective.penalty(weights)

        return compute_objective

    def find_collinear(self, conditioning: Future[Conditioning]) -> tuple[str, ...]:
        """The columns that other columns determine; these are also printed."""
        if not self.plan.is_full_batch or self.objective.weight_decay or len(conditioning.result()[0].variances):
            return ()
        numbers, categories = (
            [self.recipe.columns[at] for at in each] for each in (self.recipe.numbers, self.recipe.categories)
        )
        owners = [column.name for column in (*numbers, *categories) for _ in range(column.num_slots or 1)]
        collinear = conditioning.result()[0].find_collinear([each.num_slots for each in categories])
        return tuple(dict.fromkeys(owners[at] for at in collinear))


TRAINERS: dict[Use, type[Trainer]] = {Use.BOOK: BookTrainer, Use.TABLES: TableTrainer, Use.IMAGES: ImageTrainer}


def make_trainer(training: Training, prepared: PreparedDataset, device: torch.device) -> Trainer:
    """The trainer for a data set."""
    # There are three kinds, which nothing else in training distinguishes.
    return TRAINERS[prepared.find_use(prepared.recipe)](training, prepared, device)


# Rules for values that were not given


def describe_values(rows: str, values: Hyperparameters) -> str:
    """The values that were found, for people to read; ``rows`` says how many rows a step sees."""
    return f"{rows}, learning rate {values.lr:g}, weight decay {values.weight_decay:.3g}"


def make_plan(training: Training, num_rows: int, num_numbers: int, num_slots: int = 0, num_outputs: int = 1) -> Plan:
    """The plan that fits these rows and inputs.

    A squared loss on whitened inputs is at its optimum after one step on all rows, which is worth it for any number of
    rows.
    """
    num_inputs = num_numbers + num_slots
    num_whitened = next((count for count in (num_inputs, num_numbers) if count <= WHITENED_INPUTS), 0)
    is_one_step = training.loss is Loss.SQUARED and num_whitened == num_inputs
    is_full_batch = (num_rows <= MANY_ROWS and num_rows * num_outputs <= MANY_SCORES) or is_one_step
    if training.batch_size is not None:
        is_full_batch = training.batch_size >= num_rows
    if not is_full_batch:
        return Plan(False, num_whitened, MINIBATCH_MOMENTUM)
    return Plan(True, num_whitened, 0.0 if is_one_step else MOMENTUM)


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


def find_batch_size(num_rows: int) -> int:
    """How many rows a minibatch has: all about the same, since a last one of a few rows would add its noise."""
    most = min(num_rows, LARGEST_BATCH_SIZE, max(SMALLEST_BATCH_SIZE, num_rows // STEPS))
    return math.ceil(num_rows / math.ceil(num_rows / most))


# Rows and statistics


def encode_small(table: TableExamples) -> DeviceExamples:
    """The table encoded once, if memory can hold it."""
    return table.resident() if len(table) * table.num_inputs <= RESIDENT else table


def sample(split: DeviceExamples, size: int, generator: torch.Generator) -> DeviceExamples:
    """This many random rows, drawn with replacement; all rows if there are fewer."""
    if len(split) <= size:
        return split
    return split.select(torch.randint(len(split), (size,), generator=generator).to(split.device))


def compute_loss(net: Network, examples: DeviceExamples, objective: Objective) -> float:
    """The mean loss, without the penalty."""
    scores = compute_outputs(net, examples).cpu().numpy()
    return objective.mean(scores.reshape(len(scores), -1), examples.y.cpu().numpy())


def make_encoding(recipe: Columns, dtype: torch.dtype) -> Encoding:
    """How rows of this recipe become a network's inputs.

    Columns are taken in pairs, largest with smallest, with so few combined codes that a step may look at all of them.
    """
    numbers, categories = ([recipe.columns[at] for at in each] for each in (recipe.numbers, recipe.categories))
    limits = [column.limits or (-math.inf, math.inf) for column in numbers if recipe.limits]
    num_slots, nobody, start = sum(column.num_slots for column in categories), len(categories), 0
    lookup, frequencies = list[Tensor](), torch.zeros(nobody, num_slots, dtype=torch.float64)
    for at, column in enumerate(categories):
        *levels, missing, _ = column.weight_indices().tolist()  # here a missing value comes first
        slots = torch.tensor([num_slots + at if slot < 0 else slot + start for slot in (missing, *levels, -1)])
        counts = torch.tensor([column.num_missing, *column.counts, 0], dtype=torch.float64)
        frequencies[at] = torch.bincount(slots, counts / counts.sum(), num_slots + nobody)[:num_slots]
        lookup.append(slots)
        start += column.num_slots
        most = min(PAIR, int(counts.sum()) // PAIR_ROWS)  # codes of a pair; every column has seen all training rows
    lookup.append(torch.tensor([num_slots + nobody]))
    sizes = [*map(len, lookup)]
    rest, pairs = sorted(range(nobody), key=sizes.__getitem__), list[tuple[int, int]]()
    while rest:
        largest = rest.pop()
        fits = rest and sizes[largest] * sizes[rest[0]] <= most
        pairs.append((largest, rest.pop(0) if fits else nobody))
    pairs.sort(key=lambda pair: pair[1] == nobody)  # unpaired columns come last
    combined = [torch.cartesian_prod(lookup[first], lookup[second]) for first, second in pairs]
    strides, starts = [sizes[second] for _, second in pairs], itertools.accumulate(map(len, combined), initial=1)
    offsets = [start + stride for start, stride in zip(starts, strides, strict=False)]
    order = [at for each in zip(*pairs, strict=True) for at in each]
    positions = [*recipe.categories, *recipe.categories[:1]]  # nobody's code may be read from any column
    return Encoding(
        numbers=torch.tensor(recipe.numbers, dtype=torch.int64),
        limits=torch.tensor(limits, dtype=dtype),
        mean=torch.tensor([column.mean or 0.0 for column in numbers], dtype=dtype).unsqueeze(1),
        scale=torch.tensor([column.scale for column in numbers], dtype=dtype).unsqueeze(1),
        categories=torch.tensor([positions[at] for at in order], dtype=torch.int64),
        last=torch.tensor([sizes[at] - 2.0 for at in order]).unsqueeze(1),
        stride=torch.tensor(strides, dtype=torch.float32).unsqueeze(1),
        offset=torch.tensor(offsets, dtype=torch.int64).unsqueeze(1),
        crossed_slots=torch.cat([torch.zeros(0, 2, dtype=torch.int64), *combined]),
        frequencies=frequencies,
    )


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
