"""What a model of own data is compared with: the best constant, and a converged fit of the same objective.

Nothing here needs a trained model or torch, so that ``inspect`` shows both losses before anything is trained.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from tasks.data.prepared_splits import Arrays, Examples, hold_out, read_split
from tasks.data.recipe import Columns, Pixels, Recipe, SplitRule, Target
from tasks.data.schema import ImageSchema, Schema
from tasks.data.statistics import fit_recipe
from tasks.judging import gates
from tasks.judging.metrics import CONFIDENCE, Answers, find_lower_bound, number_units
from tasks.judging.objective import Objective
from tasks.machine.arrays import Array
from tasks.machine.words import format_number, pluralize
from tasks.networks import HUBER_BETA
from tasks.parameters import Gates, Loss
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import raw_units

MAX_ROWS = 100_000  # of a table that the fit sees
MAX_IMAGES = 10_000  # that the fit sees
MAX_VALUES = 40_000_000  # of their standardised numbers or pixels, and of their scores: bounds memory
MAX_PRODUCTS = 4e9  # images times inputs times classes; beyond, it would take minutes, and nothing is fitted
CLOSED_FORM_WIDTH = 1_000  # weights up to which a covariance is inverted, in a second
DENSE_INPUTS = 2_500  # inputs up to which second moments are factored, in a second, too
COLLINEAR = 1e-5  # singular values below this share of the largest count as zero
TOLERANCE = 1e-4  # of the gradient's norm, as a share of that at the start
MAX_ITERATIONS, MAX_IMAGE_ITERATIONS = 2_000, 100
VALUES, ROWS = 2**21, 2**16  # of test rows that are in memory at a time
NATS = 0.002  # by which a classifier may fall short, besides its share of the attainable gain
FEW_IMAGES = 10_000  # training images: fewer may be memorised, which a penalty prevents
ROWS_PER_WEIGHT = 10  # of a table: a regression without a penalty learns noise from fewer
OF_FEW_ROWS = "; with so few rows, a missing penalty may be the cause: try --weight-decay auto, or a number such as 0.1"


def choose_rows(keys: Array, most: int, in_time: bool, held_out: float = 0.0) -> Array:
    """The indices of at most ``most`` rows, in order, among those that a candidate has not ``held_out``.

    They are the first rows by key; where the split is by time, the oldest would be no sample, and rows are evenly
    spread.
    """
    places = np.flatnonzero(~hold_out(keys, held_out))
    if len(places) <= most:
        return places
    if in_time:
        return places[np.linspace(0, len(places) - 1, most).astype(np.int64)]
    return np.sort(places[np.argpartition(keys[places], most)[:most]])


# What weights are multiplied by: some training rows, with a column of ones as the last input


@dataclass(frozen=True)
class Inputs:
    """Standardised numbers ``(n, numbers)``, or pixels, and a sparse indicator of each slot of a category."""

    numbers: Array
    indicators: Any  # scipy.sparse.csr_array (n, slots)
    num_slots: tuple[int, ...] = ()  # of each category

    @classmethod
    def encode_table(cls, features: Array, recipe: Columns) -> Self:
        """Encode raw rows ``(n, columns)``; a missing number is its mean, a code without a slot has no indicator."""
        import scipy.sparse  # imported here, as below: the book's own data do not need it

        columns = [recipe.columns[at] for at in recipe.numbers]
        numbers = features[:, list(recipe.numbers)].astype(np.float64)
        numbers -= np.array([column.mean or 0.0 for column in columns])
        numbers /= np.array([column.scale for column in columns])
        blocks = [scipy.sparse.csr_array((len(features), 0))]
        for at, codes in zip(recipe.categories, raw_units.encode_levels(features, recipe).T, strict=True):
            slots, num_slots = recipe.columns[at].weight_indices()[codes], recipe.columns[at].num_slots
            known = np.flatnonzero(slots >= 0)
            entries = np.ones(len(known)), (known, slots[known])
            blocks.append(scipy.sparse.csr_array(entries, (len(features), num_slots)))
        numbers, widths = np.nan_to_num(numbers, copy=False, nan=0.0), tuple(each.shape[1] for each in blocks[1:])
        return cls(numbers, scipy.sparse.hstack(blocks, format="csr"), widths)

    @classmethod
    def encode_images(cls, images: Array, recipe: Pixels) -> Self:
        """Encode raw images ``(n, …)``."""
        import scipy.sparse

        return cls(images.reshape(len(images), -1) * recipe.scale, scipy.sparse.csr_array((len(images), 0)))

    def scores(self, weights: Array) -> Array:
        """Scores ``(n, outputs)`` float64 by ``weights`` ``(inputs + 1, outputs)``; the last row of them is bias."""
        count = self.numbers.shape[1]
        return np.asarray(self.numbers @ weights[:count] + self.indicators @ weights[count:-1] + weights[-1])

    def multiply_transposed(self, rows: Array) -> Array:
        """The inputs times ``rows`` ``(n, outputs)``: ``(inputs + 1, outputs)`` float64."""
        return np.concatenate([self.numbers.T @ rows, self.indicators.T @ rows, rows.sum(axis=0, keepdims=True)])

    def multiply_indicators(self, indicators: Any) -> Array:
        """The same for sparse ``indicators`` ``(n, slots)``."""
        counts = (self.indicators.T @ indicators).toarray()
        return np.concatenate([(indicators.T @ self.numbers).T, counts, indicators.sum(axis=0)[np.newaxis]])

    def second_moments(self) -> Array:
        """The mean products of inputs ``(inputs + 1, inputs + 1)``; the last column has their means."""
        ones = np.ones((len(self.numbers), 1))
        blocks = (
            self.multiply_transposed(self.numbers),
            self.multiply_indicators(self.indicators),
            self.multiply_transposed(ones),
        )
        return np.hstack(blocks) / len(ones)

    def solve(self, y_true: Array, weight_decay: float) -> Array:
        """The minimum-norm least squares, by the covariance's pseudo-inverse; norm and penalty exclude the bias."""
        moments, centre = self.second_moments(), y_true.mean()
        gains = self.multiply_transposed(y_true[:, None] - centre)[:-1] / len(y_true)
        mean = moments[:-1, -1:]
        covariance = moments[:-1, :-1] - mean @ mean.T + weight_decay * np.eye(len(mean))
        weights = np.linalg.pinv(covariance, COLLINEAR**2, hermitian=True) @ gains
        return np.concatenate([weights, centre - mean.T @ weights])


