"""How regressions on own data are measured, judged and drawn: in raw units, against best constant and converged fit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.recipe import Columns
from tasks.judging import figures, table_figures
from tasks.judging.bootstrap import intervals
from tasks.judging.candidate import Candidate
from tasks.judging.measures import Answers, in_time, of_numbers, regression_sums
from tasks.judging.own_classification import before_export as before_export
from tasks.judging.regression import CURVES as CURVES
from tasks.judging.regression import epoch as epoch
from tasks.machine.words import readable
from tasks.serving import folding
from tasks.serving.coefficients import largest
from tasks.store.artifact_paths import BY_PERIOD, COEFFICIENTS, PREDICTED_AND_TRUE, RESIDUALS
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

Array = NDArray[Any]


def measure(candidate: Candidate) -> dict[str, Any]:
    """R² and root mean squared error with 95 % intervals, coefficients, and the losses it is held against."""
    standards, recipe = candidate.held_against, candidate.prepared.recipe
    truth, residuals = candidate.test.y_true, candidate.test.y_true - candidate.scores[:, 0]
    between = intervals(regression_sums(truth, residuals), standards.clusters, of_numbers)
    measured = {
        "test_loss": float(np.square(residuals).mean()) / 2,
        **r2_and_rmse(truth, residuals),
        "r2_interval": between[:, 0].tolist(),
        "rmse_interval": between[:, 1].tolist(),
        "objective_loss": standards.mean(candidate.losses),
        **standards.metrics,
        **in_time(candidate.prepared, Answers(truth, candidate.scores[:, 0])),
    }
    if isinstance(recipe, Columns):
        folded = folding.fold(candidate.weights, recipe, np.float64)
        measured["weights"] = folding.coefficients(folded, recipe)[0]
        measured["bias"] = float(folding.intercepts(folded)[0])
    return measured


def r2_and_rmse(truth: Array, residuals: Array) -> dict[str, float]:
    """The share of the target's variance on the test split that is explained, and the root mean squared error."""
    r2, rmse, _ = of_numbers(regression_sums(truth, residuals).sum(axis=0))
    return {"r2": float(r2), "rmse": float(rmse)}


def sentence(measured: dict[str, Any]) -> str:
    """What was measured, in the log."""
    low, high = map(readable, measured["rmse_interval"])
    return (
        f"R² {measured['r2']:.4f}, root mean squared error {readable(measured['rmse'])} ({low} to {high}); "
        f"loss {readable(measured['objective_loss'])}, of the converged fit {readable(measured['reference_loss'])}, "
        f"of the best constant {readable(measured['baseline_loss'])}"
    )


def draw(candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
    """Coefficients, residuals, and predictions by the truth."""
    predicted, truth, recipe = candidate.scores[:, 0], candidate.test.y_true, candidate.prepared.recipe
    pictures = [
        table_figures.residuals(predicted, truth, run.file(RESIDUALS)),
        table_figures.predicted_and_true(predicted, truth, run.file(PREDICTED_AND_TRUE)),
    ]
    if periods := measured.get("periods"):
        pictures.append(table_figures.by_period(periods, "rmse", run.file(BY_PERIOD)))
    if isinstance(recipe, Columns) and (found := largest(measured, recipe)):
        unit = f"change of {figures.short(recipe.target.name) if recipe.target else 'the prediction'} with"
        pictures.insert(0, table_figures.coefficients(found, unit, run.file(COEFFICIENTS)))
    return tuple(pictures)
