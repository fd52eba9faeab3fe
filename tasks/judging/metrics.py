"""How good answers are, with intervals, for all rows and by period: numpy alone, for code that judges without torch."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from tasks.data.recipe import SplitRule
from tasks.data.split import decode_times
from tasks.fitting.objective import Objective
from tasks.judging.evaluation_result import PeriodMetrics, RowMetrics
from tasks.machine.arrays import Array
from tasks.records import Splits

PIECE = 2**13  # rows whose scores are in memory at a time
MOST_CLASSES = 200  # beyond which recall is not listed
CALIBRATION_BINS = 15  # bins of confidence, of equal width
MOST_PERIODS = 13  # a year from any day on touches thirteen months
EPOCH = 1970
UNDATED = "no time"
CONFIDENCE = 0.95
RESAMPLES = 2_000
MOST_UNITS = 1_000  # of an interval or a comparison; beyond that, neighbours are merged: their sums vary alike


class Answers(NamedTuple):
    """A model's answers on rows ``(n,)``, beside the truth; only some rows' outputs are in memory at a time."""

    y_true: Array  # labels int64, or a target
    answer: Array  # labels, or predictions: for own tables float64 and in raw units
    losses: Array  # for labels in nats
    confidence: Array  # the probability of the label; empty for a regression

    @classmethod
    def ask(
        cls,
        score: Callable[[Array], Array],
        read: Callable[[slice], Array],
        y_true: Array,
        objective: Objective,
        size: int = PIECE,
    ) -> "Answers":
        """A model's answers on the rows that ``read`` returns, ``size`` at a time; there must be at least one.

        ``score`` returns the scores ``(m, outputs)`` of rows ``(m, …)``; losses are those of the objective.
        """
        parts = []
        for start in range(0, len(y_true), size):
            rows = slice(start, start + size)
            scores, known = score(read(rows)), y_true[rows]
            answer, losses, confidence = scores[:, 0], objective.losses(scores, known), known[:0]
            if objective.is_of_classes:
                each, answer, known = np.arange(len(known)), scores.argmax(axis=1), known.astype(np.int64)
                confidence = np.exp(scores[each, answer].astype(np.float64) - scores[each, known] - losses)
            parts.append((known, answer, losses, confidence))
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def choose(self, rows: Array | slice) -> "Answers":
        """The answers on some of the rows."""
        return Answers(*(each[rows] if len(each) else each for each in self))

    @property
    def is_right(self) -> Array:
        """Where a label is the true one ``(n,)``."""
        return np.asarray(self.answer == self.y_true)


def measure(answers: Answers, units: Array | None = None, class_names: Sequence[str] = ()) -> RowMetrics:
    """Accuracy, log loss and recalls; or R², root mean squared error and half the mean squared error, in raw units.

    ``units`` ``(n,)``: rows with the same number are resampled together (``number_units``). Recall is given for those
    of ``class_names`` that have rows.
    """
    y_true, codes = answers.y_true, np.empty(0, np.int64)
    if len(answers.confidence):
        names, compute, columns = ["accuracy", "loss"], compute_label_figures, [answers.is_right, answers.losses]
        codes = np.unique(y_true) if 0 < len(class_names) <= MOST_CLASSES else codes
    else:
        names, compute, y_true = ["r2", "rmse", "loss"], compute_number_figures, y_true.astype(np.float64)
        centred = y_true - y_true.mean()
        columns = [np.square(y_true - answers.answer), centred, np.square(centred)]
    of_row, count = join_units(units, len(y_true), MOST_UNITS)
    ones = np.ones(len(y_true))
    parts = [np.bincount(of_row, each, count) for each in (ones, *columns)]
    if len(codes):
        cells = of_row * len(codes) + np.searchsorted(codes, y_true)
        of_classes = (np.bincount(cells, each, count * len(codes)) for each in (ones, answers.is_right))
        parts += [each.reshape(count, -1) for each in of_classes]
    sums, present = np.column_stack(parts), [class_names[int(code)] for code in codes]
    found, intervals = compute(sums.sum(axis=0)).tolist(), find_intervals(sums, compute).T.tolist()
    return RowMetrics(
        rows=len(y_true),
        metrics=dict(zip(names, found, strict=False)),
        intervals=dict(zip(names, intervals, strict=False)),
        recall=dict(zip(present, found[len(names) :], strict=False)),
        recall_intervals=dict(zip(present, intervals[len(names) :], strict=False)),
    )


def compute_number_figures(sums: Array) -> Array:
    """R², RMSE and loss ``(…, 3)`` from sums ``(…, 4)`` of ones, squared residuals, centred targets and their squares.

    If the target does not vary, R² is 0.
    """
    rows, squares, total, total_squares = np.moveaxis(sums, -1, 0)
    variation = total_squares - np.square(total) / rows
    explained = 1 - np.divide(squares, variation, out=np.ones_like(squares), where=variation > 0)
    return np.stack([explained, np.sqrt(squares / rows), squares / rows / 2], axis=-1)


def compute_label_figures(sums: Array) -> Array:
    """Accuracy, loss and recalls ``(…, 2 + classes)`` from sums ``(…, 3 + 2 classes)``.

    The sums are those of ones, right labels and losses, then of each class's rows, then of each class's right rows;
    recall is NaN where a class has no rows.
    """
    of_class, right = np.split(sums[..., 3:], 2, axis=-1)
    recall = np.divide(right, of_class, out=np.full(of_class.shape, np.nan), where=of_class > 0)
    return np.concatenate([sums[..., 1:3] / sums[..., :1], recall], axis=-1)


def measure_by_period(
    answers: Answers, times: Array, units: Array | None = None, in_time: bool = False
) -> Iterator[PeriodMetrics]:
    """The metrics of each period that has rows, in order; if ``in_time``, each period has its own blocks as units."""
    names, of_row = cut_periods(times)
    for number, name in enumerate(names):
        rows = np.flatnonzero(of_row == number)
        if in_time:
            own_units = number_blocks(times[rows])
        else:
            own_units = None if units is None else np.unique(units[rows], return_inverse=True)[1]
        yield PeriodMetrics(period=name, **dict(measure(answers.choose(rows), own_units)))


class CalibrationBins(NamedTuple):
    """Rows by the confidence of their label ``(bins,)``; a bin has its upper edge, and not its lower."""

    counts: Array
    accuracy: Array  # 0 where there are no rows
    confidence: Array  # the mean confidence, likewise

    @property
    def error(self) -> float:
        """The mean distance of confidence from accuracy over the bins, weighted by their rows."""
        return float(self.counts @ np.abs(self.accuracy - self.confidence) / self.counts.sum())


def bin_by_confidence(answers: Answers) -> CalibrationBins:
    """Sort labels into bins by their probabilities; calibration figures and pictures use nothing else."""
    place = np.clip(np.ceil(answers.confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(place, minlength=CALIBRATION_BINS)
    columns = answers.is_right, answers.confidence
    sums = (np.bincount(place, weights=each, minlength=CALIBRATION_BINS) for each in columns)
    return CalibrationBins(counts, *(each / np.maximum(counts, 1) for each in sums))


# Rows by the period in which their time lies: about a dozen periods, whatever the span


def find_row_times(keys: Array, dataset: Splits) -> Array | None:
    """The dates of the rows with these split keys, in microseconds since 1970; None if the split is not by date."""
    is_by_date = dataset.split and dataset.split.is_by_time and dataset.has_dates
    return decode_times(keys) if is_by_date else None


def cut_periods(times: Array) -> tuple[list[str], Array]:
    """The shortest periods of which at most ``MOST_PERIODS`` lie between the first row and the last.

    ``times`` ``(n,)`` are microseconds since 1970, NaN if unknown. Returns the names of the periods that have rows, in
    order, and which of these each row ``(n,)`` lies in.
    """
    is_known = ~np.isnan(times)
    names, of_row = list[str](), np.zeros(len(times), np.int64)
    if is_known.any():
        periods = _list_periods(times[is_known].astype(np.int64).astype("M8[us]"))
        numbers, name_period = next(each for each in periods if np.ptp(each[0]) < MOST_PERIODS)
        present, of_row[is_known] = np.unique(numbers, return_inverse=True)
        names = [name_period(int(number)) for number in present]
    if not is_known.all():
        of_row[~is_known] = len(names)
        names.append(UNDATED)
    return names, of_row


def _list_periods(times: Array) -> Iterator[tuple[Array, Callable[[int], str]]]:
    """Ever longer periods: the number of each moment's period, and a function that names a period by its number."""
    hours, days, months = (times.astype(f"M8[{unit}]").astype(np.int64) for unit in "hDM")
    yield hours, lambda number: f"{np.datetime64(number, 'h')}:00".replace("T", " ")
    yield days, lambda number: str(np.datetime64(number, "D"))
    # 1 January 1970 was a Thursday: weeks begin on Monday
    yield (days + 3) // 7, lambda number: f"week of {np.datetime64(7 * number - 3, 'D')}"
    yield months, lambda number: str(np.datetime64(number, "M"))
    yield months // 3, lambda number: f"{EPOCH + number // 4} Q{number % 4 + 1}"
    years = months // 12 + EPOCH
    yield years, str
    for count in (2, 5, 10, 20, 50, 100, 200, 500, 1000):
        yield years // count, partial(_name_years, count)