@dataclass(frozen=True)
class Whitening:
    """Coordinates of the weights in which a descent takes few steps, however collinear or rare the inputs are.

    They are the weights times the transposed Cholesky factor of the inputs' second moments. A row has one level of a
    category, so that a category's own moments are a diagonal, and those of the widest category are never dense. If the
    other inputs are still too many, more categories become diagonals; times their number, these are an upper bound.
    """

    slots: Array  # the inputs that are a diagonal
    others: Array  # all other inputs, bias included
    scale: Array  # (slots, 1): the factor's diagonal
    coupling: Array  # (others, slots): the factor's rows of the others
    inverse: Array  # (others, others): the inverse of the factor's last block

    @classmethod
    def of_inputs(cls, inputs: Inputs, weight_decay: float) -> Self:
        """Factor the moments plus the penalty, and a tiny ridge, since collinear inputs have no factor."""
        num_rows, num_numbers = inputs.numbers.shape
        widths = np.array(inputs.num_slots, np.int64)
        by_width = np.argsort(-widths)
        remaining = num_numbers + widths.sum() - np.cumsum(widths[by_width])
        diagonal = by_width[: 1 + np.count_nonzero(remaining > DENSE_INPUTS)]
        is_diagonal = np.isin(np.repeat(np.arange(len(widths)), widths), diagonal)
        indicators = inputs.indicators[:, is_diagonal]
        others = Inputs(inputs.numbers, inputs.indicators[:, ~is_diagonal])
        moments, counts = others.second_moments(), len(diagonal) * indicators.sum(axis=0)
        ridge = weight_decay + COLLINEAR**2 * (np.trace(moments) + counts.sum() / num_rows)
        scale = np.sqrt(counts / num_rows + ridge)
        coupling = others.multiply_indicators(indicators)
        coupling /= num_rows * scale
        moments[:-1, :-1] += ridge * np.eye(len(moments) - 1)
        slots = num_numbers + np.flatnonzero(is_diagonal)
        return cls(
            slots=slots,
            others=np.delete(np.arange(num_numbers + len(is_diagonal) + 1), slots),
            scale=scale[:, np.newaxis],
            coupling=coupling,
            inverse=np.linalg.inv(np.linalg.cholesky(moments - coupling @ coupling.T)),
        )

    def find_weights(self, coordinates: Array) -> Array:
        """The weights ``(inputs + 1, outputs)`` at ``coordinates`` of the same shape."""
        weights, count = np.empty_like(coordinates), len(self.slots)
        weights[self.others] = self.inverse.T @ coordinates[count:]
        weights[self.slots] = (coordinates[:count] - self.coupling.T @ weights[self.others]) / self.scale
        return weights

    def find_gradient(self, gradient: Array) -> Array:
        """The gradient by the coordinates, from that by the weights."""
        slots = gradient[self.slots] / self.scale
        return np.concatenate([slots, self.inverse @ (gradient[self.others] - self.coupling @ slots)])


