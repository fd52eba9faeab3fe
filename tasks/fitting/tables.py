"""The model of a table: its shape and penalties by cross-validation, its weights fitted to all training rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from threadpoolctl import threadpool_limits

from tasks.data.prepared_splits import Arrays, Examples
from tasks.data.recipe import Columns, Shape
from tasks.data.schema import Schema
from tasks.data.statistics import fit_recipe
from tasks.fitting.cross_validation import (
    SHAPES,
    Candidate,
    Sample,
    assign_folds,
    average_losses,
    choose_shape,
    compare_losses,
)
from tasks.fitting.design import (
    GROUPS,
    PIECE_VALUES,
    Design,
    EncodedPieces,
    Inputs,
    JoinedRows,
    add_knots,
    spread_penalties,
)
from tasks.fitting.objective import Objective
from tasks.fitting.solver import TOLERANCE, Fit, Problem, fit
from tasks.machine.arrays import Array
from tasks.parameters import Loss
from tasks.serving import raw_units

MAX_ROWS = 100_000  # by which penalties and shapes are compared
MAX_SCORES = 200_000  # the same for many classes
CONFIDENT = 1.645  # standard errors: one-sided 95 %
MAX_RESIDENT = 16 * PIECE_VALUES  # inputs that stay in memory while weights are fitted


Function = TypeVar("Function", bound=Callable[..., Any])


def use_one_thread(function: Function) -> Function:
    """Run it with one thread of BLAS.

    The solver's matrices are small: more threads wait for one another in busy loops, which takes several times the
    processor time where other processes run too.
    """
    return cast("Function", threadpool_limits.wrap(limits=1, user_api="blas")(function))


class FitOptions(NamedTuple):
    """What a user or an earlier version fixed, and whether rows were split by time."""

    shape: Shape | None = None  # None: the simplest that is as good as the best
    kept_shape: Shape | None = None  # of the champion, which is taken instead where today's columns allow it
    weight_decay: float | None = None  # None: chosen for each group
    is_by_time: bool = False


@dataclass(frozen=True)
class Comparison:
    """The cross-validated loss of each shape, and of the best constant, in the objective's units."""

    chosen: Candidate
    simplest: Shape  # of those as good as the best; another one is chosen if a shape was fixed
    losses: dict[Shape, float]
    null_loss: float
    is_better: bool  # whether the chosen shape's loss is smaller than the constant's, by more than chance


@dataclass(frozen=True)
class FittedTable:
    """Weights as ``raw_units`` names them, for the recipe with the chosen shape's knots and pairs."""

    recipe: Columns
    weights: dict[str, Array]
    penalties: dict[str, float]  # by group, of the mean loss
    gradient: float  # its norm at the weights, as a share of that at zero weights
    comparison: Comparison | None = None


def choose_rows(keys: Array, most: int, is_by_time: bool) -> Array:
    """The indices of at most ``most`` rows, in order.

    They are the first rows by key; where the split is by time, the oldest would be no sample, and rows are evenly
    spread.
    """
    if len(keys) <= most:
        return np.arange(len(keys))
    if is_by_time:
        in_order = np.argsort(keys, kind="stable")
        return np.sort(in_order[np.linspace(0, len(keys) - 1, most).astype(np.int64)])
    return np.sort(np.argpartition(keys, most)[:most])


def scale_target(y_true: Array, recipe: Columns, objective: Objective) -> tuple[Array, Objective]:
    """The truth, a number in deviations from its mean, and the objective in these units."""
    if objective.is_of_classes:
        return y_true, objective
    target = recipe.target_scaling
    return (y_true.astype(np.float64) - target.mean) / target.scale, replace(objective, scale=1.0)


