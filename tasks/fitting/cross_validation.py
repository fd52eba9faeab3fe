"""Penalties and the shape of a table's model, chosen by the loss of rows that a fit has not seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from tasks.data.recipe import Columns, Shape
from tasks.fitting.design import GROUPS, Design, Inputs, add_knots, screen_pairs, spread_penalties
from tasks.fitting.objective import Objective
from tasks.fitting.solver import DENSE_INPUTS, Moments, Problem, Whitening
from tasks.machine.arrays import Array
from tasks.parameters import Loss

NUM_FOLDS = 5
HALF_DECADE = math.sqrt(10)
# Penalties of the mean loss that are compared, the strongest first, from where no weight is left.
PATH = tuple(10.0 ** (power / 2) for power in range(4, -13, -1))
# What the difference of two nearly equal columns explains is lost at penalties far below those of either column.
RIDGE_PATH = tuple(10.0 ** (power / 2) for power in range(4, -21, -1))
MAX_RISES = 3  # losses in a row above the smallest, after which weaker penalties are not tried
SWIFT_INPUTS = 500  # of least squares, up to which every penalty is tried: a loss may have several minima
MOVES = 10.0, 0.1, HALF_DECADE, 1 / HALF_DECADE  # of one group's penalty while the others stay
MAX_ROUNDS = 2  # of moves of all groups
STANDARD_ERRORS = 2.0  # of the paired difference of losses, within which a simpler shape is as good as the best
SEARCH_TOLERANCE = 1e-3  # of gradients while penalties are compared
WHITENED_ROWS = 10_000  # whose moments stand for those of all
SHAPES: tuple[Shape, ...] = ("linear", "curves", "pairs")  # the simplest first

Penalties = Mapping[str, float]  # by group


class Folds(NamedTuple):
    """The fold of each row ``(n,)``; ``is_forward``: a fold is predicted from earlier folds only, the first never."""

    numbers: Array
    is_forward: bool = False

    def split(self) -> Iterator[tuple[Array, Array]]:
        """For each fold that is predicted, which rows a model is fitted to and which it predicts."""
        for fold in range(int(self.is_forward), int(self.numbers.max()) + 1):
            fitted = self.numbers < fold if self.is_forward else self.numbers != fold
            yield fitted, self.numbers == fold


def assign_folds(keys: Array, is_by_time: bool) -> Folds:
    """Five folds by split keys ``(n,)`` uint64, equal keys together: at random, or six blocks one after the other."""
    if is_by_time:
        distinct, counts = np.unique(keys, return_counts=True)
        places = np.searchsorted(distinct, keys)
        blocks = (np.cumsum(counts) - counts) * (NUM_FOLDS + 1) // len(keys)
        _, numbers = np.unique(blocks[places], return_inverse=True)
        return Folds(numbers, is_forward=True)
    # The test rows have the largest keys, so that the high bits of those of training rows are no uniform numbers.
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    _, numbers = np.unique((mixed >> np.uint64(33)) % np.uint64(NUM_FOLDS), return_inverse=True)
    return Folds(numbers)


class FoldFits(Protocol):
    """Fits to the rows of all folds but one, for penalties ``(inputs,)`` of a fit to all rows."""

    @property
    def path(self) -> tuple[float, ...]:
        """The penalties to try, the strongest first."""

    @property
    def max_rises(self) -> int:
        """After how many losses in a row above the smallest the path ends."""

    def compare(self, penalties: Array) -> float:
        """The mean loss of the rows that the fits have not seen."""

    def list_losses(self, penalties: Array) -> Array:
        """The loss of each of these rows, NaN of rows that no fit predicts, ``(n,)``."""

    def list_scores(self, penalties: Array) -> Array:
        """Their scores ``(n, outputs)``, NaN likewise."""


@dataclass(frozen=True)
class _Fits:
    inputs: Inputs
    y_true: Array
    objective: Objective
    num_outputs: int
    folds: Folds
    path: tuple[float, ...] = PATH

    @property
    def max_rises(self) -> int:
        """After how many losses in a row above the smallest the path ends."""
        return MAX_RISES

    @cached_property
    def parts(self) -> list[tuple[Array, Array]]:
        """The rows that are fitted and predicted."""
        return [*self.folds.split()]

    def fit_fold(self, at: int, penalties: Array) -> Array:
        """The weights of one part."""
        raise NotImplementedError

    def list_scores(self, penalties: Array) -> Array:
        """The scores of the rows that the fits have not seen, NaN of others, ``(n, outputs)``."""
        scores = np.full((len(self.y_true), self.num_outputs), np.nan)
        for at, (_, predicted) in enumerate(self.parts):
            scores[predicted] = self.inputs.select(predicted).scores(self.fit_fold(at, penalties))
        return scores

    def list_losses(self, penalties: Array) -> Array:
        """The loss of each of these rows, NaN of others, ``(n,)``."""
        scores, losses = self.list_scores(penalties), np.full(len(self.y_true), np.nan)
        known = ~np.isnan(scores[:, 0])
        losses[known] = self.objective.losses(scores[known], self.y_true[known])
        return losses

    def scale_penalties(self, fitted: Array, penalties: Array) -> Array:
        """The same penalties of the sum of losses, where fewer rows are fitted."""
        return penalties * (len(fitted) / np.count_nonzero(fitted))


@dataclass(frozen=True)
class RidgeFits(_Fits):
    """Least squares, for which the folds' moments are all that is needed."""

    path: tuple[float, ...] = RIDGE_PATH

    @property
    def max_rises(self) -> int:
        """After how many losses in a row above the smallest the path ends."""
        num_inputs = self.inputs.numbers.shape[1] + self.inputs.indicators.shape[1]
        return len(self.path) if num_inputs <= SWIFT_INPUTS else MAX_RISES

    @cached_property
    def moments(self) -> list[tuple[Moments, Moments]]:
        """Those of the fitted and of the predicted rows of each part."""
        predicted = [Moments.measure(self.inputs.select(rows), self.y_true[rows]) for _, rows in self.parts]
        if self.folds.is_forward:
            return [
                (Moments.measure(self.inputs.select(fitted), self.y_true[fitted]), moments)
                for (fitted, _), moments in zip(self.parts, predicted, strict=True)
            ]
        total = Moments(np.sum([moments.sums for moments in predicted], axis=0))
        return [(total - moments, moments) for moments in predicted]

    def fit_fold(self, at: int, penalties: Array) -> Array:
        """The weights of one part."""
        return self.moments[at][0].solve(self.scale_penalties(self.parts[at][0], penalties))

    def compare(self, penalties: Array) -> float:
        """The mean loss of the rows that the fits have not seen."""
        predicted = [moments for _, moments in self.moments]
        losses = [moments.mean_loss(self.fit_fold(at, penalties)) for at, moments in enumerate(predicted)]
        return float(np.average(losses, weights=[moments.num_rows for moments in predicted]))