# The fit that no training beats


class ConvergedFit(NamedTuple):
    """Weights as in ``records.TrainedModel``, but float64, and the scores ``(n, outputs)`` of raw rows by them."""

    weights: dict[str, Array]
    score: Callable[[Array], Array]
    words: str  # what fit it is, in plain words


def fit_table(features: Array, y_true: Array, recipe: Columns, num_outputs: int, objective: Objective) -> ConvergedFit:
    """Minimise ``objective`` over a table's raw training rows ``(n, columns)``, and labels or a raw target ``(n,)``."""
    inputs = Inputs.encode_table(features, recipe)
    if not objective.is_of_classes:
        y_true = (y_true - recipe.target_scaling.mean) / recipe.target_scaling.scale
    objective, count = replace(objective, scale=1.0), inputs.numbers.shape[1]
    words = f"converged fit to {pluralize(len(y_true), 'row')}"
    if objective.loss is Loss.SQUARED and count + sum(inputs.num_slots) <= CLOSED_FORM_WIDTH:
        weights = inputs.solve(y_true, objective.weight_decay)
    else:
        whitening = Whitening.of_inputs(inputs, objective.weight_decay) if count <= DENSE_INPUTS else None
        weights, words = _descend(inputs, y_true, num_outputs, objective, MAX_ITERATIONS, whitening)
    named = {"W": weights[:count], "effects": weights[count:-1], "b": weights[-1]}
    folded = raw_units.fold_weights(named, recipe, np.float64)
    return ConvergedFit(named, partial(raw_units.score_table, folded, recipe), words)


def fit_images(images: Array, y_true: Array, recipe: Pixels, num_outputs: int, objective: Objective) -> ConvergedFit:
    """The same for images ``(n, …)``, in few iterations: fits that have converged often do worse on test rows."""
    inputs = Inputs.encode_images(images, recipe)
    weights, words = _descend(inputs, y_true, num_outputs, objective, MAX_IMAGE_ITERATIONS)
    named = {"W": weights[:-1], "b": weights[-1]}
    return ConvergedFit(named, lambda rows: Inputs.encode_images(rows, recipe).scores(weights), words)


class FitRules(NamedTuple):
    """How the converged fit is used for data of one kind."""

    fit: Callable[[Array, Array, Any, int, Objective], ConvergedFit]
    most: int  # most rows that the fit sees
    max_products: float  # rows times inputs times outputs, beyond which nothing is fitted
    is_bound: bool  # whether a model may not be much worse than the fit


FIT_RULES = {  # by the kind of recipe
    "columns": FitRules(fit_table, MAX_ROWS, math.inf, is_bound=True),
    "pixels": FitRules(fit_images, MAX_IMAGES, MAX_PRODUCTS, is_bound=False),
}


