"""How good answers are, with intervals, of all rows and by period: numpy alone, for whoever judges without torch."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from tasks.data.split import decode_times
from tasks.judging import bootstrap, periods
from tasks.judging.judged import Measured, Period
from tasks.judging.periods import Moments
from tasks.judging.standards import read_rows
from tasks.machine.arrays import Array
from tasks.records import PreparedDataset
from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES

MOST_CLASSES = 200  # whose recall is told
SMALLEST = np.finfo(np.float32).tiny  # a probability that is 0 in float32 has a finite loss


class Answers(NamedTuple):
    """What a model says of rows ``(n,)``, beside the truth: labels with their log loss, or predictions."""

    truth: Array
    answer: Array
    losses: Array | None = None  # in nats; None of a regression
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, outputs: dict[str, Array], truth: Array, class_names: tuple[str, ...]) -> Self:
        """Of a model's outputs, rows first."""
        if PREDICTION in outputs:
            return cls(truth.astype(np.float64), outputs[PREDICTION].astype(np.float64))
        truth = truth.astype(np.int64)
        own = outputs[PROBABILITIES][np.arange(len(truth)), truth]
        return cls(truth, outputs[LABEL], -np.log(np.maximum(own.astype(np.float64), SMALLEST)), class_names)

    @classmethod
    def together(cls, parts: Sequence["Answers"]) -> Self:
        """Of all rows, part after part, of which there is one at least."""
        truth, answer, losses = zip(*(part[:3] for part in parts), strict=True)
        in_nats = None if losses[0] is None else np.concatenate(losses)
        return cls(np.concatenate(truth), np.concatenate(answer), in_nats, parts[0].class_names)

    def of_rows(self, rows: Array | slice) -> "Answers":
        """Of some of them."""
        losses = None if self.losses is None else self.losses[rows]
        return self._replace(truth=self.truth[rows], answer=self.answer[rows], losses=losses)


def measure(answers: Answers, clusters: Array | None = None) -> Measured:
    """Accuracy, log loss and recalls; or R², root mean squared error and half the mean squared error, in raw units.

    ``clusters`` ``(n,)``: rows of one number are drawn together.
    """
    if answers.losses is None:
        residuals = answers.truth - answers.answer
        found = of_numbers(regression_sums(answers.truth, residuals).sum(axis=0))
        between = bootstrap.intervals(regression_sums(answers.truth, residuals), clusters, of_numbers)
        return Measured(rows=len(residuals), **_named(("r2", "rmse", "loss"), found, between))
    return _of_classes(answers.truth, answers.answer == answers.truth, answers.losses, clusters, answers.class_names)


def by_period(answers: Answers, moments: Moments, clusters: Array | None = None) -> Iterator[Period]:
    """The figures of each period that has rows, in order."""
    names, of = periods.cut(moments)
    for number, name in enumerate(names):
        rows = np.flatnonzero(of == number)
        found = measure(answers.of_rows(rows)._replace(class_names=()), None if clusters is None else clusters[rows])
        yield Period(period=name, **dict(found))


def in_time(prepared: PreparedDataset, answers: Answers) -> dict[str, Any]:
    """``periods`` of the test split, as a version's metrics have them, where the latest rows are the test split."""
    if prepared.split is None or prepared.split.rule != "time":
        return {}
    times = Moments(decode_times(read_rows(prepared.test, prepared).key), prepared.has_dates)
    of_all = {"recall", "recall_intervals"}
    return {"periods": [each.model_dump(mode="json", exclude=of_all) for each in by_period(answers, times)]}


def _named(names: Sequence[str], found: Array, between: Array) -> dict[str, Any]:
    ends = [(float(low), float(high)) for low, high in between.T]
    return {"metrics": dict(zip(names, found.tolist(), strict=True)), "intervals": dict(zip(names, ends, strict=True))}


def regression_sums(truth: Array, residuals: Array) -> Array:
    """What figures of a regression are made of, for each row ``(n, 4)``."""
    centred = truth - truth.mean()
    return np.stack([np.ones(len(truth)), np.square(residuals), centred, np.square(centred)], axis=1)


def of_numbers(sums: Array) -> Array:
    """R², RMSE and loss of sums ``(…, 4)`` over rows: ``(…, 3)``; a target that does not vary has an R² of 0."""
    rows, squares, total, total_squares = np.moveaxis(sums, -1, 0)
    rows = np.maximum(rows, 1)
    variation = total_squares - np.square(total) / rows
    explained = 1 - np.divide(squares, variation, out=np.ones_like(squares), where=variation > 0)
    return np.stack([explained, np.sqrt(squares / rows), squares / rows / 2], axis=-1)


def _of_classes(truth: Array, is_right: Array, losses: Array, clusters: Array | None, names: Sequence[str]) -> Measured:
    """By sums over blocks of rows: of all their rows, of those that are right, and of both for each class."""
    told = np.unique(truth) if len(names) <= MOST_CLASSES and names else np.empty(0, np.int64)
    place = np.searchsorted(told, truth)
    of, count = bootstrap.blocks(len(truth), clusters)

    def by_class(rows: Array) -> Array:
        size = count * len(told)
        return np.bincount(of[rows] * len(told) + place[rows], minlength=size)[:size].reshape(count, len(told))

    sums = [np.bincount(of, weights=each, minlength=count)[:, None] for each in (np.ones(len(of)), is_right, losses)]
    every = np.arange(len(of))
    parts = np.hstack([*sums, by_class(every), by_class(np.flatnonzero(is_right))])

    def figures(sums: Array) -> Array:
        rows, right, loss = np.moveaxis(sums[..., :3], -1, 0)
        of_class, right_of_class = np.split(sums[..., 3:], 2, axis=-1)
        recall = np.full(of_class.shape, np.nan)
        np.divide(right_of_class, of_class, out=recall, where=of_class > 0)
        return np.concatenate([np.stack([right / rows, loss / rows], axis=-1), recall], axis=-1)

    found, between = figures(parts.sum(axis=0)), bootstrap.between(parts, figures)
    recall = _named([names[code] for code in told], found[2:], between[:, 2:])
    return Measured(
        rows=len(truth),
        **_named(("accuracy", "loss"), found[:2], between[:, :2]),
        recall=recall["metrics"],
        recall_intervals=recall["intervals"],
    )
