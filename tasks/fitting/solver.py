"""Weights that minimise a mean loss plus a ridge penalty: in closed form for least squares, by L-BFGS otherwise.

All weights are ``(inputs + 1, outputs)`` float64, the bias last; ``penalties`` ``(inputs,)`` are those of each input,
in units of the mean loss: half of a penalty times the squared weight is added. The bias has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
import scipy.linalg
import scipy.optimize

from tasks.fitting.design import EncodedPieces, Inputs
from tasks.fitting.objective import Objective
from tasks.machine.arrays import Array
from tasks.parameters import Loss

COLLINEAR = 1e-5  # singular values below this share of the largest count as zero
DENSE_INPUTS = 2_500  # inputs up to which second moments are factored, in a second
NEWTON_WEIGHTS = 1_500  # up to which a Hessian is factored in a moment
MAX_ITERATIONS = 2_000
MAX_NEWTON_STEPS = 50
TOLERANCE = 1e-7  # of the gradient's norm, as a share of that at zero weights


# Least squares


@dataclass(frozen=True)
class Moments:
    """The sums of products of rows ``(inputs, 1, target)``, ``(inputs + 2, inputs + 2)``: all that squares need."""

    sums: Array

    @classmethod
    def measure(cls, inputs: Inputs | EncodedPieces, y_true: Array) -> Self:
        """Those of all rows, for a target ``(n,)``."""
        total: Array | float = 0.0
        for rows, piece in inputs.pieces():
            own = y_true[rows, np.newaxis]
            gains = piece.multiply_transposed(own)
            sums = np.block([[piece.second_moments(), gains], [gains.T, own.T @ own]])
            total = total + sums
        return cls(np.asarray(total))

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.sums - other.sums)

    @property
    def num_rows(self) -> float:
        """How many rows were added up."""
        return float(self.sums[-2, -2])

    @property
    def means(self) -> Array:
        """The means of the inputs ``(inputs,)``."""
        return np.asarray(self.sums[:-2, -2] / self.num_rows)

    def center(self) -> tuple[Array, Array]:
        """The covariance ``(inputs, inputs)`` of the inputs, and that ``(inputs, 1)`` with the target."""
        means = np.append(self.means, self.sums[-1, -2] / self.num_rows)
        places = np.r_[: len(means) - 1, len(means)]
        covariance = self.sums[np.ix_(places, places)] / self.num_rows - np.outer(means, means)
        return covariance[:-1, :-1], covariance[:-1, -1:]

    def solve(self, penalties: Array) -> Array:
        """The weights ``(inputs + 1, 1)`` of least squares; without a penalty, those of minimum norm."""
        covariance, gains = self.center()
        penalised = covariance + np.diag(penalties)
        try:
            factor = scipy.linalg.cho_factor(penalised, lower=True, check_finite=False)
            is_determined = float(np.diag(factor[0]).min()) > COLLINEAR * float(np.diag(factor[0]).max())
        except np.linalg.LinAlgError:
            is_determined = False
        if is_determined:
            weights = scipy.linalg.cho_solve(factor, gains, check_finite=False)
        else:
            weights = np.linalg.pinv(penalised, COLLINEAR**2, hermitian=True) @ gains
        bias = self.sums[-1, -2] / self.num_rows - self.means @ weights
        return np.concatenate([weights, bias[np.newaxis]])

    def mean_loss(self, weights: Array) -> float:
        """Half the mean squared error of weights ``(inputs + 1, 1)`` on these rows."""
        errors = np.append(weights, -1.0)
        return float(max(0.0, errors @ self.sums @ errors) / (2 * self.num_rows))


# Any convex loss


class Coordinates(Protocol):
    """Where a descent takes few steps, however collinear or rare the inputs are."""

    def find_weights(self, coordinates: Array) -> Array:
        """The weights at ``coordinates`` of the same shape."""

    def find_gradient(self, gradient: Array) -> Array:
        """The gradient by the coordinates, from that by the weights."""

    def find_coordinates(self, weights: Array) -> Array:
        """The coordinates of ``weights``."""


@dataclass(frozen=True)
class Whitening:
    """The weights times the transposed Cholesky factor of the inputs' second moments.

    A row has one entry in each block of indicators, so that a block's own moments are a diagonal, and those of the
    widest block are never dense. If the other inputs are still too many, more blocks become diagonals; times their
    number, these are an upper bound.
    """

    slots: Array  # the inputs that are a diagonal
    others: Array  # all other inputs, bias included
    scale: Array  # (slots, 1): the factor's diagonal
    coupling: Array  # (others, slots): the factor's rows of the others
    factor: Array  # (others, others): the factor's last block, lower triangular

    @classmethod
    def from_inputs(cls, inputs: Inputs, penalties: Array, curvature: float) -> Self:
        """Factor the moments times the loss's mean ``curvature``, plus the penalties and a tiny ridge."""
        num_rows, num_numbers = inputs.numbers.shape
        widths = np.array(inputs.widths, np.int64)
        by_width = np.argsort(-widths, kind="stable")
        remaining = num_numbers + widths.sum() - np.cumsum(widths[by_width])
        diagonal = by_width[: 1 + np.count_nonzero(remaining > DENSE_INPUTS)]
        is_diagonal = np.isin(np.repeat(np.arange(len(widths)), widths), diagonal)
        indicators = inputs.indicators[:, is_diagonal]
        others = Inputs(inputs.numbers, inputs.indicators[:, ~is_diagonal])
        moments = others.second_moments() * (curvature / num_rows)
        squares = np.asarray(indicators.multiply(indicators).sum(axis=0)).ravel()
        squares = squares * (len(diagonal) * curvature / num_rows)
        ridge = COLLINEAR**2 * (np.trace(moments) + squares.sum())
        slots = num_numbers + np.flatnonzero(is_diagonal)
        places = np.delete(np.arange(num_numbers + len(is_diagonal) + 1), slots)
        scale = np.sqrt(squares + penalties[slots] + ridge)
        coupling = others.multiply_indicators(indicators) * (curvature / num_rows) / scale
        moments += np.diag(np.append(penalties[places[:-1]], 0.0) + ridge)
        return cls(
            slots=slots,
            others=places,
            scale=scale[:, np.newaxis],
            coupling=coupling,
            factor=np.linalg.cholesky(moments - coupling @ coupling.T),
        )

    def find_weights(self, coordinates: Array) -> Array:
        """The weights ``(inputs + 1, outputs)`` at ``coordinates`` of the same shape."""
        weights, count = np.empty_like(coordinates), len(self.slots)
        weights[self.others] = scipy.linalg.solve_triangular(
            self.factor, coordinates[count:], lower=True, trans="T", check_finite=False
        )
        weights[self.slots] = (coordinates[:count] - self.coupling.T @ weights[self.others]) / self.scale
        return weights

    def find_gradient(self, gradient: Array) -> Array:
        """The gradient by the coordinates, from that by the weights."""
        slots = gradient[self.slots] / self.scale
        others = gradient[self.others] - self.coupling @ slots
        solved = scipy.linalg.solve_triangular(self.factor, others, lower=True, check_finite=False)
        return np.concatenate([slots, solved])

    def find_coordinates(self, weights: Array) -> Array:
        """The coordinates of ``weights``."""
        others = weights[self.others]
        return np.concatenate([self.scale * weights[self.slots] + self.coupling.T @ others, self.factor.T @ others])


