"""How good answers are, with intervals, of all rows and by period: numpy alone, for whoever judges without torch."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from tasks.data.split import decode_times
from tasks.judging import resampling
from tasks.judging.baselines import read_rows
from tasks.judging.judged import Measured, Period
from tasks.machine.arrays import Array
from tasks.records import PreparedDataset
from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES

MOST_CLASSES = 200  # whose recall is told
SMALLEST = np.finfo(np.float32).tiny  # a probability that is 0 in float32 has a finite loss
CALIBRATION_BINS = 15  # of confidence, of equal width
MOST_PERIODS = 13  # a year from any day on touches thirteen months
HOUR = 3_600_000_000  # microseconds
EPOCH = 1970
UNDATED = "no time"


class Answers(NamedTuple):
    """What a model says of rows ``(n,)``, beside the truth: labels with their log loss, or predictions."""

    truth: Array
    answer: Array
    losses: Array | None = None  # in nats; None of a regression
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_outputs(cls, outputs: dict[str, Array], truth: Array, class_names: tuple[str, ...]) -> Self:
        """What a model's outputs say, rows first."""
        if PREDICTION in outputs:
            return cls(truth.astype(np.float64), outputs[PREDICTION].astype(np.float64))
        truth = truth.astype(np.int64)
        own = outputs[PROBABILITIES][np.arange(len(truth)), truth]
        return cls(truth, outputs[LABEL], -np.log(np.maximum(own.astype(np.float64), SMALLEST)), class_names)

    @classmethod
    def concatenate(cls, parts: Sequence["Answers"]) -> Self:
        """Of all rows, part after part, of which there is one at least."""
        truth, answer, losses = zip(*(part[:3] for part in parts), strict=True)
        in_nats = None if losses[0] is None else np.concatenate(losses)
        return cls(np.concatenate(truth), np.concatenate(answer), in_nats, parts[0].class_names)

    def of_rows(self, rows: Array | slice) -> "Answers":
        """Of some of them."""
        losses = None if self.losses is None else self.losses[rows]
        return self._replace(truth=self.truth[rows], answer=self.answer[rows], losses=losses)


def measure(answers: Answers, units: Array | None = None) -> Measured:
    """Accuracy, log loss and recalls; or R², root mean squared error and half the mean squared error, in raw units.

    ``units`` ``(n,)``: rows of one number are drawn together (``resampling.number_units``).
    """
    if answers.losses is None:
        residuals = answers.truth - answers.answer
        found = of_numbers(regression_sums(answers.truth, residuals).sum(axis=0))
        between = resampling.intervals(regression_sums(answers.truth, residuals), units, of_numbers)
        return Measured(rows=len(residuals), **_named(("r2", "rmse", "loss"), found, between))
    return _of_classes(answers.truth, answers.answer == answers.truth, answers.losses, units, answers.class_names)


def measure_by_period(
    answers: Answers, moments: "Moments", units: Array | None = None, in_time: bool = False
) -> Iterator[Period]:
    """The figures of each period that has rows, in order; ``in_time``: each period has blocks of its own as units."""
    names, of = cut_periods(moments)
    for number, name in enumerate(names):
        rows = np.flatnonzero(of == number)
        if in_time:
            of_rows = resampling.number_blocks(moments.values[rows])
        else:
            of_rows = None if units is None else np.unique(units[rows], return_inverse=True)[1]
        found = measure(answers.of_rows(rows)._replace(class_names=()), of_rows)
        yield Period(period=name, **dict(found))


def measure_periods(prepared: PreparedDataset, answers: Answers) -> dict[str, Any]:
    """``periods`` of the test split, as a version's metrics have them, where the latest rows are the test split."""
    if prepared.split is None or prepared.split.rule != "time":
        return {}
    times = Moments(decode_times(read_rows(prepared.test, prepared).key), prepared.has_dates)
    of_all, periods = {"recall", "recall_intervals"}, measure_by_period(answers, times, in_time=True)
    return {"periods": [each.model_dump(mode="json", exclude=of_all) for each in periods]}


class CalibrationBins(NamedTuple):
    """Rows by the confidence of their label ``(bins,)``; a bin has its upper edge, and not its lower."""

    counts: Array
    accuracy: Array  # 0 where there are no rows
    confidence: Array  # its mean, 0 likewise

    @property
    def error(self) -> float:
        """How far confidence is from accuracy: the mean over bins, weighted by their rows."""
        return float(self.counts @ np.abs(self.accuracy - self.confidence) / self.counts.sum())


