"""The converged fit and the best constant, against scikit-learn and scipy."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import sklearn.datasets
import sklearn.metrics
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from prepared_tables import column
from tasks.data.own_rows import Examined, TableRows
from tasks.data.recipe import Columns, Target
from tasks.data.split import TRAINING, Split, hold_out_validation
from tasks.data.target import Truth
from tasks.judging import baselines
from tasks.judging.objective import Objective, balance_classes
from tasks.parameters import Loss
from tasks.serving import raw_units
from written_tables import examined, recipe, rows, written

NATS = Objective(Loss.CROSS_ENTROPY)


def recipe_of(features: np.ndarray, truth: np.ndarray | None = None, **levels: tuple[str, ...]) -> Columns:
    columns = tuple(column(f"x{at}", features[:, at], levels.get(f"x{at}", ())) for at in range(features.shape[1]))
    spread = {} if truth is None else {"mean": float(truth.mean()), "scale": float(truth.std())}
    return Columns(columns=columns, target=Target(name="y", **spread))


def standardised(features: np.ndarray, recipe: Columns) -> np.ndarray:
    mean, scale = np.array([(each.mean, each.scale) for each in recipe.columns], float).T
    result: np.ndarray = (features - mean) / scale
    return result


def one_hot(codes: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.eye(int(codes.max()) + 1)[codes.astype(int)]
    return result


def predicted(fit: baselines.ConvergedFit, recipe: Columns, features: np.ndarray) -> np.ndarray:
    return raw_units.score_rows(raw_units.fold_weights(fit.weights, recipe, np.float64), recipe, features)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_squared_loss_has_scikit_learns_coefficients(decay: float) -> None:
    features, truth = sklearn.datasets.load_diabetes(return_X_y=True, scaled=False)
    features = features.astype(np.float32)
    recipe = recipe_of(features, truth)
    assert recipe.target is not None
    fit = baselines.fit_table(features, truth, recipe, 1, Objective(Loss.SQUARED, decay, scale=recipe.target.scale))
    of_deviations = (truth - truth.mean()) / truth.std()
    model = Ridge(decay * len(truth), tol=1e-12) if decay else LinearRegression()
    model.fit(standardised(features, recipe), of_deviations)
    np.testing.assert_allclose(fit.weights["W"][:, 0], model.coef_, atol=1e-6)
    assert fit.words.startswith("converged")
    mse = np.square(predicted(fit, recipe, features)[:, 0] - truth).mean()
    expected = np.square(model.predict(standardised(features, recipe)) - of_deviations).mean() * truth.var()
    assert mse == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("load", ["load_wine", "load_breast_cancer", "load_iris"])
def test_cross_entropy_has_scikit_learns_loss_and_coefficients(load: str) -> None:
    """C = 1, and 2 for two classes, whose softmax has two weight vectors."""
    features, truth = getattr(sklearn.datasets, load)(return_X_y=True)
    features = features.astype(np.float32)
    recipe, classes = recipe_of(features), int(truth.max()) + 1
    fit = baselines.fit_table(features, truth, recipe, classes, Objective(Loss.CROSS_ENTROPY, 1 / len(truth)))
    model = LogisticRegression(C=2 if classes == 2 else 1, max_iter=10_000, tol=1e-8)
    model.fit(standardised(features, recipe), truth)
    coefficients = model.coef_.T if classes > 2 else np.hstack([-model.coef_.T, model.coef_.T]) / 2
    np.testing.assert_allclose(fit.weights["W"], coefficients, atol=5e-3 * abs(coefficients).max())
    expected = NATS.mean(model.predict_log_proba(standardised(features, recipe)), truth)
    assert NATS.mean(predicted(fit, recipe, features), truth) == pytest.approx(expected, rel=1e-3)
    assert fit.words.startswith("converged")


def test_levels_missing_values_and_class_weights_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features = np.stack([rng.normal(3, 2, 2000), rng.integers(0, 4, 2000), rng.integers(0, 3, 2000)], axis=1)
    score = features[:, 0] / 2 + np.array([-2, 0, 1, 3])[features[:, 1].astype(int)]
    truth = (score + rng.logistic(size=2000) > 5).astype(np.uint8)
    features = features.astype(np.float32)
    features[rng.random(2000) < 0.1, 0] = np.nan
    recipe = recipe_of(features, x1=tuple("abcd"), x2=tuple("efg"))
    weights = balance_classes(tuple(np.bincount(truth)))
    objective = Objective(Loss.CROSS_ENTROPY, 1 / 2000, weights)
    fit = baselines.fit_table(features, truth, recipe, 2, objective)
    number = np.nan_to_num((features[:, :1] - recipe.columns[0].mean) / recipe.columns[0].scale)
    inputs = np.hstack([number, one_hot(features[:, 1]), one_hot(features[:, 2])])
    model = LogisticRegression(C=2, class_weight="balanced", max_iter=10_000, tol=1e-8).fit(inputs, truth)
    coefficients = np.vstack([fit.weights["W"], fit.weights["effects"]])
    np.testing.assert_allclose(2 * coefficients[:, 1], model.coef_[0], atol=5e-3 * abs(model.coef_).max())
    expected = objective.mean(model.predict_log_proba(inputs), truth)
    assert objective.mean(predicted(fit, recipe, features), truth) == pytest.approx(expected, rel=1e-4)


def test_collinear_columns_share_their_weight_and_levels_average_out() -> None:
    """The minimum norm, beside a bias that does not count: numpy's pseudo-inverse of the centred inputs."""
    rng = np.random.default_rng(0)
    number = rng.normal(50, 10, 3000)
    features = np.stack([number, 2 * number, rng.integers(0, 5, 3000)], axis=1).astype(np.float32)
    truth = number + 5 * features[:, 2] + rng.normal(size=3000)
    recipe = recipe_of(features, truth, x2=tuple("abcde"))
    assert recipe.target is not None
    fit = baselines.fit_table(features, truth, recipe, 1, Objective(Loss.SQUARED, scale=recipe.target.scale))
    numbers = (features[:, :2] - [each.mean for each in recipe.columns[:2]]) / [
        each.scale for each in recipe.columns[:2]
    ]
    inputs = np.hstack([numbers, one_hot(features[:, 2])])
    expected = np.linalg.pinv(inputs - inputs.mean(axis=0), rcond=1e-5) @ ((truth - truth.mean()) / truth.std())
    found = np.concatenate([fit.weights["W"], fit.weights["effects"]])[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_wide_squared_fit_descends_to_the_same_minimum(decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = sklearn.datasets.load_diabetes(return_X_y=True, scaled=False)
    features = features.astype(np.float32)
    recipe = recipe_of(features, truth)
    closed = baselines.fit_table(features, truth, recipe, 1, Objective(Loss.SQUARED, decay))
    monkeypatch.setattr(baselines, "CLOSED_FORM_WIDTH", 0)
    descended = baselines.fit_table(features, truth, recipe, 1, Objective(Loss.SQUARED, decay))
    losses = [Objective(Loss.SQUARED).mean(predicted(fit, recipe, features), truth) for fit in (closed, descended)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert descended.words.startswith("converged")


def test_the_huber_fit_and_constant_are_those_of_a_general_minimiser() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 2)).astype(np.float32)
    truth = np.exp(features @ [0.5, -1.0] + rng.normal(size=500))
    recipe = recipe_of(features, truth)
    assert recipe.target is not None
    objective = Objective(Loss.HUBER, scale=recipe.target.scale)
    fit = baselines.fit_table(features, truth, recipe, 1, objective)
    inputs = np.column_stack([features, np.ones(500)])
    general = scipy.optimize.minimize(
        lambda w: objective.mean((inputs @ w)[:, None], truth), np.zeros(3), method="Nelder-Mead", tol=1e-10
    )
    assert objective.mean(predicted(fit, recipe, features), truth) == pytest.approx(general.fun, rel=1e-5)
    (constant,) = baselines.find_best_constant(truth, recipe.target, (), objective)
    general = scipy.optimize.minimize_scalar(lambda at: objective.mean(np.full((500, 1), at), truth), tol=1e-12)
    assert constant == pytest.approx(general.x, rel=1e-4)
    assert abs(constant - truth.mean()) > 0.1, "skewed"


def test_the_best_constant_of_classes_are_their_frequencies_and_balanced_they_are_equal() -> None:
    def shares(objective: Objective) -> np.ndarray:
        powers = np.exp(baselines.find_best_constant(np.empty(0), None, (60, 30, 10), objective))
        return np.asarray(powers / powers.sum())

    assert shares(NATS) == pytest.approx([0.6, 0.3, 0.1])
    assert shares(Objective(Loss.CROSS_ENTROPY, class_weights=balance_classes((60, 30, 10)))) == pytest.approx(
        [1 / 3] * 3
    )


@pytest.mark.parametrize("unit", [1e-13, 1e9])
def test_the_best_constant_under_huber_goes_with_the_targets_unit(unit: float) -> None:
    truth = np.exp(np.random.default_rng(0).normal(size=500))
    expected = baselines.find_best_constant(truth, None, (), Objective(Loss.HUBER, scale=truth.std()))
    found = baselines.find_best_constant(truth * unit, None, (), Objective(Loss.HUBER, scale=truth.std() * unit))
    assert found / unit == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_a_class_without_rows_has_a_finite_score_in_the_best_constant_balanced_or_not() -> None:
    counts = (500, 0, 500)
    for weights in ((), balance_classes(counts)):
        found = baselines.find_best_constant(
            np.empty(0), None, counts, Objective(Loss.CROSS_ENTROPY, class_weights=weights)
        )
        assert found == pytest.approx(np.log([500, 0.5, 500]))


# The objective against scikit-learn, torch and finite differences


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


# How well a table can be learned, told before training: on a part of the training rows, in memory that is bounded


def expected(found: Examined[TableRows | None], scratch: Path, **asked: Any) -> dict[str, float]:
    """What ``inspect`` shows of a table."""
    made = rows(found)
    split = hold_out_validation(made.split)
    assert split is not None
    divided = replace(made, split=split)
    train, validation = (divided.map_side(side, recipe(found), scratch) for side in ("train", "validation"))
    num_train = made.split.count(TRAINING)
    return baselines.expected_losses(recipe(found), train, validation, num_train, **asked)


def test_no_test_row_takes_part_and_every_training_row_does(artifacts: Path, tmp_path: Path) -> None:
    """Whoever chooses columns by these figures has chosen none by the rows that judge the model."""
    x = RNG.normal(size=1000)
    columns = {"x": x, "y": x + RNG.normal(size=1000), "part": np.where(np.arange(1000) % 4, "train", "test")}
    told = []
    for name in ("one", "other"):
        path = written(tmp_path / f"{name}.csv", columns)
        told.append(expected(examined(path, split_column="part"), tmp_path))
        columns["y"] = np.where(columns["part"] == "test", 1e6, columns["y"])
    assert told[0] == told[1]
    columns["y"] = np.where(np.arange(1000) % 4 == 1, 1e3, columns["y"])
    again = expected(examined(written(tmp_path / "third.csv", columns), split_column="part"), tmp_path)
    assert again["baseline_loss"] > 100 * told[0]["baseline_loss"]


def test_a_class_that_only_the_latest_rows_have_ends_nothing_and_has_no_losses(artifacts: Path, tmp_path: Path) -> None:
    at = np.arange(400)
    columns = {"x": RNG.normal(size=400), "at": at, "y": np.where(at >= 256, "late", np.where(at % 2, "a", "b"))}
    found = examined(written(tmp_path / "t.csv", columns), time_column="at")
    assert found.schema is not None
    assert expected(found, tmp_path, class_weight="balanced") == expected(found, tmp_path) == {}


def test_splits_that_it_is_computed_of_are_not_held_in_memory(tmp_path: Path) -> None:
    small, num_rows = (
        examined(written(tmp_path / "t.csv", {"x": RNG.normal(size=300), "y": RNG.normal(size=300)})),
        2**20,
    )
    keys = np.arange(num_rows, dtype=np.uint64)
    features = np.zeros((1, num_rows), np.float32)
    truth = Truth(np.zeros(num_rows), np.ones(num_rows, bool), (), ())
    split = Split(np.ones(num_rows, np.uint8), keys)
    many = replace(rows(small), features=features, truth=truth, split=split, digests=keys)
    tracemalloc.start()
    try:
        made = many.map_side("train", recipe(small), tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert made["target"].nbytes == 8 * 2**20