def _name_years(count: int, number: int) -> str:
    return f"{number * count} to {(number + 1) * count - 1}"


# How far a figure may be off by the chance of which rows are in the test split: the units that are resampled whole.
# Everything that resamples test rows, or sums over them, uses these units: intervals, the gate ``baseline`` and the
# comparison with other versions.


def number_units(keys: Array, rule: SplitRule | None) -> Array | None:
    """The unit of each row ``(n,)`` int64; rows of one unit are not independent evidence.

    ``keys`` ``(n,)`` uint64 are those of the split: by time, the key of each row's time; otherwise the key of its
    group, or of its content, which copies have in common. None if all rows are one block of time.
    """
    return number_blocks(keys) if rule and rule.is_by_time else np.unique(keys, return_inverse=True)[1]


def number_blocks(times: Array) -> Array | None:
    """The block of each row ``(n,)``: consecutive rows by ``times`` ``(n,)``, in order, equal ones in one block.

    Rows that are near each other in time err alike. A block has about ``n ** (1/3)`` rows, and as many as share a time.
    None if all rows are one block, which says nothing about what another time would bring.
    """
    if not len(times):
        return None
    _, of_row, counts = np.unique(times, return_inverse=True, return_counts=True)
    before = np.cumsum(counts) - counts  # rows before each moment
    blocks = before // int(np.ceil(len(times) ** (1 / 3)))
    numbers = np.unique(blocks, return_inverse=True)[1]
    return numbers[of_row] if numbers[-1] else None