@dataclass(frozen=True)
class DescentFits(_Fits):
    """Other losses, each fit starting from the last one of its fold."""

    starts: dict[int, Array] = field(default_factory=dict)
    known: dict[bytes, list[Array]] = field(default_factory=dict)

    @cached_property
    def problems(self) -> list[Problem]:
        """That of each part."""
        return [
            Problem(self.inputs.select(fitted), self.y_true[fitted], self.objective, self.num_outputs)
            for fitted, _ in self.parts
        ]

    @cached_property
    def sample(self) -> Inputs:
        """Rows whose moments stand for those of all."""
        step = max(1, len(self.y_true) // WHITENED_ROWS)
        return self.inputs.select(np.arange(0, len(self.y_true), step))

    def fit_fold(self, at: int, penalties: Array) -> Array:
        """The weights of one part."""
        return self.fit_all(penalties)[at]

    def fit_all(self, penalties: Array) -> list[Array]:
        """The weights of all parts."""
        key = penalties.tobytes()
        if key not in self.known:
            whitening = Whitening.from_inputs(self.sample, penalties, self.problems[0].curvature)
            for at, problem in enumerate(self.problems):
                scaled = self.scale_penalties(self.parts[at][0], penalties)
                fitted = problem.minimise(scaled, self.starts.get(at), whitening, SEARCH_TOLERANCE)
                self.starts[at] = fitted.weights
            self.known.clear()  # only the last ones are asked for again
            self.known[key] = [self.starts[at] for at in range(len(self.problems))]
        return self.known[key]

    def compare(self, penalties: Array) -> float:
        """The mean loss of the rows that the fits have not seen, rows weighted as in the objective."""
        losses = self.list_losses(penalties)
        known = ~np.isnan(losses)
        return float(np.average(losses[known], weights=self.objective.row_weights(self.y_true[known])))


def make_fits(inputs: Inputs, y_true: Array, objective: Objective, num_outputs: int, folds: Folds) -> FoldFits:
    """Fits in closed form if the loss is squared and the inputs are not too many."""
    is_ridge = objective.loss is Loss.SQUARED and inputs.numbers.shape[1] + inputs.indicators.shape[1] <= DENSE_INPUTS
    return (RidgeFits if is_ridge else DescentFits)(inputs, y_true, objective, num_outputs, folds)


# Penalties


@dataclass
class PenaltySearch:
    """The penalty of each group with the smallest loss: first one for all, then group by group."""

    fits: FoldFits
    groups: Array
    losses: dict[tuple[float, ...], float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The groups that have inputs."""
        return [GROUPS[at] for at in np.unique(self.groups)]

    def spread(self, penalties: Penalties) -> Array:
        """The penalty of each input ``(inputs,)``."""
        return spread_penalties(penalties, self.groups)

    def compare(self, penalties: Penalties) -> float:
        """The mean loss, computed once."""
        key = tuple(round(math.log10(penalties[name]), 6) for name in self.names)
        if key not in self.losses:
            loss = self.fits.compare(self.spread(penalties))
            self.losses[key] = loss if math.isfinite(loss) else math.inf
        return self.losses[key]

    def follow_path(self, fixed: Penalties) -> dict[str, float]:
        """The best penalties, those of groups that are not ``fixed`` being equal."""
        best, smallest, rises = dict[str, float](), math.inf, 0
        for penalty in self.fits.path:
            penalties = {name: fixed.get(name, penalty) for name in self.names}
            loss = self.compare(penalties)
            if loss < smallest:
                best, smallest, rises = penalties, loss, 0
            else:
                rises += 1
            if rises == self.fits.max_rises:
                break
        return best or {name: fixed.get(name, self.fits.path[0]) for name in self.names}

    def move_groups(self, penalties: dict[str, float]) -> dict[str, float]:
        """The penalties after each group's own was moved as long as the loss falls."""
        if len(self.names) == 1:
            return penalties
        strongest, *_, weakest = self.fits.path
        smallest = self.compare(penalties)
        for _ in range(MAX_ROUNDS):
            before = smallest
            for name in self.names:
                for factor in MOVES:
                    while weakest / 2 < penalties[name] * factor < strongest * 2:
                        moved = penalties | {name: penalties[name] * factor}
                        if (loss := self.compare(moved)) >= smallest:
                            break
                        penalties, smallest = moved, loss
            if smallest == before:
                break
        return penalties

    def search(self, fixed: Penalties) -> dict[str, float]:
        """The best penalties; those that are ``fixed`` at first may move later."""
        return self.move_groups(self.follow_path(fixed))


# Shapes


class Candidate(NamedTuple):
    """A shape with its recipe and penalties, and the losses ``(n,)`` of rows that its fits have not seen."""

    shape: Shape
    recipe: Columns
    penalties: Penalties
    losses: Array


@dataclass(frozen=True)
class Sample:
    """Training rows by which shapes are compared: raw rows ``(n, columns)``, their truth, and their folds."""

    features: Array
    y_true: Array
    folds: Folds
    objective: Objective
    num_outputs: int
    weight_decay: float | None = None  # a penalty that is given for all groups

    def cross_validate(self, recipe: Columns, shape: Shape, fixed: Penalties) -> tuple[Candidate, FoldFits, Array]:
        """A recipe's best penalties and losses."""
        design = Design(recipe.model_copy(update={"shape": shape}))
        fits = make_fits(design.encode(self.features), self.y_true, self.objective, self.num_outputs, self.folds)
        search = PenaltySearch(fits, design.groups)
        if self.weight_decay is not None:
            penalties = dict.fromkeys(search.names, self.weight_decay)
        else:
            penalties = search.search(fixed)
        spread = search.spread(penalties)
        return Candidate(shape, design.recipe, penalties, fits.list_losses(spread)), fits, spread

    def list_candidates(self, recipe: Columns, last: Shape = "pairs") -> Iterator[Candidate]:
        """The shapes from the simplest to the ``last``, without those that are no different from the one before."""
        linear, fits, spread = self.cross_validate(recipe, "linear", {})
        yield linear
        if last == "linear":
            return
        best = linear
        with_knots = add_knots(recipe, self.features)
        if any(column.knots for column in with_knots.columns):
            best, fits, spread = self.cross_validate(with_knots, "curves", linear.penalties)
            yield best
        if last == "curves":
            return
        residuals = self._list_residuals(fits.list_scores(spread))
        pairs = screen_pairs(best.recipe, self.features, residuals)
        if pairs:
            with_pairs = best.recipe.model_copy(update={"pairs": pairs})
            yield self.cross_validate(with_pairs, "pairs", best.penalties)[0]

    def _list_residuals(self, scores: Array) -> Array:
        """The negative derivative of the loss by each score ``(n, outputs)``, 0 of rows that no fit predicted."""
        known = ~np.isnan(scores[:, 0])
        residuals = np.zeros_like(scores)
        residuals[known] = -self.objective.mean_and_gradient(scores[known], self.y_true[known])[1]
        return residuals


def choose_shape(candidates: list[Candidate], row_weights: Array) -> Candidate:
    """The simplest of the candidates whose loss is within two standard errors of the best one's.

    The standard error is that of the mean difference of the same rows' losses.
    """
    best = min(candidates, key=lambda candidate: average_losses(candidate.losses, row_weights))
    for candidate in candidates:
        rise, error = compare_losses(candidate.losses, best.losses, row_weights)
        if rise <= STANDARD_ERRORS * error:
            return candidate
    return best


def compare_losses(losses: Array, others: Array, row_weights: Array) -> tuple[float, float]:
    """By how much the mean of ``losses`` ``(n,)`` is above that of others of the same rows, and its standard error."""
    differences = losses - others
    known = ~np.isnan(differences)
    weighted = differences[known] * row_weights[known] / row_weights[known].mean()
    return float(weighted.mean()), float(weighted.std(ddof=1) / math.sqrt(max(2, len(weighted))))


def average_losses(losses: Array, row_weights: Array) -> float:
    """The weighted mean of the losses ``(n,)`` that are not NaN."""
    known = ~np.isnan(losses)
    return float(np.average(losses[known], weights=row_weights[known]))