def calibration_bins(confidence: Array, is_right: Array) -> CalibrationBins:
    """Sort labels ``(n,)`` into bins by their probabilities: figures and pictures of calibration have these alone."""
    place = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(place, minlength=CALIBRATION_BINS)
    sums = (np.bincount(place, weights=each, minlength=CALIBRATION_BINS) for each in (is_right, confidence))
    return CalibrationBins(counts, *(each / np.maximum(counts, 1) for each in sums))


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


def _of_classes(truth: Array, is_right: Array, losses: Array, units: Array | None, names: Sequence[str]) -> Measured:
    """By sums over blocks of rows: of all their rows, of those that are right, and of both for each class."""
    told = np.unique(truth) if len(names) <= MOST_CLASSES and names else np.empty(0, np.int64)
    place = np.searchsorted(told, truth)
    of, count = resampling.join_units(units, len(truth), resampling.MOST_DRAWN)

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

    found, between = figures(parts.sum(axis=0)), resampling.intervals_of_parts(parts, figures)
    recall = _named([names[code] for code in told], found[2:], between[:, 2:])
    return Measured(
        rows=len(truth),
        **_named(("accuracy", "loss"), found[:2], between[:, :2]),
        recall=recall["metrics"],
        recall_intervals=recall["intervals"],
    )


# Rows by the period that their time lies in: about a dozen periods, whatever the span


class Moments(NamedTuple):
    """The time of each row ``(n,)`` float64, NaN where there is none: microseconds since 1970, or another number."""

    values: Array
    are_dates: bool


class Periods(NamedTuple):
    """Names of periods in order, only those that have rows, and which of them each row ``(n,)`` lies in."""

    names: tuple[str, ...]
    of: Array


class _Unit(NamedTuple):
    """A length of periods: the number of each moment's period, and how a period of a number is called."""

    numbers: Callable[[Array], Array]
    name: Callable[[int], str]


def cut_periods(moments: Moments) -> Periods:
    """The shortest periods that are no more than ``MOST_PERIODS`` from the first row to the last."""
    is_known = ~np.isnan(moments.values)
    numbers = np.zeros(len(is_known), np.int64)
    name: Callable[[int], str] = str
    if is_known.any():
        known = moments.values[is_known]
        for unit in _of_dates() if moments.are_dates else _of_numbers(known):
            numbers[is_known] = found = unit.numbers(known)
            name = unit.name
            if found.max() - found.min() < MOST_PERIODS:
                break
    present, of = np.unique(numbers[is_known], return_inverse=True)
    names = [name(int(number)) for number in present]
    places = np.full(len(numbers), len(names), np.int64)
    places[is_known] = of
    return Periods((*names, *([] if is_known.all() else [UNDATED])), places)


def _of_dates() -> Iterator[_Unit]:
    def day(number: int) -> str:
        return str(np.datetime64(number, "D"))

    def months(values: Array) -> Array:
        return values.astype(np.int64).astype("M8[us]").astype("M8[M]").astype(np.int64)

    yield _Unit(
        lambda values: (values // HOUR).astype(np.int64),
        lambda number: f"{np.datetime64(number, 'h')}:00".replace("T", " "),
    )
    yield _Unit(lambda values: (values // (24 * HOUR)).astype(np.int64), day)
    yield _Unit(  # 1 January 1970 was a Thursday: weeks begin on Monday
        lambda values: ((values // (24 * HOUR)).astype(np.int64) + 3) // 7,
        lambda number: f"week of {day(7 * number - 3)}",
    )
    yield _Unit(months, lambda number: str(np.datetime64(number, "M")))
    yield _Unit(lambda values: months(values) // 3, lambda number: f"{EPOCH + number // 4} Q{number % 4 + 1}")
    for years in _round_numbers(0):
        yield _Unit(partial(_every, step=years, of=lambda values: months(values) // 12 + EPOCH), _range(years, True))


def _every(values: Array, step: float, of: Callable[[Array], Array]) -> Array:
    return np.floor(of(values) / step).astype(np.int64)


def _of_numbers(values: Array) -> Iterator[_Unit]:
    span = float(values.max() - values.min())
    are_whole = bool((values == np.floor(values)).all())
    first = int(np.floor(np.log10(span / MOST_PERIODS))) if span > 0 else 0
    for step in _round_numbers(max(first, 0) if are_whole else first):
        yield _Unit(partial(_every, step=step, of=np.asarray), _range(step, are_whole))


def _round_numbers(first: int) -> Iterator[float]:
    """1, 2, 5 times each power of ten, from one on."""
    return (digit * 10.0**power for power in itertools.count(first) for digit in (1, 2, 5))


def _range(step: float, are_whole: bool) -> Callable[[int], str]:
    """How the values from a multiple of ``step`` on are called."""

    def name(number: int) -> str:
        low, high = number * step, (number + 1) * step - are_whole
        return f"{low:.10g}" if low == high else f"{low:.10g} to {high:.10g}"

    return name