class Fit(NamedTuple):
    """The weights of a minimum, and the norm of the gradient there as a share of that at zero weights."""

    weights: Array
    gradient: float


@dataclass(frozen=True)
class Problem:
    """A mean loss of rows, to which penalties are added. Two classes have one output: half the log odds, with signs.

    The penalty of that output is twice the sum of those of the two weight vectors, which differ only in sign.
    """

    inputs: Inputs | EncodedPieces
    y_true: Array
    objective: Objective
    num_outputs: int

    @property
    def has_two_classes(self) -> bool:
        """Whether one output stands for the scores of both classes."""
        return self.objective.is_of_classes and self.num_outputs == 2

    @property
    def width(self) -> int:
        """The number of outputs that are searched for."""
        return 1 if self.has_two_classes else self.num_outputs

    def reduce(self, weights: Array) -> Array:
        """The searched weights of given ones ``(inputs + 1, outputs)``."""
        return weights[:, 1:] if self.has_two_classes else weights

    def expand(self, weights: Array) -> Array:
        """The weights of all outputs."""
        return np.concatenate([-weights, weights], axis=1) if self.has_two_classes else weights

    @property
    def curvature(self) -> float:
        """The mean second derivative of the loss by a searched output, where every score is that of the frequencies."""
        if not self.objective.is_of_classes:
            return 1.0 if self.objective.loss is Loss.SQUARED else 1.5
        row_weights = self.objective.row_weights(self.y_true)
        shares = np.bincount(self.y_true, row_weights, self.num_outputs) / row_weights.sum()
        mean = float(np.mean(shares * (1 - shares)))
        return max(4 * mean if self.has_two_classes else mean, 1e-3)

    def evaluate(self, weights: Array, penalties: Array) -> tuple[float, Array]:
        """The objective, and its gradient ``(inputs + 1, width)``."""
        loss, gradient, total = 0.0, np.zeros_like(weights), 0.0
        for rows, piece in self.inputs.pieces():
            scores = self.expand(piece.scores(weights))
            own, slopes, weight = self.objective.sum_and_gradient(scores, self.y_true[rows])
            if self.has_two_classes:
                slopes = slopes[:, 1:] - slopes[:, :1]
            loss += own
            total += weight
            gradient += piece.multiply_transposed(slopes)
        loss, gradient = loss / total, gradient / total
        penalised = penalties[:, np.newaxis] * weights[:-1]
        if self.has_two_classes:
            penalised *= 2
        gradient[:-1] += penalised
        return loss + float((penalised * weights[:-1]).sum()) / 2, gradient

    def minimise(
        self,
        penalties: Array,
        start: Array | None = None,
        coordinates: Coordinates | None = None,
        tolerance: float = TOLERANCE,
        max_iterations: int | None = None,
    ) -> Fit:
        """Descend from ``start``, or from zero weights, until the gradient's norm is ``tolerance`` of that at zero."""
        zero = np.zeros((len(penalties) + 1, self.width))
        first = float(np.linalg.norm(self.evaluate(zero, penalties)[1]))
        weights = zero if start is None else self.reduce(start)
        if first == 0:
            return Fit(self.expand(zero), 0.0)

        def evaluate(flat: Array) -> tuple[float, Array]:
            shaped = flat.reshape(zero.shape)
            at = coordinates.find_weights(shaped) if coordinates else shaped
            loss, gradient = self.evaluate(at, penalties)
            return loss, (coordinates.find_gradient(gradient) if coordinates else gradient).ravel()

        begin = coordinates.find_coordinates(weights) if coordinates else weights
        scale = float(np.linalg.norm(evaluate(np.zeros(zero.size))[1]))
        options = {
            "gtol": tolerance * scale / math.sqrt(zero.size),
            "ftol": 0.0,
            "maxiter": max_iterations or MAX_ITERATIONS,
            "maxfun": 2 * (max_iterations or MAX_ITERATIONS),
            "maxcor": 20,
        }
        result = scipy.optimize.minimize(evaluate, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
        shaped = result.x.reshape(zero.shape)
        weights = coordinates.find_weights(shaped) if coordinates else shaped
        gradient = float(np.linalg.norm(self.evaluate(weights, penalties)[1])) / first
        if gradient > tolerance and weights.size <= NEWTON_WEIGHTS:
            weights = self._polish(weights, penalties, tolerance * first)
            gradient = float(np.linalg.norm(self.evaluate(weights, penalties)[1])) / first
        return Fit(self.expand(weights), gradient)

    def _polish(self, weights: Array, penalties: Array, tolerance: float) -> Array:
        """Newton steps, halved until the objective falls: L-BFGS halts where classes are nearly separable."""
        loss, gradient = self.evaluate(weights, penalties)
        for _ in range(MAX_NEWTON_STEPS):
            if np.linalg.norm(gradient) <= tolerance:
                break
            step = np.linalg.lstsq(self._find_hessian(weights, penalties), gradient.T.ravel(), rcond=1e-14)[0]
            step = step.reshape(gradient.T.shape).T
            for halving in range(20):
                trial = weights - step / 2**halving
                new_loss, new_gradient = self.evaluate(trial, penalties)
                if new_loss <= loss and np.linalg.norm(new_gradient) < 2 * np.linalg.norm(gradient):
                    break
            else:
                break
            weights, loss, gradient = trial, new_loss, new_gradient
        return weights

    def _find_hessian(self, weights: Array, penalties: Array) -> Array:
        """The second derivatives by the searched weights, output after output."""
        width, total = self.width, 0.0
        blocks = np.zeros((width, width, len(weights), len(weights)))
        for rows, piece in self.inputs.pieces():
            y_true = self.y_true[rows]
            curvatures = self.objective.curvatures(self.expand(piece.scores(weights)), y_true)
            if self.has_two_classes:
                curvatures = curvatures[:, 1:, 1:] - 2 * curvatures[:, :1, 1:] + curvatures[:, :1, :1]
            total += float(self.objective.row_weights(y_true).sum())
            for first in range(width):
                for second in range(width):
                    blocks[first, second] += weigh_moments(piece, curvatures[:, first, second])
        doubled = np.append(2 * penalties if self.has_two_classes else penalties, 0.0)
        hessian = np.block([[*row] for row in blocks / total])
        return np.asarray(hessian + np.diag(np.tile(doubled, width)))


def weigh_moments(inputs: Inputs, row_weights: Array) -> Array:
    """The sums of products of inputs ``(inputs + 1, inputs + 1)``, rows weighted by ``row_weights`` of any sign."""
    numbers = np.hstack([inputs.numbers, inputs.indicators.toarray(), np.ones((len(inputs), 1))])
    return np.asarray(numbers.T @ (numbers * row_weights[:, np.newaxis]))


def fit(problem: Problem, penalties: Array, start: Array | None = None, tolerance: float = TOLERANCE) -> Fit:
    """The minimum: in closed form if the loss is squared and the inputs are not too many."""
    if problem.objective.loss is Loss.SQUARED and len(penalties) <= DENSE_INPUTS:
        weights = Moments.measure(problem.inputs, problem.y_true).solve(penalties)
        zero = np.linalg.norm(problem.evaluate(np.zeros_like(weights), penalties)[1])
        return Fit(weights, float(np.linalg.norm(problem.evaluate(weights, penalties)[1]) / (zero or 1.0)))
    _, sample = next(iter(problem.inputs.pieces()))
    whitening = Whitening.from_inputs(sample, penalties, problem.curvature)
    return problem.minimise(penalties, start, whitening, tolerance)
