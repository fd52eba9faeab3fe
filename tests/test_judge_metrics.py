"""Losses, figures and their intervals, against scikit-learn, scipy and torch; what is resampled whole."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.signal
import scipy.special
import scipy.stats
import sklearn.metrics
import torch
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from tasks.data.recipe import SplitRule
from tasks.data.split import SplitAssignment, encode_times
from tasks.data.target import TargetValues
from tasks.fitting.objective import Objective, balance_classes
from tasks.judging import baselines, champion, metrics
from tasks.judging.metrics import Answers
from tasks.parameters import Loss
from tasks.serving.drift import is_less_accurate
from written_tables import examined, recipe, rows, written


@pytest.mark.parametrize("unit", [1e-13, 1.0, 1e9])
def test_the_best_constant_under_huber_is_that_of_a_general_minimiser_in_any_unit_of_the_target(unit: float) -> None:
    truth = np.exp(np.random.default_rng(0).normal(size=500))
    plain, objective = (Objective(Loss.HUBER, scale=truth.std() * each) for each in (1.0, unit))
    expected = scipy.optimize.minimize_scalar(lambda at: plain.mean(np.full((500, 1), at), truth), tol=1e-12).x
    assert baselines.find_best_constant(truth * unit, None, (), objective) / unit == pytest.approx(expected, rel=1e-4)


# The objective against scikit-learn, torch and finite differences


RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.normal(0, 3, (200, 4)), RNG.integers(0, 4, 200).astype(np.uint8)
TARGET = RNG.normal(50, 20, 200)
PREDICTED = (TARGET + RNG.standard_t(2, 200) * 10)[:, None]


def test_a_class_without_rows_weighs_nothing_among_balanced_ones() -> None:
    """Its score in the best constant is finite. That others weigh as in scikit-learn is in test_train_own.py."""
    assert balance_classes((10, 0, 30)) == pytest.approx((2.0, 0.0, 2 / 3))
    for weights in ((), balance_classes((500, 0, 500))):
        objective = Objective(Loss.CROSS_ENTROPY, class_weights=weights)
        found = baselines.find_best_constant(np.empty(0), None, (500, 0, 500), objective)
        assert found == pytest.approx(np.log([500, 0.5, 500]))


@pytest.mark.parametrize("weights", [(), (1.0, 0.0, 5.0, 2.0)])
def test_cross_entropy_is_scikit_learns_log_loss_with_and_without_weights_and_finite(
    weights: tuple[float, ...],
) -> None:
    probabilities = scipy.special.softmax(SCORES, axis=1)
    expected = sklearn.metrics.log_loss(LABELS, probabilities, sample_weight=np.array(weights or [1] * 4)[LABELS])
    objective = Objective(Loss.CROSS_ENTROPY, class_weights=weights)
    assert objective.mean(SCORES, LABELS) == pytest.approx(expected)
    extreme = np.array([[2000.0, 0.0], [0.0, -2000.0]], np.float32)
    assert objective.losses(extreme, np.array([1, 0])).tolist() == [2000, 0]


def test_the_huber_loss_is_torchs_in_deviations_of_the_target_and_the_squared_loss_half_the_square() -> None:
    of_torch = 20**2 * float(F.smooth_l1_loss(torch.tensor(PREDICTED[:, 0] / 20), torch.tensor(TARGET / 20), beta=0.5))
    half = np.square(PREDICTED[:, 0] - TARGET).mean() / 2
    for loss, expected in ((Loss.HUBER, of_torch), (Loss.SQUARED, half)):
        assert Objective(loss, scale=20.0).mean(PREDICTED, TARGET) == pytest.approx(expected)


# How well a table can be learned, told before training: on a part of the training rows, in memory that is bounded


def test_splits_that_it_is_computed_of_are_not_held_in_memory(tmp_path: Path) -> None:
    small = examined(written(tmp_path / "t.csv", {"x": RNG.normal(size=300), "y": RNG.normal(size=300)}))
    num_rows = 2**20
    keys = np.arange(num_rows, dtype=np.uint64)
    targets = TargetValues(np.zeros(num_rows), np.ones(num_rows, bool), (), ())
    split = SplitAssignment(np.ones(num_rows, np.uint8), keys)
    many = replace(
        rows(small), features=np.zeros((1, num_rows), np.float32), targets=targets, split=split, digests=keys
    )
    tracemalloc.start()
    try:
        made = many.map_side("train", recipe(small), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < made["target"].nbytes / 2 == 4 * 2**20
    finally:
        tracemalloc.stop()


# Figures of labelled rows: periods, intervals and bounds


Array = np.ndarray[Any, Any]


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        ("2025-01-01T05:10", "2025-01-01T06:20", ["2025-01-01 05:00", "2025-01-01 06:00"]),
        ("2025-01-01", "2025-01-13T23", ["2025-01-01", "2025-01-13"]),
        ("2024-12-30", "2025-01-13", ["week of 2024-12-30", "week of 2025-01-13"]),
        ("1969-12-01", "1970-06-30", ["1969-12", "1970-06"]),
        ("2023-05-05", "2025-05-05", ["2023 Q2", "2025 Q2"]),
        ("2015-05-05", "2025-05-05", ["2015", "2025"]),
        ("1950-01-01", "2025-05-05", ["1950 to 1959", "2020 to 2029"]),
    ],
)
def test_periods_are_as_long_as_the_span_asks_for(first: str, last: str, names: list[str]) -> None:
    ends = np.array([first, last], "M8[us]").astype(np.int64).astype(float)
    found, of_row = metrics.cut_periods(np.append(ends, np.nan))
    assert (found, of_row.tolist()) == ([*names, "no time"], [0, 1, 2])


def test_a_lower_accuracy_is_called_so_where_chance_makes_it_in_fewer_than_one_of_1000_cases() -> None:
    """By the hypergeometric distribution; the normal one tells a few cases near the bound the other way."""
    for count, before, wrong_before in ((40, 1000, 150), (300, 10_000, 1600), (20, 10_000, 1600)):
        for wrong in range(count + 1):
            chance = scipy.stats.hypergeom.sf(wrong - 1, count + before, wrong + wrong_before, count)
            found = is_less_accurate(1 - wrong / count, count, 1 - wrong_before / before, before)
            assert found == (chance < 0.001) or 2e-4 < chance < 5e-3, (count, wrong, chance)
    assert not is_less_accurate(0.0, 19, 0.99, 1000), "too few to tell"


def test_the_lower_bound_is_students_and_holds_in_19_of_20_samples() -> None:
    rng = np.random.default_rng(0)
    gains, weights = rng.normal(1, 2, 30), rng.integers(1, 10, 200).astype(float)
    low = scipy.stats.ttest_1samp(gains, 0, alternative="greater").confidence_interval(0.95).low
    assert metrics.find_lower_bound(gains, np.ones(30)) == pytest.approx(low)
    bounds = [metrics.find_lower_bound(rng.normal(1, 2, 200), weights) for _ in range(1000)]
    assert np.mean(np.array(bounds) < 1) == pytest.approx(0.95, abs=0.025)


def test_the_intervals_are_those_of_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    truth, is_right, losses = rng.integers(0, 3, 900), rng.random(900) < 0.8, rng.exponential(size=900)
    answers = Answers(truth, np.where(is_right, truth, 3), losses, np.ones(900))
    measured = metrics.measure(answers, None, ("a", "b", "c"))
    for sample, interval in (
        (losses, measured.intervals["loss"]),
        (is_right, measured.intervals["accuracy"]),
        (is_right[truth == 1], measured.recall_intervals["b"]),
    ):
        expected = scipy.stats.bootstrap((sample,), np.mean, method="percentile", rng=1).confidence_interval
        assert interval == pytest.approx(expected, abs=0.15 * np.ptp(expected))


# What is resampled whole: groups, copies, and blocks of time, so that rows which err alike are not taken for many


def test_the_rows_of_a_group_count_as_one() -> None:
    """100 copies of 15 rows prove no more than the 15 do."""
    gains = np.random.default_rng(0).normal(0.5, 1, 15)
    alone = metrics.find_lower_bound(gains, np.ones(15))
    copied, groups = np.repeat(gains, 100), np.repeat(np.arange(15), 100)
    assert metrics.find_lower_bound(copied, np.ones(1500), groups) == pytest.approx(alone)
    assert metrics.find_lower_bound(copied, np.ones(1500)) > alone


def autocorrelated(rng: np.random.Generator, count: int) -> Array:
    """Values of mean 0 and deviation 1, each like the one before: AR(1) with 0.5."""
    noise = rng.normal(size=count) * np.sqrt(0.75)
    noise[0] = rng.normal()
    values: Array = scipy.signal.lfilter([1], [1, -0.5], noise)
    return values


def test_blocks_are_consecutive_in_time_and_about_as_long_as_the_cube_root_of_the_rows() -> None:
    order = np.random.default_rng(0).permutation(1000)
    units = metrics.number_units(encode_times(order.astype(float) - 500), SplitRule(rule="time", test=0.2, column="at"))
    assert units is not None
    assert np.array_equal(units, order // 10)
    parts, _ = metrics.join_units(units, 1000, 30)
    assert np.array_equal(parts, order // 10 * 30 // 100), "joined blocks are neighbours"


@pytest.mark.parametrize(("days", "rows"), [(50, 20), (2, 250)])
def test_rows_of_one_moment_are_in_one_block_however_many_they_are(days: int, rows: int) -> None:
    """Twenty rows a day are more than ten; two days are two blocks, and no 500 rows."""
    moments = np.repeat(np.arange(float(days)), rows)
    assert np.array_equal(metrics.number_blocks(moments), moments)  # type: ignore[arg-type]
    assert metrics.number_blocks(np.zeros(10)) is None


def test_gains_and_rises_are_called_real_in_one_of_twenty_samples_where_rows_of_a_time_split_are_alike() -> None:
    """By rows as if they were independent, a gain would be called real in 17 % of samples."""
    rng, blocks = np.random.default_rng(1), metrics.number_blocks(np.arange(2000.0))
    samples = [autocorrelated(rng, 2000) for _ in range(1000)]
    gained, naive = (
        np.mean([metrics.find_lower_bound(each, np.ones(2000), units) > 0 for each in samples])
        for units in (blocks, None)
    )
    assert gained == pytest.approx(0.06, abs=0.025)
    assert naive > 0.12
    parts = (np.bincount(blocks, each)[:, None] for each in samples[:300])  # type: ignore[arg-type]
    refused = np.mean([champion.compare(each, np.zeros(1), 2000, draws=999)[2][0] < 0.05 for each in parts])
    assert refused < 0.06 + 2 * np.sqrt(0.05 * 0.95 / 300)


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
    day, truth = np.sort(rng.integers(0, 300, 6000)), rng.normal(size=6000)
    answers = Answers(truth, truth + 1 + 0.3 * rng.normal(size=300)[day], truth, truth[:0])
    times = day * 24 * 3_600_000_000.0
    by_day, by_row = (
        [np.ptp(each.intervals["rmse"]) for each in metrics.measure_by_period(answers, times, in_time=in_time)]
        for in_time in (True, False)
    )
    assert np.median(np.divide(by_day, by_row)) > 2, "the rows of a day err alike"
