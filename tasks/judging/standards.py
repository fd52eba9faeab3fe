"""What a model of own data is held against: the best constant (baseline), and the same objective converged (reference).

Nothing here needs a trained model: ``inspect`` shows both beforehand.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tasks.data.prepared_splits import PREPARE_ANEW, read_arrays
from tasks.data.recipe import Columns, Pixels, Recipe
from tasks.judging import gates, picture_reference
from tasks.judging import reference as fits
from tasks.judging.objective import Objective
from tasks.machine.words import readable
from tasks.parameters import Gates
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import folding
from tasks.serving.task import TASKS
from tasks.store.record import FileRef

Array = NDArray[Any]

CONFIDENCE = 0.95
PIECE = 2**16  # rows whose scores are in memory at a time
NATS = 0.01  # of a classifier's log loss that the reference gate adds: separable classes have next to none
FEW_PICTURES = 10_000  # of training: fewer may be learned by heart, which a penalty prevents
OF_FEW_PICTURES = "; of few pictures it may be for want of a penalty: try --weight-decay auto, or such as 0.1"


class KeyedRows(NamedTuple):
    """One split of own data, as it is prepared."""

    features: Array  # (n, columns) float32, raw; pictures (n, …) uint8
    truth: Array
    key: Array  # (n,) uint64, of the split: equal for the rows of a group, and for equal rows

    def first(self, count: int, in_time: bool) -> Self:
        """At most ``count`` rows: the first by their key, or in time, where the oldest are no sample, evenly spread."""
        if len(self.truth) <= count:
            return self
        chosen = self.places_of_first(count)
        if in_time:
            chosen = np.linspace(0, len(self.truth) - 1, count).astype(np.int64)
        return type(self)(*(array[chosen] for array in self))

    def places_of_first(self, count: int) -> Array:
        """Where at most ``count`` rows are, the first by their key, in order."""
        if len(self.truth) <= count:
            return np.arange(len(self.truth))
        return np.sort(np.argpartition(self.key, count)[:count])


def read_rows(file: FileRef, prepared: PreparedDataset) -> KeyedRows:
    """The rows of a split of own data.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    arrays = read_arrays(file, PREPARE_ANEW)
    return KeyedRows(arrays[prepared.recipe.input.name], arrays[TASKS[prepared.task].target], arrays["split_key"])


def clusters(rows: KeyedRows, prepared: PreparedDataset) -> Array | None:
    """Which rows are no evidence independent of each other, by a number each ``(n,)``: groups, copies of equal rows.

    None where the split is by time, whose keys tell no such thing.
    """
    return None if _is_in_time(prepared) else rows.key


def _is_in_time(prepared: PreparedDataset) -> bool:
    """Whether keys are times, of which equal ones mean nothing."""
    return prepared.split is not None and prepared.split.rule == "time"


