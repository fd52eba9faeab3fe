"""What a model of own data is held against: the best constant (baseline), and the same objective converged (reference).

Nothing here needs a trained model: ``inspect`` shows both beforehand.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from tasks.data import mapped
from tasks.data.recipe import Columns
from tasks.data.splits import PREPARE_ANEW
from tasks.judging import gates
from tasks.judging import reference as fits
from tasks.judging.objective import Objective
from tasks.parameters import Gates
from tasks.records import GateVerdict, PreparedDataset
from tasks.serving import folding
from tasks.serving.task import TASKS
from tasks.store.record import FileRef

Array = NDArray[Any]

CONFIDENCE = 0.95
PIECE = 2**16  # rows whose scores are in memory at a time
NATS = 0.01  # of a classifier's log loss that the reference gate adds: separable classes have next to none


class KeyedRows(NamedTuple):
    """One split of own data, as it is prepared."""

    features: Array  # (n, columns) float32, raw
    truth: Array
    key: Array  # (n,) uint64, of the split: equal for the rows of a group, and for equal rows

    def first(self, count: int, in_time: bool) -> Self:
        """At most ``count`` rows: the first by their key, or in time, where the oldest are no sample, evenly spread."""
        if len(self.truth) <= count:
            return self
        chosen = np.argpartition(self.key, count)[:count]
        if in_time:
            chosen = np.linspace(0, len(self.truth) - 1, count).astype(np.int64)
        chosen.sort()
        return type(self)(*(array[chosen] for array in self))


def read_rows(file: FileRef, prepared: PreparedDataset) -> KeyedRows:
    """The rows of a split of own data.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    arrays = mapped.read(file, PREPARE_ANEW)
    return KeyedRows(arrays[prepared.recipe.input.name], arrays[TASKS[prepared.task].target], arrays["split_key"])


def clusters(rows: KeyedRows, prepared: PreparedDataset) -> Array | None:
    """Which rows are no evidence independent of each other, by a number each: groups, and copies of equal rows."""
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
    reference: Array
    fit: fits.Reference

    @classmethod
    def of(cls, prepared: PreparedDataset, objective: Objective) -> Self:
        """Fit both to the training rows, and measure them on the test rows.

        Raises:
            DataError: a split is missing or has changed since it was prepared.
        """
        if not isinstance(prepared.recipe, Columns):
            raise TypeError("no table")
        train, test = (read_rows(file, prepared) for file in (prepared.train, prepared.test))
        return cls.between(train, test, prepared.recipe, prepared.class_counts, objective, _is_in_time(prepared))

    @classmethod
    def between(
        cls,
        train: KeyedRows,
        test: KeyedRows,
        recipe: Columns,
        class_counts: tuple[int, ...],
        objective: Objective,
        in_time: bool,
    ) -> Self:
        """The same of rows in memory; ``class_counts`` are of training rows, none of a regression."""
        num_outputs = len(class_counts) or 1
        train = train.first(fits.most_rows(recipe, num_outputs), in_time)
        constant = fits.constant(train.truth, recipe.target, class_counts, objective)
        fit = fits.fit(train.features, train.truth, recipe, num_outputs, objective)
        fitted = scores(folding.fold(fit.weights, recipe, np.float64), recipe, test.features)
        return cls(
            objective=objective,
            row_weights=objective.row_weights(test.truth),
            clusters=None if in_time else test.key,
            baseline=objective.losses(np.broadcast_to(constant, (len(test.truth), num_outputs)), test.truth),
            reference=objective.losses(fitted, test.truth),
            fit=fit,
        )

    def mean(self, losses: Array) -> float:
        """Of the test rows, as the objective counts them."""
        return float(np.average(losses, weights=self.row_weights))

    @property
    def metrics(self) -> dict[str, float]:
        """The mean losses of both."""
        return {"baseline_loss": self.mean(self.baseline), "reference_loss": self.mean(self.reference)}

    def judge(self, losses: Array, bounds: Gates) -> tuple[GateVerdict, ...]:
        """The gates ``baseline`` and ``reference``, on a model's loss of each test row."""
        ours, trivial, best = (self.mean(each) for each in (losses, self.baseline, self.reference))
        gain = lower_bound(self.baseline - losses, self.row_weights, self.clusters)
        allowance = self._allowance(bounds.max_standardised_error)
        says_something = bool(np.isfinite(gain))
        value = f"lower {CONFIDENCE:.0%} bound of the gain" if says_something else "gain; one test group says nothing"
        baseline = gates.judge(
            "baseline",
            gain if says_something else trivial - ours,
            above=bounds.min_gain,
            detail=f"{value}: loss {ours:.4g}, of the best constant {trivial:.4g}",
        )
        return (
            baseline.model_copy(update={"passed": baseline.passed and says_something}),
            gates.judge(
                "reference",
                ours,
                maximum=bounds.max_loss_ratio * best + allowance,
                detail=f"{bounds.max_loss_ratio:g} times the {best:.4g} of the {self._fit}, plus {allowance:.2g}",
            ),
        )

    @property
    def _fit(self) -> str:
        """What the reference is, said as it is."""
        if self.fit.gradient <= fits.TOLERANCE:
            return f"converged fit to {self.fit.num_rows} rows"
        return f"fit to {self.fit.num_rows} rows that has not converged (gradient {self.fit.gradient:.1g} of the first)"

    def _allowance(self, error: float) -> float:
        """The loss of ``error`` deviations in each prediction; of a classifier, nats."""
        if self.objective.is_of_classes:
            return NATS
        return self.objective.loss_of(error)


def scores(folded: folding.Folded, recipe: Columns, features: Array) -> Array:
    """Scores ``(n, outputs)`` of raw rows, a piece at a time."""
    starts = range(0, len(features), PIECE)
    return np.concatenate([folding.scores(folded, recipe, features[start : start + PIECE]) for start in starts])


def lower_bound(gains: Array, weights: Array, clusters: Array | None = None, confidence: float = CONFIDENCE) -> float:
    """The one-sided lower bound of a weighted mean ``(n,)``, by Student's t; clusters of rows count as one each.

    Of a single row or cluster it is minus infinity.
    """
    mean = float(np.average(gains, weights=weights))
    parts = weights * (gains - mean) / weights.sum()  # each row's share in the mean's error
    if clusters is not None:
        _, numbers = np.unique(clusters, return_inverse=True)
        parts = np.bincount(numbers, weights=parts)
    count = len(parts)
    if count < 2:
        return -np.inf
    error = np.sqrt(count / (count - 1) * np.square(parts).sum())
    return float(mean - scipy.stats.t.ppf(confidence, count - 1) * error)
