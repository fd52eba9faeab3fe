"""The converged fit and the best constant, against scikit-learn and scipy."""

import numpy as np
import pytest
import scipy.optimize
import sklearn.datasets
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

from own_splits import column
from tasks.data.recipe import Columns, Target
from tasks.judging import baselines
from tasks.judging.objective import Objective, balance_classes
from tasks.parameters import Loss
from tasks.serving import raw_units

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
