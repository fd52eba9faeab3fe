"""Rows by the period that their time lies in: about a dozen periods, whatever the span."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from tasks.machine.arrays import Array

MOST = 13  # periods: a year from any day on touches thirteen months
HOUR = 3_600_000_000  # microseconds
EPOCH = 1970
UNDATED = "no time"


class Moments(NamedTuple):
    """The time of each row ``(n,)`` float64, NaN where there is none: microseconds since 1970, or another number."""

    values: Array
    are_dates: bool


class Cut(NamedTuple):
    """Names of periods in order, only those that have rows, and which of them each row ``(n,)`` lies in."""

    names: tuple[str, ...]
    of: Array


class _Unit(NamedTuple):
    """A length of periods: the number of each moment's period, and how a period of a number is called."""

    numbers: Callable[[Array], Array]
    name: Callable[[int], str]


def cut(moments: Moments) -> Cut:
    """The shortest periods that are no more than ``MOST`` from the first row to the last."""
    is_known = ~np.isnan(moments.values)
    numbers = np.zeros(len(is_known), np.int64)
    name: Callable[[int], str] = str
    if is_known.any():
        known = moments.values[is_known]
        for unit in _of_dates() if moments.are_dates else _of_numbers(known):
            numbers[is_known] = found = unit.numbers(known)
            name = unit.name
            if found.max() - found.min() < MOST:
                break
    present, of = np.unique(numbers[is_known], return_inverse=True)
    names = [name(int(number)) for number in present]
    places = np.full(len(numbers), len(names), np.int64)
    places[is_known] = of
    return Cut((*names, *([] if is_known.all() else [UNDATED])), places)


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
    first = int(np.floor(np.log10(span / MOST))) if span > 0 else 0
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