def join_units(units: Array | None, num_rows: int, most: int) -> tuple[Array, int]:
    """The same units ``(n,)``, merged so that there are at most ``most``, and the number of units.

    Neighbours are merged, since adjacent blocks of time are alike; single rows are dealt out in turn, so that it does
    not matter whether a file is sorted by its target.
    """
    if units is None:
        return np.arange(num_rows) % most, min(num_rows, most)
    count = int(units.max()) + 1
    return (units, count) if count <= most else (units * most // count, most)


def find_intervals(parts: Array, figures: Callable[[Array], Array]) -> Array:
    """Percentile intervals ``(2, k)`` of ``figures`` ``(…, k)``, which are computed from sums ``(…, m)``.

    ``parts`` ``(units, m)`` are the sums over each unit's rows; figures that a resample lacks are NaN, and left out.
    """
    drawn = np.random.default_rng(0).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), RESAMPLES)
    tail = (1 - CONFIDENCE) / 2
    return np.asarray(np.nanquantile(figures(drawn @ parts), [tail, 1 - tail], axis=0))


def find_lower_bound(gains: Array, weights: Array, units: Array | None = None) -> float:
    """The one-sided lower bound of a weighted mean ``(n,)``, by Student's t; rows of one unit count as one.

    For a single row or unit it is minus infinity.
    """
    import scipy.special  # importing it takes half as long as judging the book's models

    mean = float(np.average(gains, weights=weights))
    parts = weights * (gains - mean) / weights.sum()  # each row's share in the mean's error
    if units is not None:
        parts = np.bincount(units, weights=parts)
    if (count := len(parts)) < 2:
        return -np.inf
    error = np.sqrt(count / (count - 1) * np.square(parts).sum())
    return float(mean - scipy.special.stdtrit(count - 1, CONFIDENCE) * error)
