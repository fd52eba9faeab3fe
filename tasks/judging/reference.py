"""The fit that no training beats: the same objective, minimised until it has converged, in numpy and scipy.

``inspect`` shows it before anything is trained, and a trained model of own tables may not be much worse.
"""

from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from tasks.data.recipe import Columns, Target
from tasks.judging.inputs import Inputs
from tasks.judging.objective import HUBER_BETA, Objective
from tasks.machine.arrays import Array
from tasks.machine.words import counted
from tasks.parameters import Loss

MAX_ROWS = 100_000
MAX_VALUES = 40_000_000  # of the standardised numbers, and of the scores: bounds memory
CLOSED_FORM_WIDTH = 2_500  # weights up to which a Gram matrix is decomposed in seconds
COLLINEAR = 1e-5  # singular values smaller than this share of the largest count as none
TOLERANCE = 1e-4  # of the gradient's norm at zero weights
MAX_ITERATIONS = 2_000


class Reference(NamedTuple):
    """A converged fit: weights as ``records.TrainedModel`` has them, in float64."""

    weights: dict[str, Array]
    num_rows: int
    gradient: float  # its norm as a share of that at zero weights

    @property
    def described(self) -> str:
        """What it is, said as it is."""
        if self.gradient <= TOLERANCE:
            return f"converged fit to {counted(self.num_rows, 'row')}"
        return (
            f"fit to {counted(self.num_rows, 'row')} that has not converged (gradient {self.gradient:.1g} of the first)"
        )


class Multiplied(Protocol):
    """What weights are multiplied with, of ``n`` rows."""

    def scores(self, weights: Array) -> Array:
        """Of ``weights`` ``(inputs + 1, outputs)``, of which the last are the bias: ``(n, outputs)``."""

    def transposed(self, rows: Array) -> Array:
        """The inputs, and a last one of ones, times ``rows`` ``(n, outputs)``: ``(inputs + 1, outputs)``."""


def most_rows(recipe: Columns, num_outputs: int) -> int:
    """How many training rows the reference is fitted to, at most."""
    return min(MAX_ROWS, MAX_VALUES // max(len(recipe.numbers), num_outputs))


def fit(features: Array, truth: Array, recipe: Columns, num_outputs: int, objective: Objective) -> Reference:
    """Minimise ``objective`` over training rows: raw ``(n, columns)``, and labels or a raw target ``(n,)``.

    Of minimum norm where the loss is squared and columns are collinear: in closed form where the matrix is small, else
    by conjugate gradients. Another loss by L-BFGS.
    """
    inputs, target = Inputs.of(features, recipe), recipe.target
    if objective.loss is not Loss.CROSS_ENTROPY:
        truth = _standardised(truth, target)
    objective = replace(objective, scale=1.0)
    start = np.zeros((inputs.shape[1] + 1, num_outputs))
    if objective.loss is Loss.SQUARED:
        solve = _closed_form if inputs.shape[1] <= CLOSED_FORM_WIDTH else _conjugated
        weights = solve(inputs, truth, objective)
    else:
        weights = descended(start, inputs, truth, objective, MAX_ITERATIONS)
    left = left_of_slope(weights, start, inputs, truth, objective)
    count = inputs.numbers.shape[1]
    return Reference({"W": weights[:count], "effects": weights[count:-1], "b": weights[-1]}, len(truth), left)


def left_of_slope(weights: Array, start: Array, inputs: Multiplied, truth: Array, objective: Objective) -> float:
    """The gradient's norm as a share of that at the ``start``."""
    left, slope = (float(np.linalg.norm(_value(each, inputs, truth, objective)[1])) for each in (weights, start))
    return left / slope if slope else 0.0


def _standardised(truth: Array, target: Target | None) -> Array:
    return (truth - target.mean) / target.scale if target else truth


def _value(weights: Array, inputs: Multiplied, truth: Array, objective: Objective) -> tuple[float, Array]:
    """The objective and its gradient."""
    loss, slopes = objective.mean_and_gradient(inputs.scores(weights), truth)
    gradient = inputs.transposed(slopes)
    gradient[:-1] += objective.weight_decay * weights[:-1]
    return loss + objective.penalty({"": weights[:-1]}), gradient


def _closed_form(inputs: Inputs, truth: Array, objective: Objective) -> Array:
    """The least squares, by the covariance's eigenvalues; the bias takes no part in norm and penalty."""
    covariance, mean = inputs.covariance()
    values, vectors = np.linalg.eigh(covariance)
    rows, centre = truth[:, None], truth.mean()
    products = inputs.transposed(rows - centre)[:-1] / len(rows)
    kept = values > COLLINEAR**2 * values.max(initial=0.0)
    weights = vectors[:, kept] @ (vectors[:, kept].T @ products / (values[kept] + objective.weight_decay)[:, None])
    return np.concatenate([weights, centre - mean @ weights[None]])


def _conjugated(inputs: Inputs, truth: Array, objective: Objective) -> Array:
    """The least squares by conjugate gradients, whose residual is the objective's gradient; the bias is set apart."""
    from scipy.sparse.linalg import LinearOperator, cg

    rows, centre = truth[:, None], truth.mean()

    def scores(weights: Array) -> Array:
        return inputs.scores(np.append(weights, 0.0)[:, None])

    def slopes(weights: Array) -> Array:
        found = scores(weights)
        return inputs.transposed(found - found.mean())[:-1, 0] / len(rows) + objective.weight_decay * weights

    width = inputs.shape[1]
    products = inputs.transposed(rows - centre)[:-1, 0] / len(rows)
    operator = LinearOperator((width, width), matvec=slopes, dtype=np.float64)
    weights, _ = cg(operator, products, rtol=TOLERANCE / 2, maxiter=MAX_ITERATIONS)
    return np.append(weights, centre - scores(weights).mean())[:, None]


def descended(start: Array, inputs: Multiplied, truth: Array, objective: Objective, max_iterations: int) -> Array:
    """L-BFGS from ``start`` until the gradient's norm is at most ``TOLERANCE`` of what it is there; shaped like it."""
    import scipy.optimize

    shape, slope = start.shape, float(np.linalg.norm(_value(start, inputs, truth, objective)[1]))

    def value(flat: Array) -> tuple[float, Array]:
        loss, gradient = _value(flat.reshape(shape), inputs, truth, objective)
        return loss, gradient.ravel()

    gtol = TOLERANCE * slope / np.sqrt(start.size)
    options = {"gtol": gtol, "ftol": 0.0, "maxiter": max_iterations, "maxcor": 20}
    found = scipy.optimize.minimize(value, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x.reshape(shape))


def constant(truth: Array, target: Target | None, class_counts: tuple[int, ...], objective: Objective) -> Array:
    """The scores ``(outputs,)`` that are best for every row alike: frequencies, mean, or the Huber loss's middle."""
    if objective.loss is Loss.CROSS_ENTROPY:
        counts = np.array(class_counts, np.float64) * np.array(objective.class_weights or 1.0)
        return np.asarray(np.log(np.maximum(counts, 0.5)))
    if objective.loss is Loss.SQUARED:
        return np.array([target.mean if target else truth.mean()])
    import scipy.optimize

    start = np.median(truth)
    deviations = (truth - start) / objective.scale  # whose size suits brentq's tolerance, whatever the target's unit
    middle = scipy.optimize.brentq(
        lambda at: np.clip(at - deviations, -HUBER_BETA, HUBER_BETA).mean(), deviations.min(), deviations.max()
    )
    return np.array([start + middle * objective.scale])
