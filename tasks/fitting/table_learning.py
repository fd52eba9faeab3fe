"""What learns a user's own table: its rows read, and what nobody said found by rules."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from tasks.data.recipe import Columns
from tasks.fitting import devices, rules, tables
from tasks.fitting.learning import Learning, Parts, require_rows_to_choose, require_validation
from tasks.fitting.table_learner import Learner, loss
from tasks.judging.objective import Objective
from tasks.machine.telling import tell
from tasks.networks.tables import Encoding, Table
from tasks.networks.training import Measured
from tasks.parameters import Steps, Training
from tasks.records import PreparedDataset


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
    decay = learner.objective.weight_decay
    if training.weight_decay == "auto":
        decay = _choose_weight_decay(training, prepared, device)
        tell(f"weight decay {decay:.3g} has the smallest validation loss")
    data = tables.parts(training.validation, prepared, table, test, validation, way.is_whole)
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


def validation_losses(
    training: Training, prepared: PreparedDataset, fitted: Table, validation: Table, generator: torch.Generator
) -> Iterator[float]:
    """Train on ``fitted`` and say after each epoch what the loss on ``validation`` is, without the penalty.

    By class weights if there are any; of a regression half the mean squared error, in the target's units.
    """
    recipe = prepared.recipe
    assert isinstance(recipe, Columns)  # noqa: S101  (of tables)
    way = way_of(training, prepared, recipe)
    learner = learner_of(training, prepared, fitted.encoding.to(way.dtype), way, generator)
    train, held_out = (tables.kept(each.in_precision(way.dtype), way.is_whole) for each in (fitted, validation))
    learning = learner.begin(Parts(train, None, held_out), learner.moments(train), learner.objective.weight_decay)
    for measured in in_raw_units(learning.epochs, recipe, prepared):
        weighted = learner.objective.class_weights
        yield loss(learning.net, held_out, learner.objective) if weighted else measured.test["loss"]


def _choose_weight_decay(training: Training, prepared: PreparedDataset, device: torch.device) -> float:
    """The penalty of a short grid with the smallest loss on a validation part; each sees the rows in the same order."""
    share, losses = training.validation or rules.VALIDATION, dict[float, float]()
    if prepared.validation is None:
        require_rows_to_choose(prepared.num_train, share)
    refitted, fitted, validation = tables.split_validation(prepared, share, torch.float64, device)
    for decay in rules.decays(training.loss, prepared.num_train):
        candidate = training.model_copy(update={"weight_decay": decay, "patience": None})
        with devices.seeded(device, training.seed_number) as generator:
            *_, losses[decay] = validation_losses(candidate, refitted, fitted, validation, generator)
    return min(losses, key=lambda decay: losses[decay])


def in_raw_units(epochs: Iterator[Measured], recipe: Columns, prepared: PreparedDataset) -> Iterator[Measured]:
    """Losses of a regression in squared units of the target, which training sees in its deviations."""
    unit = recipe.target.scale**2 if recipe.target and prepared.task == "regression" else 1.0
    for measured in epochs:
        yield Measured(*(each and each | {"loss": each["loss"] * unit} for each in measured))  # type: ignore[arg-type]