@dataclass(frozen=True)
class Standards:
    """The loss of each test row ``(n,)``, by the objective without its penalty."""

    objective: Objective
    row_weights: Array
    clusters: Array | None  # rows with one number here are no independent evidence
    baseline: Array
    reference: Array | None  # None: pictures so many and so large that nothing is fitted to them
    fit: fits.Reference | None
    is_bound: bool = True  # whether a model may not be much worse than the reference: not so of pictures
    advice: str = ""  # for a refusal by the baseline

    @classmethod
    def of(cls, prepared: PreparedDataset, objective: Objective) -> Self:
        """Fit both to the training rows, and measure them on the test rows.

        Raises:
            DataError: a split is missing or has changed since it was prepared.
        """
        train, test = (read_rows(file, prepared) for file in (prepared.train, prepared.test))
        return cls.between(train, test, prepared.recipe, prepared.class_counts, objective, _is_in_time(prepared))

    @classmethod
    def between(
        cls,
        train: KeyedRows,
        test: KeyedRows,
        recipe: Recipe,
        class_counts: tuple[int, ...],
        objective: Objective,
        in_time: bool,
    ) -> Self:
        """The same of rows in memory; ``class_counts`` are of training rows, none of a regression."""
        num_outputs, of_pictures = len(class_counts) or 1, isinstance(recipe, Pixels)
        fit: fits.Reference | None
        fitted = target = None
        if isinstance(recipe, Pixels):
            some = train.features, train.truth, train.places_of_first(picture_reference.MAX_ROWS)
            fit = picture_reference.fit(*some, recipe.scale, num_outputs, objective)
            if fit is not None:
                fitted = picture_reference.scores(fit, test.features, recipe.scale)
        else:
            train, target = train.first(fits.most_rows(recipe, num_outputs), in_time), recipe.target
            fit = fits.fit(train.features, train.truth, recipe, num_outputs, objective)
            fitted = scores(folding.fold(fit.weights, recipe, np.float64), recipe, test.features)
        constant = fits.constant(train.truth, target, class_counts, objective)
        return cls(
            objective=objective,
            row_weights=objective.row_weights(test.truth),
            clusters=None if in_time else test.key,
            baseline=objective.losses(np.broadcast_to(constant, (len(test.truth), num_outputs)), test.truth),
            reference=None if fitted is None else objective.losses(fitted, test.truth),
            fit=fit,
            is_bound=not of_pictures,
            advice=OF_FEW_PICTURES if of_pictures and len(train.truth) < FEW_PICTURES else "",
        )

    def mean(self, losses: Array) -> float:
        """Of the test rows, as the objective counts them."""
        return float(np.average(losses, weights=self.row_weights))

    @property
    def metrics(self) -> dict[str, float]:
        """The mean losses of both."""
        known = {"baseline_loss": self.baseline, "reference_loss": self.reference}
        return {name: self.mean(losses) for name, losses in known.items() if losses is not None}

    def judge(self, losses: Array, bounds: Gates) -> tuple[GateVerdict, ...]:
        """The gates ``baseline`` and ``reference``, on a model's loss of each test row."""
        return (self._against_baseline(losses, bounds), *self._against_reference(self.mean(losses), bounds))

    def _against_baseline(self, losses: Array, bounds: Gates) -> GateVerdict:
        ours, trivial = self.mean(losses), self.mean(self.baseline)
        gain = lower_bound(self.baseline - losses, self.row_weights, self.clusters)
        says_something = bool(np.isfinite(gain))
        value = f"lower {CONFIDENCE:.0%} bound of the gain" if says_something else "gain; one test group says nothing"
        gain = gain if says_something else trivial - ours
        advice = "" if says_something and gain > bounds.min_gain else self.advice
        detail = f"{value}: loss {readable(ours)}, of the best constant {readable(trivial)}{advice}"
        verdict = gates.judge("baseline", gain, above=bounds.min_gain, detail=detail)
        return verdict.model_copy(update={"passed": verdict.passed and says_something})

    def _against_reference(self, ours: float, bounds: Gates) -> tuple[GateVerdict, ...]:
        if self.reference is None or self.fit is None:
            return ()
        best, allowance = self.mean(self.reference), self._allowance(bounds.max_standardised_error)
        fitted = f"{readable(best)} of the {self.fit.described}"
        if not self.is_bound:
            return (gates.judge("reference", ours, detail=fitted),)
        detail = f"{bounds.max_loss_ratio:g} times the {fitted}, plus {readable(allowance, 2)}"
        return (gates.judge("reference", ours, maximum=bounds.max_loss_ratio * best + allowance, detail=detail),)

    def _allowance(self, error: float) -> float:
        """The loss of ``error`` deviations in each prediction; of a classifier, nats."""
        return NATS if self.objective.is_of_classes else self.objective.loss_of(error)


def scores(folded: folding.Folded, recipe: Columns, features: Array) -> Array:
    """Scores ``(n, outputs)`` of raw rows, a piece at a time."""
    starts = range(0, len(features), PIECE)
    return np.concatenate([folding.scores(folded, recipe, features[start : start + PIECE]) for start in starts])


def lower_bound(gains: Array, weights: Array, clusters: Array | None = None, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower bound of a weighted mean ``(n,)``, by Student's t; clusters of rows count as one each.

    Of a single row or cluster it is minus infinity.
    """
    import scipy.special  # which takes half as long to import as the book's models to judge

    mean = float(np.average(gains, weights=weights))
    parts = weights * (gains - mean) / weights.sum()  # each row's share in the mean's error
    if clusters is not None:
        _, numbers = np.unique(clusters, return_inverse=True)
        parts = np.bincount(numbers, weights=parts)
    count = len(parts)
    if count < 2:
        return -np.inf
    error = np.sqrt(count / (count - 1) * np.square(parts).sum())
    return float(mean - scipy.special.stdtrit(count - 1, confidence) * error)
