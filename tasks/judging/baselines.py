"""What a model of own data is compared with: the best constant, and a converged fit of the same objective.

Nothing here needs a trained model or torch, so that ``inspect`` shows both losses before anything is trained.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from tasks.data.prepared_splits import Arrays, Examples, hold_out, read_split
from tasks.data.recipe import Columns, Pixels, Recipe, SplitRule, Target
from tasks.data.schema import ImageSchema
from tasks.fitting.objective import Objective
from tasks.judging import gates
from tasks.judging.metrics import CONFIDENCE, Answers, find_lower_bound, number_units
from tasks.machine.arrays import Array
from tasks.machine.words import format_number, pluralize
from tasks.networks import HUBER_BETA
from tasks.parameters import Gates, Loss
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import raw_units

if TYPE_CHECKING:
    from tasks.fitting.solver import Fit

MAX_ROWS = 100_000  # of a table that the fit sees
MAX_IMAGES = 10_000  # that the fit sees
MAX_VALUES = 40_000_000  # of their standardised numbers or pixels, and of their scores: bounds memory
MAX_PRODUCTS = 4e9  # images times inputs times classes; beyond, it would take minutes, and nothing is fitted
TOLERANCE = 1e-4  # of the gradient's norm, as a share of that at the start
MAX_IMAGE_ITERATIONS = 100
VALUES, ROWS = 2**21, 2**16  # of test rows that are in memory at a time
FEW_IMAGES = 10_000  # training images: fewer may be memorised, which a penalty prevents
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


# The fit that no training beats


class ConvergedFit(NamedTuple):
    """Weights as in ``records.TrainedModel``, but float64, and the scores ``(n, outputs)`` of raw rows by them."""

    weights: dict[str, Array]
    score: Callable[[Array], Array]
    words: str  # what fit it is, in plain words


def fit_table(features: Array, y_true: Array, recipe: Columns, num_outputs: int, objective: Objective) -> ConvergedFit:
    """Minimise ``objective`` over a table's raw training rows ``(n, columns)``, and labels or a raw target ``(n,)``."""
    from tasks.fitting import tables  # imported here, as below: it needs scipy, and the book's own data do not

    fit, weights = tables.fit_weights(
        features, y_true, recipe, num_outputs, objective, objective.weight_decay, tolerance=TOLERANCE
    )
    folded = raw_units.fold_weights(weights, recipe, np.float64)
    return ConvergedFit(weights, partial(raw_units.score_table, folded, recipe), _describe_fit(len(y_true), fit))


def fit_images(images: Array, y_true: Array, recipe: Pixels, num_outputs: int, objective: Objective) -> ConvergedFit:
    """The same for images ``(n, …)``, in few iterations: fits that have converged often do worse on test rows."""
    from tasks.fitting.design import Inputs
    from tasks.fitting.solver import Problem

    inputs = Inputs.from_numbers(images.reshape(len(images), -1) * recipe.scale)
    penalties = np.full(inputs.numbers.shape[1], objective.weight_decay)
    problem = Problem(inputs, y_true, objective, num_outputs)
    fit = problem.minimise(penalties, tolerance=TOLERANCE, max_iterations=MAX_IMAGE_ITERATIONS)
    named = {"W": fit.weights[:-1], "b": fit.weights[-1]}
    return ConvergedFit(named, partial(raw_units.score_rows, named, recipe), _describe_fit(len(y_true), fit))


def _describe_fit(num_rows: int, fit: "Fit") -> str:
    """What fit it is, in plain words."""
    words = f"fit to {pluralize(num_rows, 'row')}"
    if fit.gradient > TOLERANCE:
        return f"{words} that has not converged (gradient {fit.gradient:.1g} of the first)"
    return f"converged {words}"


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
        num_outputs, num_inputs = len(class_counts) or 1, math.prod(recipe.input.shape)
        width, fit = max(num_inputs, num_outputs), None
        most = min(MAX_IMAGES if recipe.kind == "pixels" else MAX_ROWS, len(train.y_true))
        in_time = bool(rule and rule.is_by_time)
        places = choose_rows(train.key, min(most, MAX_VALUES // width), in_time, held_out)
        y_true = train.y_true[places]
        if recipe.kind == "pixels" and most * num_inputs * num_outputs <= MAX_PRODUCTS:
            fit = fit_images(train.inputs[places], y_true, recipe, num_outputs, objective)
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
            advice=OF_FEW_ROWS if recipe.kind == "pixels" and len(train.y_true) < FEW_IMAGES else "",
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
        """The gates ``baseline`` and, only recorded, ``reference``, from a model's loss on each test row."""
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
        detail = f"{format_number(self.mean(self.fitted))} of the {self.fit.words}"
        yield gates.judge("reference", ours, detail=detail)


def bound_rows(width: int) -> int:
    """How many rows may be in memory at a time, with ``width`` inputs or scores per row."""
    return max(1, min(ROWS, VALUES // width))


# Before anything is trained


def expect_image_losses(
    schema: ImageSchema,
    train: Arrays,
    validation: Arrays,
    num_train: int,
    class_weight: str,
    weight_decay: float | None,
) -> dict[str, float]:
    """The losses on the pictures of ``validation`` of the best constant and of a fit to ``train``.

    They use the objective that training has; if ``weight_decay`` is None, it is the one that follows from the
    ``num_train`` pictures that a retrain would learn from. No test picture takes part. If pictures are so many and so
    large that nothing is fitted to them, only the first loss is returned; none is if they have a class that no training
    picture has.
    """
    recipe = schema.recipe
    fitted, measured = (Examples.from_arrays(each, recipe, schema.task) for each in (train, validation))
    counts = tuple(np.bincount(fitted.y_true, minlength=len(schema.class_names)).tolist())
    if not np.isin(measured.y_true, np.flatnonzero(counts)).all():  # a class that came late is unknown to any fit
        return {}
    objective = Objective.build(Loss.CROSS_ENTROPY, weight_decay, num_train, class_weight, counts, recipe)
    return Baselines.of_rows(fitted, measured, recipe, counts, objective, schema.split).metrics
