"""What is resampled whole: groups, copies, and blocks of time, so that rows which err alike are not taken for many."""

from typing import Any

import numpy as np
import pytest
import scipy.signal

from tasks.data.recipe import SplitRule
from tasks.data.split import encode_times
from tasks.judging import champion, metrics
from tasks.judging.metrics import Answers, Moments

Array = np.ndarray[Any, Any]
BY_TIME = SplitRule(rule="time", test=0.2, column="at")


def autocorrelated(rng: np.random.Generator, count: int, rho: float = 0.5) -> Array:
    """Values of mean 0 and deviation 1, each like the one before."""
    noise = rng.normal(size=count) * np.sqrt(1 - rho**2)
    noise[0] = rng.normal()
    values: Array = scipy.signal.lfilter([1], [1, -rho], noise)
    return values


def test_blocks_are_consecutive_in_time_and_about_as_long_as_the_cube_root_of_the_rows() -> None:
    order = np.random.default_rng(0).permutation(1000)
    keys = encode_times(order.astype(float) - 500)
    units = metrics.number_units(keys, BY_TIME)
    assert units is not None
    assert (np.diff(units[np.argsort(order)]) >= 0).all()
    assert set(np.bincount(units)) == {10}
    parts, count = metrics.join_units(units, 1000, 30)
    assert count == 30
    assert (np.diff(parts[np.argsort(order)]) >= 0).all(), "joined blocks are neighbours"


def test_rows_of_one_moment_are_in_one_block_however_many_they_are() -> None:
    days = np.repeat(np.arange(50.0), 20)
    units = metrics.number_blocks(days)
    assert units is not None
    assert (units == days).all(), "twenty rows a day are more than ten"
    few = np.repeat(np.arange(2.0), 250)
    blocks = metrics.number_blocks(few)
    assert blocks is not None
    assert (blocks == few).all(), "two days are two blocks, and no 500 rows"
    assert metrics.number_blocks(np.zeros(10)) is None


def test_the_lower_bound_of_a_gain_holds_where_the_rows_of_each_of_few_days_are_alike() -> None:
    """Without blocks it is above the truth in a third of samples."""
    rng, days = np.random.default_rng(3), np.repeat(np.arange(3.0), 100)
    units, above = metrics.number_blocks(days), [0, 0]
    for _ in range(400):
        gains = rng.normal(size=3)[days.astype(int)] + rng.normal(size=300)
        for at, each in enumerate((units, None)):
            above[at] += metrics.find_lower_bound(gains, np.ones(300), each) > 0
    assert above[0] / 400 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert above[1] / 400 > 0.2


def test_the_lower_bound_of_a_gain_holds_where_rows_of_a_time_split_are_alike() -> None:
    """By rows as if they were independent it is above the truth in 17 % of samples, and not in 5 %."""
    rng, times = np.random.default_rng(1), np.arange(2000.0)
    units, weights = metrics.number_blocks(times), np.ones(2000)
    samples = [autocorrelated(rng, 2000) for _ in range(1000)]
    wrong, naive = (
        np.mean([metrics.find_lower_bound(each, weights, known) > 0 for each in samples]) for known in (units, None)
    )
    assert wrong == pytest.approx(0.06, abs=0.025)
    assert naive > 0.12


def test_equal_models_of_a_time_split_are_refused_in_one_of_twenty_nights_at_most() -> None:
    """Without a margin, so that p alone decides."""
    rng, times = np.random.default_rng(2), np.arange(3000.0)
    units = metrics.number_blocks(times)
    assert units is not None
    refused, naive = 0, 0
    for _ in range(300):
        difference = autocorrelated(rng, 3000) / 3000
        parts = np.bincount(units, weights=difference)[:, None]
        refused += champion.compare(parts, np.zeros(1), draws=999)[2][0] < 0.05
        naive += champion.compare(difference[:, None], np.zeros(1), draws=999)[2][0] < 0.05
    assert refused / 300 < 0.06 + 2 * np.sqrt(0.05 * 0.95 / 300)
    assert naive / 300 > 0.1


def test_intervals_of_a_time_split_are_as_wide_as_its_autocorrelation_makes_them() -> None:
    """The error of a mean of AR(1) with 0.5 is the root of 3 as large as that of independent rows."""
    rng, times = np.random.default_rng(3), np.arange(20_000.0)
    truth, residuals = rng.normal(size=20_000), np.sqrt(np.maximum(6 + autocorrelated(rng, 20_000), 0))
    answers = Answers(truth, truth - residuals, residuals, truth[:0])
    wide, narrow = (
        np.ptp(metrics.measure(answers, units).intervals["loss"]) for units in (metrics.number_blocks(times), None)
    )
    assert wide / narrow == pytest.approx(np.sqrt(3), rel=0.2)


def test_each_period_of_a_time_split_has_blocks_of_its_own() -> None:
    rng = np.random.default_rng(4)
    days = np.sort(rng.integers(0, 300, 6000)) * 24 * 3_600_000_000.0
    shared = rng.normal(size=300)[np.unique(days, return_inverse=True)[1]]
    truth = rng.normal(size=6000)
    answers = Answers(truth, truth + 1 + 0.3 * shared, truth, truth[:0])
    by_day, by_row = (
        [np.ptp(each.intervals["rmse"]) for each in metrics.measure_by_period(answers, Moments(days, True), in_time=t)]
        for t in (True, False)
    )
    assert len(by_day) == len(by_row) > 5
    assert np.median(np.array(by_day) / by_row) > 2, "the rows of a day err alike"
