"""The periods by which labelled rows are judged, and the intervals of their figures."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from tasks.judging import metrics
from tasks.judging.metrics import Answers, Moments
from tasks.serving.drift import find_worse


@pytest.mark.parametrize(
    ("first", "last", "names"),
    [
        ("2025-01-01T05:10", "2025-01-01T06:20", ["2025-01-01 05:00", "2025-01-01 06:00"]),
        ("2025-01-01", "2025-01-02", ["2025-01-01", "2025-01-02"]),
        ("2024-12-30", "2025-01-13", ["week of 2024-12-30", "week of 2025-01-13"]),
        ("1969-12-01", "1970-06-30", ["1969-12", "1970-06"]),
        ("2023-05-05", "2025-05-05", ["2023 Q2", "2025 Q2"]),
        ("2015-05-05", "2025-05-05", ["2015", "2025"]),
        ("1950-01-01", "2025-05-05", ["1950 to 1959", "2020 to 2029"]),
    ],
)
def test_periods_are_as_long_as_the_span_asks_for(first: str, last: str, names: list[str]) -> None:
    ends = np.array([first, last], "M8[us]").astype(np.int64).astype(float)
    found, of_row = metrics.cut_periods(Moments(np.append(ends, np.nan), are_dates=True))
    assert found == [*names, "no time"]
    assert of_row.tolist() == [0, 1, 2]
    found, of_row = metrics.cut_periods(Moments(np.linspace(ends[0], ends[1], 5000), are_dates=True))
    assert len(found) <= metrics.MOST_PERIODS
    assert (np.diff(of_row) >= 0).all()


def test_periods_of_numbers_have_round_ends() -> None:
    for values, names in (
        ([2015.0, 2018, 2015], ["2015", "2018"]),
        ([0.0, 99], ["0 to 9", "90 to 99"]),
        ([0.25, 1], ["0.2 to 0.3", "1 to 1.1"]),
    ):
        assert metrics.cut_periods(Moments(np.array(values), are_dates=False))[0] == names


def test_intervals_are_as_wide_as_the_chance_of_the_rows() -> None:
    rng, count = np.random.default_rng(0), 10_000
    truth, is_right = rng.integers(0, 3, count), rng.random(count) < 0.8
    found = metrics.measure(
        Answers(truth, np.where(is_right, truth, 3), np.zeros(count), np.ones(count)), None, ("a", "b", "c")
    )
    for share, size, (low, high) in (
        (is_right.mean(), count, found.intervals["accuracy"]),
        (is_right[truth == 1].mean(), (truth == 1).sum(), found.recall_intervals["b"]),
    ):
        half = 1.96 * np.sqrt(share * (1 - share) / size)
        assert (low, high) == pytest.approx((share - half, share + half), abs=half / 8)
    copies = np.repeat(np.arange(count // 100), 100)
    same = Answers(truth[copies], np.where(is_right, truth, 3)[copies], np.zeros(count), np.ones(count))
    wide, narrow = (np.ptp(metrics.measure(same, each).intervals["accuracy"]) for each in (copies, None))
    assert wide > 5 * narrow, "a hundred copies of a row are one"


def test_few_wrong_answers_have_the_chance_of_fishers_exact_test() -> None:
    for rows, before, wrong_before in ((12, 1000, 50), (12, 20, 1), (5, 50, 0), (300, 10_000, 1600), (1, 10**7, 5)):
        for wrong in range(rows + 1):
            chance = hypergeom.sf(wrong - 1, rows + before, wrong + wrong_before, rows)
            told = find_worse({"accuracy": 1 - wrong / rows}, rows, {"accuracy": 1 - wrong_before / before}, before)
            assert told == ("accuracy",) * int(chance < 0.001), (rows, wrong, chance)
    for right, worse in ((2, ("accuracy",)), (9, ())):
        assert find_worse({"accuracy": right / 12}, 12, {"accuracy": 0.95}, 1000) == worse
    for rmse, figures in ((31, ()), (32, ("rmse", "loss"))):
        assert find_worse({"rmse": rmse, "loss": rmse**2 / 2}, 1, {"rmse": 1, "loss": 0.5}, 100) == figures
