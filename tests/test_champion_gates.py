"""The gate against what is published: statistics against scipy and statsmodels, verdicts by construction."""

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from candidate import Candidate, plain
from tasks.errors import GateFailed
from tasks.model_store import reading
from tasks.parameters import Data, Gates
from tasks.preprocess import preprocess
from tasks.publish import champion_gates
from tasks.publish.champion_gates import Measured, holm, mcnemar
from tasks.records import RawDataset
from tasks.run_folder import RunFolder

CLASSES = tuple("abcd")
TRUTH = np.repeat(np.arange(4), 250)


def wrong_on(*rows: range, base: np.ndarray = TRUTH) -> np.ndarray:
    """Predictions that are right but on the given rows."""
    label = base.copy()
    for each in rows:
        label[list(each)] = (TRUTH[list(each)] + 1) % 4
    return label


def judge(candidate: np.ndarray, *kept: np.ndarray) -> dict[str, bool]:
    versions = [Measured(number, label) for number, label in enumerate(kept, start=1)]
    verdicts = champion_gates.classification(Measured(None, candidate), versions, TRUTH, CLASSES, Gates())
    return {verdict.name: verdict.passed for verdict in verdicts}


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_equals_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, best = rng.random(400) < 0.8, rng.random(400) < 0.85
    table = [[(ours & best).sum(), (ours & ~best).sum()], [(~ours & best).sum(), (~ours & ~best).sum()]]
    assert mcnemar(ours, best) == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_mcnemar_of_models_that_never_differ_is_1() -> None:
    assert mcnemar(np.array([True, False]), np.array([True, False])) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_holm_equals_statsmodels(seed: int) -> None:
    ps = np.random.default_rng(seed).random(10) ** 3
    np.testing.assert_allclose(holm(ps), multipletests(ps, method="holm")[1])


def test_an_equal_and_a_better_candidate_pass() -> None:
    kept = wrong_on(range(40))
    assert judge(kept, kept) == {"champion_accuracy": True, "champion_recall": True}
    assert judge(TRUTH, kept) == {"champion_accuracy": True, "champion_recall": True}


def test_a_large_and_real_drop_of_accuracy_is_refused() -> None:
    """20 of 1000 rows lost, none won: a drop of 0.02 with p = 2 / 2**20."""
    assert judge(wrong_on(range(5), range(250, 255), range(500, 505), range(750, 755)), TRUTH) == {
        "champion_accuracy": False,
        "champion_recall": True,
    }


def test_a_drop_that_chance_explains_passes() -> None:
    """110 rows lost and 100 won: a drop of 0.01, but p is about 0.5."""
    kept = wrong_on(range(25), range(250, 275), range(500, 525), range(750, 775))
    candidate = wrong_on(range(100, 128), range(350, 378), range(600, 627), range(850, 877))
    assert scipy.stats.binomtest(110, 210).pvalue > 0.05
    assert judge(candidate, kept)["champion_accuracy"]


def test_small_drops_cannot_add_up_because_the_best_kept_version_counts() -> None:
    """Each step loses 4 of 1000 rows and passes against the one before, but the second one not against the best."""
    first, second = wrong_on(range(4)), wrong_on(range(4), range(250, 254))
    assert judge(first, TRUTH)["champion_accuracy"]
    assert judge(second, first)["champion_accuracy"]
    assert not judge(second, first, TRUTH)["champion_accuracy"]


def test_a_class_that_is_forgotten_is_refused_even_when_accuracy_is_not_lower() -> None:
    kept = wrong_on(range(250, 290))
    candidate = wrong_on(range(40))
    assert judge(candidate, kept) == {"champion_accuracy": True, "champion_recall": False}


def test_a_recall_drop_of_a_tiny_class_that_chance_explains_passes() -> None:
    truth = np.array([0] * 990 + [1] * 10)
    kept, candidate = truth.copy(), truth.copy()
    candidate[-3:] = 0  # recall drops by 0.3, on three rows
    verdicts = champion_gates.classification(
        Measured(None, candidate), [Measured(1, kept)], truth, ("often", "rare"), Gates()
    )
    assert verdicts[1].value == pytest.approx(0.3)
    assert verdicts[1].passed


@pytest.mark.parametrize(("scale", "passes"), [(1.0, True), (1.02, True), (1.03, False), (0.5, True)])
def test_linear_regression_may_lose_5_percent_to_the_best_kept_version(scale: float, passes: bool) -> None:
    """Errors scaled by 1.02 are a loss 1.0404 times as large, by 1.03 one 1.0609 times."""
    truth = np.zeros(1000, np.float32)
    errors = np.random.default_rng(0).normal(0, 0.01, 1000)
    kept = [Measured(1, errors * 2), Measured(2, errors)]
    assert champion_gates.regression(Measured(None, errors * scale), kept, truth, Gates()).passed is passes


# Bounds that are met exactly


def passed(kept: np.ndarray, candidate: np.ndarray, truth: np.ndarray, names: tuple[str, ...]) -> list[bool]:
    verdicts = champion_gates.classification(Measured(None, candidate), [Measured(1, kept)], truth, names, Gates())
    return [verdict.passed for verdict in verdicts]


def right_on(count: int) -> np.ndarray:
    """Predictions of 10 000 rows, all of class 0, that are right on the first ``count``."""
    return np.repeat([0, 1], [count, 10_000 - count])


@pytest.mark.parametrize("right", [10_000, 9_000, 8_437, 8_213, 7_777, 7_001, 51])
def test_a_drop_of_accuracy_by_exactly_the_bound_passes_and_one_row_more_does_not(right: int) -> None:
    """50 of 10 000 rows are 0.005, and no chance (p is tiny); as floats 0.8437 - 0.8387 is a little more."""
    truth, kept = right_on(10_000), right_on(right)
    assert passed(kept, right_on(right - 50), truth, ("only",))[0]
    assert not passed(kept, right_on(right - 51), truth, ("only",))[0]


def test_a_drop_of_recall_by_exactly_a_tenth_passes_for_any_counts() -> None:
    """A class of ``10 k`` rows loses ``k``; with ``k`` at 30 or more, chance explains it no longer."""
    for k in range(30, 200, 7):
        rows = 10 * k
        for right in range(k + 1, rows + 1, max(1, rows // 9)):
            truth = np.r_[np.zeros(rows, int), np.ones(100 * k, int)]
            kept, exact, more = truth.copy(), truth.copy(), truth.copy()
            kept[right:rows], exact[right - k : rows], more[right - k - 1 : rows] = 1, 1, 1
            assert passed(kept, exact, truth, ("small", "large"))[1], (rows, right)
            assert not passed(kept, more, truth, ("small", "large"))[1], (rows, right)


# Through the store


def test_a_candidate_with_another_number_of_features_is_refused_before_anything_is_compared(
    candidates: list[Candidate],
) -> None:
    candidates[0].publish()
    run = RunFolder.open("three features", {})
    raw = RawDataset(name="synthetic-linear", source="generated", files={})
    other = Candidate(run, plain(preprocess)(run, raw, Data(synthetic_w=(2, -3.4, 1)), 0), 0)
    with pytest.raises(GateFailed, match="champion_signature") as caught:
        other.publish()
    assert [(gate.name, gate.passed) for gate in caught.value.record.gates] == [("champion_signature", False)]
    assert reading.versions("linear-regression") == [1]
