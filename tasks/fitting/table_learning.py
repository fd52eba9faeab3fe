"""What learns a user's own table, by rules where nothing was said: whitened, until the objective has converged."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from tasks.data.recipe import Columns
from tasks.fitting import rules, tables
from tasks.fitting.building import build_for_table, optimizer
from tasks.fitting.learning import Learning, Parts, require_rows_to_choose, require_validation
from tasks.judging.objective import Objective
from tasks.machine import side_by_side
from tasks.machine.telling import tell
from tasks.networks import whitening
from tasks.networks.examples import Examples
from tasks.networks.moments import Moments, moments
from tasks.networks.passes import AveragedSteps, one_step, until_converged, until_settled
from tasks.networks.schedules import learning_rates
from tasks.networks.tables import Encoding
from tasks.networks.training import Epoch, Measured, Network, outputs, stop_early, train
from tasks.networks.whitening import Whitened
from tasks.parameters import Steps, Training
from tasks.records import PreparedDataset

SAMPLE = 2**15  # rows whose covariance stands for that of millions: minibatches need no better
SCORES = 2**17  # of a sample of rows, by which the objective is followed from pass to pass


@dataclass(frozen=True)
class Learner:
    """Everything that training needs but the penalty."""

    training: Training
    prepared: PreparedDataset
    encoding: Encoding
    way: rules.Way
    objective: Objective  # of a target in deviations
    class_weights: Tensor | None
    generator: torch.Generator

    @property
    def num_slots(self) -> int:
        """How many effects are learned and kept."""
        return self.encoding.num_slots

    def moments(self, split: Examples) -> Future[Moments]:
        """Those of the inputs, in a thread: exact where steps see all rows, else of a sample."""
        return side_by_side.beside(self._moments, split if self.way.is_whole else self._sample(split, SAMPLE))

    def _moments(self, split: Examples) -> Moments:
        encoding, first = self.encoding, self.way.num_whitened
        found = moments(split, len(encoding.numbers), self.num_slots, self.class_weights, first, encoding.slots)
        if not self.way.is_whole or self.objective.is_of_classes or len(found.variances):
            return found
        offsets = encoding.mean / encoding.scale
        return found.told(torch.cat([offsets.squeeze(1), offsets.new_zeros(self.num_slots)]))

    def begin(self, data: Parts[Examples], inputs: Future[Moments], weight_decay: float) -> Learning:
        """The network at its start, and the epochs that train it on these parts."""
        steps = rules.steps(self.training, self.way, len(data.train), weight_decay)
        training = self.training.model_copy(update=steps.model_dump())
        net = build_for_table(training, self.prepared, self.encoding, self.class_weights)
        net = net.to(data.train.device).to(self.encoding.mean.dtype)
        whitened = Whitened(
            optimizer(training, net, 0.0, self.way.momentum),
            net,
            side_by_side.beside(self._steps, inputs, steps, len(data.train)),  # while the first minibatch is drawn
            self.num_slots,
            weight_decay * rules.loss_factor(training),
        )
        rates = learning_rates(training.schedule, steps.lr, steps.num_epochs)
        run_epoch: Epoch = one_step if self.way.is_whole else AveragedSteps(side_by_side.ahead)
        epochs = train(
            net, whitened, data.train, data.test, rates, steps.batch_size, self.generator, data.validation, run_epoch
        )
        if self.training.num_epochs is None:
            epochs = self._to_the_end(epochs, net, whitened, run_epoch, data.train, weight_decay)
        if training.patience:
            epochs = stop_early(epochs, net, training.patience)
        return Learning(net, epochs, training, len(data.train), len(data.validation or ()), self.num_slots)

    def _steps(self, inputs: Future[Moments], steps: Steps, num_rows: int) -> whitening.Steps:
        found = inputs.result()
        ridge = steps.weight_decay / rules.CURVATURE[self.training.loss]
        if not self.way.is_whole:
            ridge += rules.damping(found.spread, steps.batch_size, num_rows)
        inverse = found.inverse(ridge, len(self.encoding.numbers) + len(self.encoding.categories))
        return whitening.steps(found, inverse, self.encoding.frequencies, self.way.dtype)

    def _to_the_end(
        self,
        epochs: Iterator[Measured],
        net: Network,
        whitened: Whitened,
        run_epoch: Epoch,
        split: Examples,
        weight_decay: float,
    ) -> Iterator[Measured]:
        """As many epochs as it takes; after a pass of minibatches the objective is that of a sample of the rows."""
        if not isinstance(run_epoch, AveragedSteps):
            return until_converged(epochs, lambda: float(whitened.decrement()), rules.TOLERANCE)
        rows = self._sample(split, SCORES // max(1, len(self.prepared.class_names)))
        sample = side_by_side.beside(tables.kept, rows, True)  # while steps are taken
        objective = replace(self.objective, weight_decay=weight_decay)

        def value() -> float:
            learned = {name: each.detach().cpu().numpy() for name, each in net.weights().items()}
            return loss(net, sample.result(), objective) + objective.penalty(learned)

        def halfway() -> float:
            with run_epoch.at_halfway(net):
                return value()

        return until_settled(epochs, value, halfway, rules.SETTLED, rules.least_passes(len(split)))

    def _sample(self, split: Examples, size: int) -> Examples:
        if len(split) <= size:
            return split
        return split.at(torch.randint(len(split), (size,), generator=self.generator).to(split.device))


def begin(
    training: Training, prepared: PreparedDataset, recipe: Columns, generator: torch.Generator, device: torch.device
) -> Learning:
    """Read the table, find what was not given, build what learns it.

    Raises:
        UsageError: so few rows are left for training, or held out, that they say nothing.
        DataError: a file is missing or has changed since it was prepared.
    """
    way = way_of(training, prepared, recipe)
    table = tables.load(prepared, prepared.train, way.dtype).to(device)
    files = prepared.test, *([prepared.validation] if prepared.validation else [])
    test, *watched = (tables.load(prepared, file, way.dtype, table.encoding).to(device) for file in files)
    validation = watched[0] if watched else None
    require_validation(training, validation)
    if validation and training.validation:
        tell(f"the {len(validation)} rows that are named validation are watched, and no further share is held out")
    learner = learner_of(training, prepared, table.encoding, way, generator)
    cut = partial(tables.parts, prepared=prepared, table=table, test=test, validation=validation, is_whole=way.is_whole)
    decay = learner.objective.weight_decay
    if training.weight_decay == "auto":
        if validation is None:
            require_rows_to_choose(prepared.num_train, training.validation or rules.VALIDATION)
        decay = _best_decay(learner, cut(training.validation or rules.VALIDATION))
        tell(f"weight decay {decay:.3g} has the smallest validation loss")
    data = cut(training.validation)
    inputs = learner.moments(data.train)
    learning = learner.begin(data, inputs, decay)
    tell(_sentence(learning.training.steps, way), short="")
    is_known = way.is_whole and not decay and not len(inputs.result().variances)
    collinear = tables.determined(recipe, inputs.result()) if is_known else ()
    if collinear:
        tell(f"{', '.join(collinear)}: {tables.DETERMINED}")
    return learning._replace(epochs=in_raw_units(learning.epochs, recipe, prepared), collinear=collinear)


def way_of(training: Training, prepared: PreparedDataset, recipe: Columns) -> rules.Way:
    """Which way fits a table."""
    num_slots = sum(recipe.columns[at].num_slots for at in recipe.categories)
    return rules.way(training, prepared.num_train, len(recipe.numbers), num_slots, len(prepared.class_names))


def learner_of(
    training: Training, prepared: PreparedDataset, encoding: Encoding, way: rules.Way, generator: torch.Generator
) -> Learner:
    """What learns a table with this ``encoding``."""
    objective = replace(Objective.of(training, prepared), scale=1.0)
    of_classes = objective.class_weights
    class_weights = torch.tensor(of_classes, device=encoding.mean.device) if of_classes else None
    return Learner(training, prepared, encoding, way, objective, class_weights, generator)


def _sentence(steps: Steps, way: rules.Way) -> str:
    seen = "all rows a step" if way.is_whole else f"minibatches of {steps.batch_size}"
    how = f"learning rate {steps.lr:g}, weight decay {steps.weight_decay:.3g}, at most {steps.num_epochs} epochs"
    return f"{seen}, {how}"


def _best_decay(learner: Learner, data: Parts[Examples]) -> float:
    """The penalty of a short grid with the smallest loss, without penalty, on the validation part."""
    assert data.validation is not None  # noqa: S101  (the share is never 0)
    inputs, losses = learner.moments(data.train), {}
    for decay in rules.decays(learner.training.loss, learner.prepared.num_train):
        learning = learner.begin(data._replace(test=data.validation), inputs, decay)
        for _ in learning.epochs:
            pass
        losses[decay] = loss(learning.net, data.validation, learner.objective)
    return min(losses, key=lambda decay: losses[decay])


def loss(net: Network, examples: Examples, objective: Objective) -> float:
    """The mean loss, without the penalty."""
    scores = outputs(net, examples).cpu().numpy()
    return objective.mean(scores.reshape(len(scores), -1), examples.y.cpu().numpy())


def in_raw_units(epochs: Iterator[Measured], recipe: Columns, prepared: PreparedDataset) -> Iterator[Measured]:
    """Losses of a regression in squared units of the target, which training sees in its deviations."""
    unit = recipe.target.scale**2 if recipe.target and prepared.task == "regression" else 1.0
    for measured in epochs:
        yield Measured(*(each and each | {"loss": each["loss"] * unit} for each in measured))  # type: ignore[arg-type]