def _descend(
    inputs: Inputs,
    y_true: Array,
    num_outputs: int,
    objective: Objective,
    max_iterations: int,
    whitening: Whitening | None = None,
) -> tuple[Array, str]:
    """The weights ``(inputs + 1, outputs)``, and a description of the fit.

    L-BFGS descends from zero weights, in the coordinates of the ``whitening`` if there is one, until the gradient's
    norm is ``TOLERANCE`` of that at the start.
    """
    import scipy.optimize

    shape = inputs.numbers.shape[1] + inputs.indicators.shape[1] + 1, num_outputs

    def find_weights(flat: Array) -> Array:
        return whitening.find_weights(flat.reshape(shape)) if whitening else flat.reshape(shape)

    def evaluate(flat: Array) -> tuple[float, Array]:
        weights = find_weights(flat)
        loss, slopes = objective.mean_and_gradient(inputs.scores(weights), y_true)
        gradient = inputs.multiply_transposed(slopes)
        gradient[:-1] += objective.weight_decay * weights[:-1]
        gradient = whitening.find_gradient(gradient) if whitening else gradient
        return loss + objective.penalty({"": weights[:-1]}), gradient.ravel()

    start = np.zeros(math.prod(shape))
    slope = float(np.linalg.norm(evaluate(start)[1]))
    gtol = TOLERANCE * slope / np.sqrt(start.size)
    options = {"gtol": gtol, "ftol": 0.0, "maxiter": max_iterations, "maxcor": 20}
    found = scipy.optimize.minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    left = float(np.linalg.norm(found.jac)) / (slope or math.inf)
    words = f"fit to {pluralize(len(y_true), 'row')}"
    if left > TOLERANCE:
        return find_weights(found.x), f"{words} that has not converged (gradient {left:.1g} of the first)"
    return find_weights(found.x), f"converged {words}"


def find_best_constant(
    y_true: Array, target: Target | None, class_counts: tuple[int, ...], objective: Objective
) -> Array:
    """The scores ``(outputs,)`` that are best for every row alike: frequencies, mean, or the Huber loss's middle."""
    if objective.is_of_classes:
        counts = np.array(class_counts, np.float64) * np.array(objective.class_weights or 1.0)
        return np.asarray(np.log(np.maximum(counts, 0.5)))
    if objective.loss is Loss.SQUARED:
        return np.array([target.mean if target else y_true.mean()])
    import scipy.optimize

    start = np.median(y_true)
    deviations = (y_true - start) / objective.scale  # their size suits brentq's tolerance, whatever the target's unit
    middle = scipy.optimize.brentq(
        lambda at: np.clip(at - deviations, -HUBER_BETA, HUBER_BETA).mean(), deviations.min(), deviations.max()
    )
    return np.array([start + middle * objective.scale])


# Both beside a model


