"""An exported file asked for every row of the test split: whether it is right, and what it says."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.prepared_splits import BATCH_ROWS, read_batches
from tasks.data.recipe import Columns
from tasks.fitting import served
from tasks.judging.parity import PARITY
from tasks.machine.arrays import Array
from tasks.parameters import Gates
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import drift, folding, sessions
from tasks.serving.profile import Histogram
from tasks.serving.task import TASKS

Weights = Mapping[str, NDArray[np.float32]]
SCORES = 2**22  # that are compared at a time, of many classes: 16 MB
IN_FLOAT64 = 10  # times the error that torch is allowed: float32 rounds raw rows before anything is computed of them
SMALL_OFFSET = 10  # deviations of a column, which cost float32 one digit
LARGE_WEIGHT = 100  # of a standardised column: target deviations, or logits


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity pass no gate
def against_torch(
    session: Any, weights: Weights, prepared: PreparedDataset, bounds: Gates
) -> tuple[tuple[GateVerdict, ...], dict[str, Histogram]]:
    """The gate ``parity``: torch on the same float32 rows; and the profile of the answers."""
    task, parity = TASKS[prepared.task], PARITY[prepared.task]()
    truth, watched, num_levels = [], [], {}
    size = min(BATCH_ROWS, SCORES // max(1, len(prepared.class_names)))
    for rows in read_batches(prepared.test, prepared, size):
        answers = sessions.answers(session, rows.inputs)
        parity.add(answers, served.scores(weights, prepared.recipe, rows.inputs))
        outputs = {name: values.T for name, values in answers.items()}
        truth.append(rows.y_true)
        watched.append(task.observed(outputs))
        num_levels = task.num_levels(outputs)
    observed = {name: np.concatenate([each[name] for each in watched]) for name in watched[0]}
    deviation = _deviation(prepared, np.concatenate(truth))
    return parity.verdicts("parity", bounds.max_parity_error, deviation), drift.reference(observed, num_levels)


@np.errstate(over="ignore", invalid="ignore")
def in_float64(session: Any, weights: Weights, prepared: PreparedDataset, bounds: Gates) -> tuple[GateVerdict, ...]:
    """The gate ``parity_float64`` of tables: their recipe and weights in float64 on the raw rows, before any rounding.

    Where it refuses, it names the column that loses most.
    """
    recipe = prepared.recipe
    if not isinstance(recipe, Columns) or recipe.target is None:
        return ()
    exact, parity = folding.fold(weights, recipe, np.float64), PARITY[prepared.task]()
    for rows in read_batches(prepared.raw_test, prepared):
        found = sessions.answers(session, recipe.encode(rows.inputs))
        parity.add(found, folding.scores(exact, recipe, rows.inputs.astype(np.float64, copy=False)))
    judged = ("parity_float64", IN_FLOAT64 * bounds.max_parity_error, recipe.target.scale)
    verdicts = parity.verdicts(*judged, detail=", the recipe applied in float64")
    if all(verdict.passed for verdict in verdicts) or not recipe.numbers:
        return verdicts
    return parity.verdicts(*judged, detail=_advice(weights, recipe, _to_blame(weights, prepared, recipe)))


def _advice(weights: Weights, recipe: Columns, at: int) -> str:
    """What to do about the number ``at``: of a column without an offset, a large weight says that others cancel it."""
    column = recipe.columns[recipe.numbers[at]]
    name, found = column.name, f"; column {column.name!r} loses most in float32"
    if abs(column.mean or 0.0) < SMALL_OFFSET * column.scale and np.abs(weights["W"][at]).max() > LARGE_WEIGHT:
        return f"{found}, nearly determined by other columns: --ignore one of them, or --weight-decay"
    return f"{found}: subtract an offset, change its unit, or --ignore {name!r}"


def _deviation(prepared: PreparedDataset, truth: Array) -> float:
    """Of the target: an own table's recipe knows it."""
    if isinstance(prepared.recipe, Columns) and prepared.recipe.target is not None:
        return prepared.recipe.target.scale
    return float(truth.std(ddof=1, dtype=np.float64))


def _to_blame(weights: Weights, prepared: PreparedDataset, recipe: Columns) -> int:
    """The number, by its place among them, whose term of the largest score float32 changes most."""
    folded = [folding.fold(weights, recipe, dtype) for dtype in (np.float32, np.float64)]
    output = np.abs(folded[1].W).argmax(axis=1)
    lost = np.zeros(len(recipe.numbers))
    for rows in read_batches(prepared.raw_test, prepared):
        raw = rows.inputs[:, list(recipe.numbers)]
        rough, exact = (
            (raw.astype(each.mean.dtype) - each.mean) * each.W[np.arange(len(output)), output] for each in folded
        )
        lost = np.maximum(lost, np.nan_to_num(np.abs(rough - exact), nan=0.0).max(axis=0))
    return int(lost.argmax())