@use_one_thread
def compare_shapes(
    train: Examples, recipe: Columns, objective: Objective, num_outputs: int, options: FitOptions
) -> Comparison:
    """Cross-validate the shapes up to the given one, and choose among them."""
    rows = choose_rows(train.key, min(MAX_ROWS, MAX_SCORES // num_outputs), options.is_by_time)
    y_true, unscaled = scale_target(train.y_true[rows], recipe, objective)
    sample = Sample(
        features=train.inputs[rows],
        y_true=y_true,
        folds=assign_folds(train.key[rows], options.is_by_time),
        objective=unscaled,
        num_outputs=num_outputs,
        weight_decay=options.weight_decay,
    )
    candidates = [*sample.list_candidates(recipe, options.shape or SHAPES[-1])]
    row_weights = unscaled.row_weights(y_true)
    simplest = choose_shape(candidates, row_weights)
    kept = [candidate for candidate in candidates if candidate.shape == options.kept_shape]
    chosen = candidates[-1] if options.shape else (*kept, simplest)[0]
    shrinkage = len(rows) / len(train.y_true)  # the same penalties of the sum of losses
    if options.weight_decay is None:
        chosen = chosen._replace(penalties={name: penalty * shrinkage for name, penalty in chosen.penalties.items()})
    null_losses = list_null_losses(sample)
    gain, error = compare_losses(null_losses, chosen.losses, row_weights)
    unit = objective.scale**2
    return Comparison(
        chosen=chosen,
        simplest=simplest.shape,
        losses={shape: average_losses(losses, row_weights) * unit for shape, _, _, losses in candidates},
        null_loss=average_losses(null_losses, row_weights) * unit,
        is_better=gain > CONFIDENT * error,
    )


def list_null_losses(sample: Sample) -> Array:
    """The loss of each row that is predicted by the best constant of the other folds, NaN of others, ``(n,)``."""
    bare = Inputs.from_numbers(np.empty((len(sample.y_true), 0)))
    losses = np.full(len(sample.y_true), np.nan)
    for fitted, predicted in sample.folds.split():
        problem = Problem(bare.select(fitted), sample.y_true[fitted], sample.objective, sample.num_outputs)
        scores = np.repeat(problem.minimise(np.empty(0)).weights, np.count_nonzero(predicted), axis=0)
        losses[predicted] = sample.objective.losses(scores, sample.y_true[predicted])
    return losses


@use_one_thread
def fit_weights(
    features: Array | JoinedRows,
    y_true: Array,
    recipe: Columns,
    num_outputs: int,
    objective: Objective,
    penalties: Array | float,
    tolerance: float = TOLERANCE,
) -> tuple[Fit, dict[str, Array]]:
    """Fit a recipe's weights to raw rows ``(n, columns)`` with the penalties of its inputs, or one for all.

    The target of a regression is in its own units.
    """
    design = Design(recipe)
    penalties = np.broadcast_to(np.asarray(penalties, np.float64), design.groups.shape)
    scaled, unscaled = scale_target(y_true, recipe, objective)
    is_resident = len(features) * (len(penalties) + 1) <= MAX_RESIDENT
    inputs = design.encode(features[:]) if is_resident else EncodedPieces(features, design)
    problem = Problem(inputs, scaled, unscaled, num_outputs)
    result = fit(problem, penalties, tolerance=tolerance)
    means = average_inputs(inputs)
    return result, design.name_weights(result.weights, means)


def average_inputs(inputs: Inputs | EncodedPieces) -> Array:
    """The mean of each input ``(inputs,)``."""
    total: Array | float = 0.0
    for _, piece in inputs.pieces():
        total = total + piece.multiply_transposed(np.ones((len(piece), 1)))
    return np.asarray(total)[:-1, 0] / len(inputs)


@use_one_thread
def fit_table(
    train: Examples, recipe: Columns, objective: Objective, num_outputs: int, options: FitOptions
) -> FittedTable:
    """Choose shape and penalties by cross-validation, and fit the weights to all training rows."""
    comparison = None
    if options.weight_decay is not None and options.shape in ("linear", "curves"):
        recipe = add_knots(recipe, train.inputs) if options.shape == "curves" else recipe
        recipe = recipe.model_copy(update={"shape": options.shape})
        penalties = dict.fromkeys(GROUPS, options.weight_decay)
    else:
        comparison = compare_shapes(train, recipe, objective, num_outputs, options)
        recipe, penalties = comparison.chosen.recipe, dict(comparison.chosen.penalties)
    groups = Design(recipe).groups
    spread = spread_penalties(penalties, groups)
    result, weights = fit_weights(train.inputs, train.y_true, recipe, num_outputs, objective, spread)
    used = {GROUPS[at]: penalties[GROUPS[at]] for at in np.unique(groups)}
    return FittedTable(recipe, weights, used, result.gradient, comparison)


def refit_table(
    fitted: FittedTable, parts: Sequence[Examples], objective: Objective, num_outputs: int, options: FitOptions
) -> FittedTable:
    """Fit only the weights once more, to the rows of all ``parts``, of which the first is the training part.

    Penalties that were cross-validated stay the same of the sum of losses, one that was given of their mean.
    """
    features = JoinedRows([part.inputs for part in parts])
    y_true = np.concatenate([part.y_true for part in parts])
    share = len(parts[0].y_true) / len(y_true) if options.weight_decay is None else 1.0
    penalties = {name: penalty * share for name, penalty in fitted.penalties.items()}
    spread = spread_penalties(penalties, Design(fitted.recipe).groups)
    result, weights = fit_weights(features, y_true, fitted.recipe, num_outputs, objective, spread)
    means = {name: values for name, values in fitted.weights.items() if name.endswith("_means")}  # as the recipe's
    return replace(fitted, weights=weights | means, penalties=penalties, gradient=result.gradient)


def measure_training(fitted: FittedTable, train: Examples, objective: Objective) -> dict[str, float]:
    """The mean loss on the training rows, of which all count alike, and of classes the accuracy."""
    plain = Objective(Loss.CROSS_ENTROPY if objective.is_of_classes else Loss.SQUARED)
    folded = raw_units.fold_weights(fitted.weights, fitted.recipe, np.float64)
    loss, num_right, size = 0.0, 0, PIECE_VALUES // (len(fitted.recipe.columns) + 1)
    for start in range(0, len(train.y_true), size):
        y_true = train.y_true[start : start + size]
        scores = raw_units.score_table(folded, fitted.recipe, train.inputs[start : start + size])
        loss += float(plain.losses(scores, y_true).sum())
        num_right += int((scores.argmax(axis=1) == y_true).sum())
    measured = {"train_loss": loss / len(train.y_true)}
    return measured | ({"train_accuracy": num_right / len(train.y_true)} if objective.is_of_classes else {})


def expect_losses(schema: Schema, train: Arrays, class_weight: str, options: FitOptions) -> Comparison:
    """What a retrain would choose, by the training rows alone."""
    recipe = cast("Columns", fit_recipe(schema.recipe, train))
    rows = Examples.from_arrays(train, recipe, schema.task)
    counts = tuple(np.bincount(rows.y_true, minlength=len(schema.class_names)).tolist()) if schema.class_names else ()
    loss = Loss.CROSS_ENTROPY if counts else Loss.SQUARED
    objective = Objective.build(loss, options.weight_decay, len(rows.y_true), class_weight, counts, recipe)
    return compare_shapes(rows, recipe, objective, max(1, len(counts)), options)