@dataclass(frozen=True)
class Baselines:
    """The loss of each test row ``(n,)``, by the objective without its penalty."""

    objective: Objective
    row_weights: Array
    units: Array | None  # rows with the same number here are not independent evidence
    constant: Array
    fitted: Array | None  # None: nothing is fitted, as there are too many images, or too large ones
    fit: ConvergedFit | None
    is_bound: bool  # whether a model may not be much worse than the fit
    advice: str  # for a refusal by the best constant

    @classmethod
    def of_dataset(cls, prepared: PreparedDataset, objective: Objective, held_out: float = 0.0) -> Self:
        """Fit both to the training rows, and measure them on the test rows.

        A share that a candidate ``held_out`` is left out here too, since the candidate could not learn from it.

        Raises:
            DataError: a split is missing or has changed since it was prepared.
        """
        train, test = (read_split(file, prepared) for file in (prepared.train, prepared.test))
        held_out = 0.0 if prepared.validation else held_out
        return cls.of_rows(train, test, prepared.recipe, prepared.class_counts, objective, prepared.split, held_out)

    @classmethod
    def of_rows(
        cls,
        train: Examples,
        test: Examples,
        recipe: Recipe,
        class_counts: tuple[int, ...],
        objective: Objective,
        rule: SplitRule | None,
        held_out: float = 0.0,
    ) -> Self:
        """The same for rows in memory; ``class_counts`` are those of training rows, empty for a regression."""
        rules, num_outputs, num_inputs = FIT_RULES[recipe.kind], len(class_counts) or 1, math.prod(recipe.input.shape)
        most, width, fit = min(rules.most, len(train.y_true)), max(num_inputs, num_outputs), None
        in_time = bool(rule and rule.is_by_time)
        places = choose_rows(train.key, min(most, MAX_VALUES // width), in_time, held_out)
        y_true = train.y_true[places]
        if most * num_inputs * num_outputs <= rules.max_products:
            fit = rules.fit(train.inputs[places], y_true, recipe, num_outputs, objective)
        constant = find_best_constant(y_true, recipe.target, class_counts, objective)

        def find_losses(score: Callable[[Array], Array]) -> Array:
            return Answers.ask(score, test.inputs.__getitem__, test.y_true, objective, bound_rows(width)).losses

        return cls(
            objective=objective,
            row_weights=objective.row_weights(test.y_true),
            units=number_units(test.key, rule),
            constant=find_losses(lambda rows: np.broadcast_to(constant, (len(rows), num_outputs))),
            fitted=fit and find_losses(fit.score),
            fit=fit,
            is_bound=rules.is_bound,
            advice=OF_FEW_ROWS if len(train.y_true) < _find_few(recipe, objective) else "",
        )

    def mean(self, losses: Array) -> float:
        """The mean loss of the test rows, weighted as in the objective."""
        return float(np.average(losses, weights=self.row_weights))

    @property
    def metrics(self) -> dict[str, float]:
        """The mean losses of both baselines."""
        known = {"baseline_loss": self.constant, "reference_loss": self.fitted}
        return {name: self.mean(losses) for name, losses in known.items() if losses is not None}

    def judge(self, losses: Array, bounds: Gates) -> Iterator[GateVerdict]:
        """The gates ``baseline`` and ``reference``, from a model's loss on each test row.

        The second gate judges the share that the model achieves of the fit's gain over the best constant.
        """
        ours, trivial = self.mean(losses), self.mean(self.constant)
        gain = find_lower_bound(self.constant - losses, self.row_weights, self.units)
        said = f"lower {CONFIDENCE:.0%} bound of the gain"
        if not (says_something := math.isfinite(gain)):
            gain, said = trivial - ours, "gain; one test row or group says nothing"
        advice = "" if says_something and gain > bounds.min_gain else self.advice
        detail = f"{said}: loss {format_number(ours)}, against {format_number(trivial)} for the best constant{advice}"
        verdict = gates.judge("baseline", gain, above=bounds.min_gain, detail=detail)
        yield verdict.model_copy(update={"passed": verdict.passed and says_something})
        if self.fitted is None or self.fit is None:
            return
        best = self.mean(self.fitted)
        maximum, detail = None, f"{format_number(best)} of the {self.fit.words}"
        if self.is_bound and trivial > best:
            share, tolerance = bounds.min_reference_gain, NATS
            if not self.objective.is_of_classes:
                tolerance = self.objective.loss_of(bounds.max_standardised_error)
            maximum = trivial - share * (trivial - best) + tolerance
            gained = f"less {share:.0%} of the gain of the {self.fit.words} ({format_number(best)})"
            detail = f"{format_number(trivial)} of the best constant, {gained}, plus {format_number(tolerance, 2)}"
        elif self.is_bound:
            detail += f", which gains nothing over the {format_number(trivial)} of the best constant"
        yield gates.judge("reference", ours, maximum=maximum, detail=detail)


def _find_few(recipe: Recipe, objective: Objective) -> int:
    """How many training rows suffice without a penalty, or with a larger one; 0 if a table's fit has one already."""
    if recipe.kind == "pixels":
        return FEW_IMAGES
    return 0 if objective.weight_decay else ROWS_PER_WEIGHT * sum(len(each.levels) or 1 for each in recipe.columns)


def bound_rows(width: int) -> int:
    """How many rows may be in memory at a time, with ``width`` inputs or scores per row."""
    return max(1, min(ROWS, VALUES // width))


# Before anything is trained


def expected_losses(
    schema: Schema | ImageSchema,
    train: Arrays,
    validation: Arrays,
    num_train: int,
    class_weight: str,
    weight_decay: float | None,
) -> dict[str, float]:
    """The losses on the rows of ``validation`` of the best constant and of the converged fit to ``train``.

    They use the objective that training has; if ``weight_decay`` is None, it is the one that training chooses by rule,
    which for a classifier depends on the ``num_train`` rows that a retrain would learn from. No test row takes part. If
    images are so many and so large that nothing is fitted to them, only the first loss is returned; none is if they
    have a class that no training row has.
    """
    recipe = fit_recipe(schema.recipe, train)
    fitted, measured = (Examples.from_arrays(each, recipe, schema.task) for each in (train, validation))
    counts: tuple[int, ...] = ()
    if schema.class_names:
        counts = tuple(np.bincount(fitted.y_true, minlength=len(schema.class_names)).tolist())
        if not np.isin(measured.y_true, np.flatnonzero(counts)).all():  # a class that came late is unknown to any fit
            return {}
    loss = Loss.CROSS_ENTROPY if counts else Loss.SQUARED
    objective = Objective.build(loss, weight_decay, num_train, class_weight, counts, recipe)
    return Baselines.of_rows(fitted, measured, recipe, counts, objective, schema.split).metrics
