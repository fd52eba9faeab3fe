"""The objective against scikit-learn, torch and finite differences."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from tasks.judging.objective import Objective, balance_classes
from tasks.parameters import Loss

RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.normal(0, 3, (200, 4)), RNG.integers(0, 4, 200).astype(np.uint8)
TARGET = RNG.normal(50, 20, 200)
PREDICTED = (TARGET + RNG.standard_t(2, 200) * 10)[:, None]


def test_cross_entropy_is_scikit_learns_log_loss_with_and_without_weights() -> None:
    probabilities = torch.tensor(SCORES).softmax(dim=1).numpy()
    expected = sklearn.metrics.log_loss(LABELS, probabilities)
    assert Objective(Loss.CROSS_ENTROPY).mean(SCORES, LABELS) == pytest.approx(expected)
    weighted = Objective(Loss.CROSS_ENTROPY, class_weights=(1.0, 0.0, 5.0, 2.0))
    expected = sklearn.metrics.log_loss(LABELS, probabilities, sample_weight=np.array([1, 0, 5, 2])[LABELS])
    assert weighted.mean(SCORES, LABELS) == pytest.approx(expected)


def test_cross_entropy_of_scores_beyond_the_exponentials_range_is_finite() -> None:
    scores = np.array([[2000.0, 0.0], [0.0, -2000.0]], np.float32)
    assert Objective(Loss.CROSS_ENTROPY).losses(scores, np.array([1, 0])).tolist() == [2000, 0]


def test_the_huber_loss_is_torchs_in_deviations_of_the_target_and_the_squared_loss_half_the_square() -> None:
    residuals = torch.tensor(PREDICTED[:, 0] - TARGET)
    expected = 20**2 * float(F.smooth_l1_loss(residuals / 20, torch.zeros(200, dtype=torch.float64), beta=0.5))
    assert Objective(Loss.HUBER, scale=20.0).mean(PREDICTED, TARGET) == pytest.approx(expected)
    assert Objective(Loss.SQUARED, scale=20.0).mean(PREDICTED, TARGET) == pytest.approx(
        float((residuals**2).mean()) / 2
    )


@pytest.mark.parametrize(
    ("objective", "scores", "truth"),
    [
        (Objective(Loss.CROSS_ENTROPY, class_weights=(1.0, 0.5, 5.0, 2.0)), SCORES, LABELS),
        (Objective(Loss.SQUARED, scale=20.0), PREDICTED, TARGET),
        (Objective(Loss.HUBER, scale=20.0), PREDICTED, TARGET),
    ],
)
def test_the_gradient_is_that_of_finite_differences(
    objective: Objective, scores: np.ndarray, truth: np.ndarray
) -> None:
    value, found = objective.mean_and_gradient(scores, truth)
    assert value == pytest.approx(objective.mean(scores, truth))
    for at in [(0, 0), (7, scores.shape[1] - 1), (199, 0)]:
        step = np.zeros_like(scores)
        step[at] = 1e-4
        slope = (objective.mean(scores + step, truth) - objective.mean(scores - step, truth)) / 2e-4
        assert found[at] == pytest.approx(slope, rel=1e-4, abs=1e-9)


def test_balanced_classes_weigh_alike_as_scikit_learn_has_it_and_a_class_without_rows_weighs_nothing() -> None:
    counts = np.bincount(LABELS, minlength=4)
    expected = sklearn.utils.class_weight.compute_class_weight("balanced", classes=np.arange(4), y=LABELS)
    assert balance_classes(tuple(counts)) == pytest.approx(expected)
    assert balance_classes((10, 0, 30)) == pytest.approx((2.0, 0.0, 2 / 3))


def test_the_penalty_leaves_the_bias_out() -> None:
    weights = {"W": np.array([[1.0, 2.0]]), "effects": np.array([[3.0], [4.0]]), "b": np.array([100.0])}
    assert Objective(Loss.CROSS_ENTROPY, weight_decay=0.1).penalty(weights) == pytest.approx(0.05 * (1 + 4 + 9 + 16))
