"""What learns a user's own table: its rows read, and what nobody said found by rules."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from tasks.data.recipe import Columns
from tasks.fitting import rules, tables
from tasks.fitting.learning import Learning, Parts, require_rows_to_choose, require_validation
from tasks.fitting.table_learner import Learner, loss
from tasks.judging.objective import Objective
from tasks.machine.telling import tell
from tasks.networks.examples import Examples
from tasks.networks.tabular import Encoding
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


def in_raw_units(epochs: Iterator[Measured], recipe: Columns, prepared: PreparedDataset) -> Iterator[Measured]:
    """Losses of a regression in squared units of the target, which training sees in its deviations."""
    unit = recipe.target.scale**2 if recipe.target and prepared.task == "regression" else 1.0
    for measured in epochs:
        yield Measured(*(each and each | {"loss": each["loss"] * unit} for each in measured))  # type: ignore[arg-type]
