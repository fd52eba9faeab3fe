"""Own tables are trained to the optimum of their objective: against scikit-learn, closed forms and float64 numpy."""

from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss

from candidate import plain
from prepared_tables import prepare
from tasks.data.prepared_splits import read_split
from tasks.data.recipe import Columns
from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting import trainer
from tasks.fitting.devices import one_thread
from tasks.fitting.trainer import (
    LARGEST_BATCH_SIZE,
    WHITENED_INPUTS,
    TrainingRun,
    find_batch_size,
    load_table,
    make_encoding,
    make_plan,
    make_trainer,
)
from tasks.judging import parity
from tasks.networks.tabular import (
    LARGEST_NORM,
    Table,
)
from tasks.networks.training import outputs
from tasks.parameters import Device, Gates, Hyperparameters, Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.serving import onnx_graph, runtime
from tasks.store.run_folder import RunFolder
from tasks.train import train

Array = NDArray[Any]
CPU = torch.device("cpu")
IMPLEMENTATIONS = ["scratch", "concise"]


def learn(prepared: PreparedDataset, **options: Any) -> TrainingRun:
    """Train by the rules of tables, to the end."""
    return learned_in(prepared, **options)[0]


def learned_in(prepared: PreparedDataset, **options: Any) -> tuple[TrainingRun, int]:
    """The same, and the number of epochs that it took."""
    model = "softmax-regression" if prepared.class_names else "linear-regression"
    training = Training.model_validate({"model": model, "defaults": "data", **options})
    with one_thread():
        learning = make_trainer(training, prepared, CPU).begin_training(torch.Generator().manual_seed(0))
        return learning, sum(1 for _ in learning.epochs)


def load(prepared: PreparedDataset, name: str, dtype: torch.dtype) -> Table:
    return load_table(prepared, getattr(prepared, name), make_encoding(recipe_of(prepared), dtype))


def recipe_of(prepared: PreparedDataset) -> Columns:
    assert isinstance(prepared.recipe, Columns)
    return prepared.recipe


def one_hot(prepared: PreparedDataset, name: str) -> tuple[Array, Array]:
    """Standardised numbers and one-hot slots ``(n, inputs)`` float64, as the design's words say, and the truth."""
    recipe = recipe_of(prepared)
    rows, truth, _ = read_split(prepared.train if name == "train" else prepared.test, prepared)
    blocks: list[Array] = []
    for at in (*recipe.numbers, *recipe.categories):
        column, values = recipe.columns[at], rows[:, at].astype(np.float64)
        if column.kind != "category":
            blocks.append(np.where(np.isnan(values), 0.0, (values - (column.mean or 0)) / column.scale)[:, None])
            continue
        codes = np.where(np.isnan(values), len(column.levels), values).astype(int)
        blocks.append((column.slots()[codes][:, None] == np.arange(column.num_slots)).astype(float))
    return np.hstack(blocks), np.asarray(truth)


def weights(learning: TrainingRun) -> tuple[Array, Array]:
    """Of all inputs ``(inputs, outputs)``, effects behind the numbers', and the bias; float64."""
    found = {name: each.double().numpy() for name, each in learning.net.weights().items()}
    effects = found.get("effects", np.zeros((0, len(found["b"]))))[: learning.num_slots]
    return np.vstack([found["W"], effects]), found["b"]


def predictions(prepared: PreparedDataset, learning: TrainingRun) -> Array:
    """Of the test rows, in raw units of the target, or scores."""
    inputs, _ = one_hot(learning.prepared, "test")  # whose statistics see no held-out row
    W, b = weights(learning)
    target = recipe_of(learning.prepared).target
    assert target is not None
    return target.mean + target.scale * (inputs @ W + b)


def centred(coefficients: Array) -> Array:
    """Softmax does not see what is added to all scores."""
    return np.asarray(coefficients - coefficients.mean(axis=1, keepdims=True))


def converged(prepared: PreparedDataset, **options: Any) -> tuple[LogisticRegression, Array]:
    """scikit-learn's fit of the same objective, and its weights of every class."""
    inputs, truth = one_hot(prepared, "train")
    C = 1.0 if len(prepared.class_names) > 2 else 2.0
    fit = LogisticRegression(**{"C": C, "tol": 1e-10, "max_iter": 100_000} | options).fit(inputs, truth)
    return fit, fit.coef_.T if len(prepared.class_names) > 2 else np.hstack([-fit.coef_.T / 2, fit.coef_.T / 2])


def fifth(rows: int, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(rows) < 0.2


# scikit-learn's tables


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("table", ["iris", "wine", "breast_cancer", pytest.param("digits", marks=pytest.mark.slow)])
def test_a_classifier_is_as_good_as_a_converged_fit_of_scikit_learn(table: str, implementation: str) -> None:
    data = getattr(sklearn.datasets, f"load_{table}")()
    names = tuple(map(str, range(data.target.max() + 1)))
    prepared = prepare(data.data, data.target, fifth(len(data.target)), class_names=names)
    learning = learn(prepared, implementation=implementation)
    (inputs, truth), (fit, coefficients) = one_hot(prepared, "test"), converged(prepared)
    scores = torch.from_numpy(predictions(prepared, learning))
    ours = log_loss(truth, scores.softmax(dim=1), labels=range(len(names)))
    assert ours <= 1.02 * log_loss(truth, fit.predict_proba(inputs), labels=range(len(names))) + 0.01
    accuracy = float((scores.argmax(dim=1).numpy() == truth).mean())
    assert accuracy == pytest.approx(fit.score(inputs, truth), abs=0.02)
    W, _ = weights(learning)
    if np.linalg.cond(one_hot(prepared, "train")[0]) < 20:
        assert np.abs(centred(W) - coefficients).max() <= 1e-3 * np.abs(coefficients).max()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_regression_is_as_good_as_least_squares_of_scikit_learn(implementation: str) -> None:
    data = sklearn.datasets.load_diabetes(scaled=False)
    prepared = prepare(data.data, data.target, fifth(len(data.target)))
    learning = learn(prepared, implementation=implementation)
    inputs, truth = one_hot(prepared, "test")
    fit = LinearRegression().fit(*one_hot(prepared, "train"))
    errors = [
        np.sqrt(((each - truth) ** 2).mean()) for each in (predictions(prepared, learning)[:, 0], fit.predict(inputs))
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)
    target = recipe_of(prepared).target
    assert target is not None
    ours = weights(learning)[0][:, 0] * target.scale
    assert np.abs(ours - fit.coef_).max() <= 1e-3 * np.abs(fit.coef_).max()


# Tables made up: numbers, a boolean, categories with rare levels, missing values


def mixed(rows: int = 600, classes: int = 0, seed: int = 0, share: float = 0.5) -> PreparedDataset:
    """A target of numbers and categories, some of them rare, some missing; with ``classes`` its quantiles."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([
        rng.normal(50, 10, rows), rng.integers(0, 4, rows), rng.random(rows) < 0.3,
        np.where(rng.random(rows) < 0.02, rng.integers(3, 9, rows), rng.integers(0, 3, rows)), rng.lognormal(size=rows),
    ]).astype(float)  # fmt: skip
    signal = 0.1 * features[:, 0] + np.array([0, 1, -1, 2.0])[features[:, 1].astype(int)] + features[:, 2]
    truth = signal + 0.3 * features[:, 4] + rng.normal(size=rows)
    features[rng.random(rows) < 0.1, 0] = np.nan
    features[rng.random(rows) < 0.1, 1] = np.nan
    kinds = ("number", "category", "boolean", "category", "number")
    if not classes:
        return prepare(features, truth, fifth(rows), kinds)
    edges = np.quantile(truth, [1 - share]) if classes == 2 else np.quantile(truth, np.arange(1, classes) / classes)
    labels = np.digitize(truth, edges)
    return prepare(features, labels, fifth(rows), kinds, tuple(f"class {at}" for at in range(classes)))


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (0, {}),
        (0, {"loss": "huber"}),
        (0, {"weight_decay": 0.1}),
        (3, {}),
        (2, {"class_weight": "balanced"}),
        (3, {"batch_size": 64, "num_epochs": 3}),
        (0, {"loss": "huber", "batch_size": 64, "num_epochs": 3}),
    ],
)
def test_scratch_and_concise_learn_equal_weights(classes: int, options: dict[str, Any]) -> None:
    """From an equal start, in equal order; concise squared loss, which has no half, at half the rate by rule."""
    prepared = mixed(classes=classes)
    scratch, concise = (learn(prepared, implementation=each, **options) for each in IMPLEMENTATIONS)
    torch.testing.assert_close(scratch.net.weights(), concise.net.weights(), rtol=1e-4, atol=1e-6)
    halved = not classes and options.get("loss") != "huber"
    assert scratch.training.hyperparameters.lr == concise.training.hyperparameters.lr * (2 if halved else 1)


def of_categories(rows: int = 5000, classes: int = 3) -> PreparedDataset:
    """Categories of so many levels that some are taken in pairs and others alone, one of them missing at times."""
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.integers(0, levels, rows) for levels in (400, 3, 40, 5)] + [rng.normal(size=rows)])
    truth = (features[:, 2] % classes).astype(int)
    features[rng.random(rows) < 0.1, 2] = np.nan
    kinds = ("category",) * 4 + ("number",)
    return prepare(features, truth, fifth(rows), kinds, tuple(f"class {at}" for at in range(classes)))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_categories_in_pairs_and_alone_have_the_outputs_and_gradients_of_dense_one_hot_inputs(
    implementation: str,
) -> None:
    prepared = of_categories()
    inputs, truth = one_hot(prepared, "train")
    table = load(prepared, "train", torch.float32)
    encoding = table.encoding
    assert (encoding.stride.flatten() == 1).tolist() == [False, True, True], "one pair, and two columns alone"
    learning = learn(prepared, implementation=implementation, batch_size=500, num_epochs=2)
    X, y, places = next(table.minibatches(torch.arange(100), 100))
    W, b = weights(learning)
    for each in learning.net.parameters():
        each.grad = None
    o = learning.net.backward(X, y, places)
    np.testing.assert_allclose(o, inputs[:100] @ W + b, atol=1e-4)
    gradients = learning.net.gradients()
    assert gradients["W"] is not None
    assert gradients["effects"] is not None
    found = np.vstack([gradients["W"], gradients["effects"][: encoding.num_slots]])
    residual = (o.softmax(dim=1).numpy() - np.eye(3)[truth[:100]]) / 100
    np.testing.assert_allclose(found, inputs[:100].T @ residual, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_categories_are_learned_as_scikit_learn_learns_one_hot_inputs(classes: int, class_weight: str) -> None:
    """Balanced as scikit-learn means it: rows over classes times the rows of the class."""
    prepared = mixed(classes=classes, share=0.1)
    learning = learn(prepared, class_weight=class_weight)
    _, coefficients = converged(prepared, class_weight=None if class_weight == "none" else "balanced")
    assert np.abs(centred(weights(learning)[0]) - coefficients).max() <= 2e-3 * np.abs(coefficients).max()


def test_a_penalty_given_is_that_of_standardised_inputs_and_effects_before_centring() -> None:
    prepared = mixed()
    inputs, truth = one_hot(prepared, "train")
    fit = Ridge(alpha=0.05 * len(truth), tol=1e-12).fit(inputs, truth)
    for implementation in IMPLEMENTATIONS:
        learning = learn(prepared, implementation=implementation, weight_decay=0.05)
        np.testing.assert_allclose(
            predictions(prepared, learning)[:, 0], fit.predict(one_hot(prepared, "test")[0]), atol=1e-5
        )


def test_no_penalty_is_minimum_norm_where_indicators_sum_to_one_and_nothing_is_said_of_it() -> None:
    prepared = mixed()
    inputs, truth = one_hot(prepared, "train")
    learning = learn(prepared)
    fit = LinearRegression().fit(inputs, truth)  # centres, then scipy's lstsq: minimum norm
    target = recipe_of(prepared).target
    assert target is not None
    np.testing.assert_allclose(weights(learning)[0][:, 0] * target.scale, fit.coef_, atol=1e-6)
    assert learning.collinear == ()


# Columns that depend on each other


def dependent(offset: float, rows: int = 500) -> tuple[Array, Array]:
    """Two columns that differ by ``offset`` deviations, one apart, and a target that needs the difference."""
    rng = np.random.default_rng(0)
    first, difference, third = rng.normal(size=(3, rows))
    features = np.column_stack([first, first + offset * difference, third]).astype(np.float32)
    return features, first + difference + third + 0.1 * rng.normal(size=rows)


def test_at_a_condition_number_of_1e6_the_prediction_is_of_minimum_norm_and_columns_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    first, third = rng.normal(size=(2, 400))
    twin = first.astype(np.float32).astype(np.float64) * (1 + 2e-6 * rng.normal(size=400))
    features, truth = np.column_stack([first, twin, third]), first + third + 0.1 * rng.normal(size=400)
    prepared = prepare(features, truth, fifth(400), names=("a", "b", "c"))
    inputs, fitted = one_hot(prepared, "train")
    assert np.linalg.cond(inputs) > 2e5
    learning = learn(prepared)
    centred_inputs = inputs - inputs.mean(axis=0)
    expected = np.linalg.pinv(centred_inputs, rcond=1e-5) @ (fitted - fitted.mean())
    target = recipe_of(prepared).target
    assert target is not None
    np.testing.assert_allclose(weights(learning)[0][:, 0] * target.scale, expected, atol=1e-5)
    assert learning.collinear == ("a", "b")


def ill_conditioned(condition: float, noise: float, seed: int, rows: int = 400) -> tuple[Array, Array]:
    """Six columns whose singular values fall evenly to one over ``condition``, and a target of ordinary weights."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(each, 6)))[0] for each in (rows, 6))
    features = (left * np.geomspace(1, 1 / condition, 6) @ right.T * np.sqrt(rows)).astype(np.float32)
    return features, features @ rng.normal(size=6) + noise * rng.normal(size=rows)


def least_norm(inputs: Array, truth: Array, largest: float) -> tuple[Array, int]:
    """The weights of the highest rank whose norm is at most ``largest``, by numpy's pseudoinverse, and that rank."""
    values = np.linalg.svd(inputs, compute_uv=False)
    for rank in range(int((values > 1e-5 * values[0]).sum()), 0, -1):
        found = np.linalg.pinv(inputs, rcond=0.999 * values[rank - 1] / values[0]) @ truth
        if np.linalg.norm(found) <= largest:
            break
    return found, rank


@pytest.mark.parametrize(
    ("condition", "noise", "loss"),
    [(1e4, 1.0, "squared"), (1e5, 0.1, "squared"), (1e6, 0.1, "squared"), (1e6, 0.1, "huber"), (1e7, 1.0, "squared")],
)
def test_weights_that_noise_alone_makes_too_large_for_float32_are_those_of_minimum_norm_and_pass_the_gates(
    condition: float, noise: float, loss: str
) -> None:
    smaller = 0
    for seed in range(3):
        prepared = prepare(*ill_conditioned(condition, noise, seed), fifth(400))
        learning = learn(prepared, loss=loss)
        (inputs, truth), (others, unseen) = one_hot(prepared, "train"), one_hot(prepared, "test")
        recipe = recipe_of(prepared)
        assert recipe.target is not None
        deviations = (truth - recipe.target.mean) / recipe.target.scale
        expected, rank = least_norm(inputs - inputs.mean(axis=0), deviations, LARGEST_NORM)
        if loss == "squared":
            np.testing.assert_allclose(weights(learning)[0][:, 0], expected, atol=1e-4)
        assert bool(learning.collinear) == (rank < 6)
        smaller += rank < 6
        fit = LinearRegression().fit(inputs, truth)
        rmse, least = (
            np.sqrt(np.mean((each - unseen) ** 2))
            for each in (predictions(prepared, learning)[:, 0], fit.predict(others))
        )
        assert rmse < 1.05 * least
        learned_weights = {name: each.numpy() for name, each in learning.read_weights().items()}
        session = runtime.open_session(
            onnx_graph.write_model(learned_weights, recipe, prepared.signature, {}), Device.CPU
        )
        of_torch, _ = parity.compare_with_torch(session, learned_weights, prepared, Gates())
        for verdict in (*of_torch, *parity.compare_in_float64(session, learned_weights, prepared, Gates())):
            assert verdict.passed, verdict
    assert smaller, "or nothing is shown here"


@pytest.mark.parametrize("ratio", [0.0, 500.0])
def test_an_offset_makes_smaller_weights_too_large(ratio: float) -> None:
    rng = np.random.default_rng(1)
    first, third = rng.normal(size=(2, 400))
    features = np.column_stack([first + ratio, first + 0.01 * rng.normal(size=400) + ratio, third])
    prepared = prepare(features, first + third + 0.5 * rng.normal(size=400), fifth(400), names=("a", "b", "c"))
    learning = learn(prepared)
    W, _ = weights(learning)
    assert learning.collinear == (("a", "b") if ratio else ())
    assert (abs(W[0] - W[1]) < 1e-2) == bool(ratio)


def test_a_column_twice_shares_its_weight_and_is_named() -> None:
    data = sklearn.datasets.load_diabetes(scaled=False)
    twice = np.column_stack([data.data, data.data[:, 2] * 3 + 1, np.ones(len(data.data))])
    names = (*data.feature_names, "bmi again", "one")
    prepared = prepare(twice, data.target, fifth(len(twice)), names=names)
    learning, once = learn(prepared), learn(prepare(data.data, data.target, fifth(len(twice))))
    (both, _), (alone, _) = weights(learning), weights(once)
    np.testing.assert_allclose(both[[2, 10]], alone[[2, 2]] / 2, rtol=1e-4)
    assert both[11] == 0, "a constant has no weight, and is no news here"
    assert learning.collinear == ("bmi", "bmi again")


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_other_units_give_equal_predictions(classes: int, factor: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 4))
    truth: Array = features @ rng.normal(size=4) + rng.normal(size=400)
    names = tuple(f"class {at}" for at in range(classes))
    if classes:
        truth = np.digitize(truth, np.quantile(truth, [1 / 3, 2 / 3]))
    unit = 1.0 if classes else factor
    plain = prepare(features, truth, fifth(400), class_names=names)
    expected = predictions(plain, learn(plain))
    truth = truth if classes else truth * unit
    scaled = prepare(features * np.array([1, factor, 1, factor]), truth, fifth(400), class_names=names)
    found = predictions(scaled, learn(scaled))
    np.testing.assert_allclose(found / unit, expected, rtol=1e-3, atol=1e-3)


# Skewed targets, rare classes


def test_huber_on_a_skewed_target_is_the_converged_fit() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3))
    truth = features @ np.array([1.0, -2, 0.5]) + rng.lognormal(sigma=1.5, size=500)
    prepared = prepare(features, truth, fifth(500))
    target = recipe_of(prepared).target
    assert target is not None
    inputs, fitted = one_hot(prepared, "train")
    W, b = weights(learn(prepared, loss="huber"))
    residuals = inputs @ W[:, 0] + b[0] - (fitted - target.mean) / target.scale
    slopes = np.clip(residuals / 0.5, -1, 1)
    assert np.abs(inputs.T @ slopes).max() / len(inputs) < 1e-4, "the gradient vanishes"
    assert abs(slopes.mean()) < 1e-4


# What is not given


def test_weight_decay_auto_is_that_of_the_grid_that_is_best_on_the_last_fifth_of_keys() -> None:
    """Few rows, many columns of which one matters: without a penalty it overfits."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 40))
    truth = features[:, 0] + rng.normal(size=80)
    keys = np.arange(80)
    prepared = prepare(features, truth, keys >= 64, split_key=keys)
    learning = learn(prepared, weight_decay="auto")
    target = recipe_of(prepared).target
    assert target is not None
    inputs, fitted = one_hot(prepared, "train")
    fitted = (fitted - target.mean) / target.scale
    errors = {}
    for decay in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        fit = Ridge(alpha=decay * 51).fit(inputs[:51], fitted[:51])
        errors[decay] = float(((fit.predict(inputs[51:]) - fitted[51:]) ** 2).mean())
    assert learning.training.hyperparameters.weight_decay == min(errors, key=lambda decay: errors[decay])
    assert learning.num_examples == 64, "then all training rows are learned"
    fit = Ridge(alpha=learning.training.hyperparameters.weight_decay * 64).fit(inputs, fitted)
    np.testing.assert_allclose(weights(learning)[0][:, 0], fit.coef_, atol=1e-6)


def test_rows_that_are_named_validation_are_watched_and_train_no_weight() -> None:
    """Their targets obey another law: whoever learned from them would be far off."""
    features, truth = dependent(0.5)
    part = np.random.default_rng(1).choice(3, 500, p=[0.6, 0.2, 0.2])
    truth[part == 1] = -5 * truth[part == 1]
    prepared = prepare(features, truth, part == 2, is_validation=part == 1)
    asked = Training.model_validate({"model": "linear-regression", "defaults": "data", "validation": 0.5})
    trained: TrainedModel = plain(train)(RunFolder.open("test-run", {}), prepared, asked)
    fit = LinearRegression().fit(features[part == 0], truth[part == 0])
    assert (trained.num_examples, trained.num_validation) == ((part == 0).sum(), (part == 1).sum()), "and no share"
    losses = [((fit.predict(features[part == at]) - truth[part == at]) ** 2).mean() / 2 for at in range(3)]
    point = trained.kept_point
    assert [point.train_loss, point.validation_loss, point.test_loss] == pytest.approx(losses, rel=1e-4)
    learning = learn(prepared, weight_decay="auto")
    assert learning.training.hyperparameters.weight_decay == 1.0, "the most of the grid: the less is learned the better"


def test_validation_rows_are_enough_to_stop_early_unless_they_are_too_few() -> None:
    features, truth = dependent(0.5)
    part = np.arange(500) % 5
    truth[part == 1] = -truth[part == 1]
    watched = prepare(features, truth, part == 0, is_validation=part == 1)
    learning, epochs = learned_in(watched, patience=2, lr=0.01)
    assert (learning.num_validation, epochs) == (100, 3), "what is learned makes it worse from the first epoch on"
    for named, found in ((np.arange(500) == 1, "1 validation rows"), (None, "no row is one of validation")):
        with pytest.raises(UsageError, match=found):
            learn(prepare(features, truth, part == 0, is_validation=named), patience=2)


def test_what_is_given_stands_and_what_is_not_follows_from_the_rows() -> None:
    nothing = Training.model_validate({"defaults": "data"})
    few, many = (make_plan(nothing, rows, 20) for rows in (1000, 1_000_000))
    assert (few.is_full_batch, many.is_full_batch) == (True, False)
    squared = Training.model_validate({"model": "linear-regression", "defaults": "data"})
    assert make_plan(squared, 10**7, 20).is_full_batch, "one step is all that it needs"
    assert not make_plan(nothing, 16_000, 20, num_outputs=1000).is_full_batch, "16 million scores a step"
    features, truth = dependent(0.5)
    prepared = prepare(features, truth, fifth(500))
    given = learn(prepared, batch_size=32, lr=0.5, num_epochs=7, weight_decay=0.25).training.hyperparameters
    assert given == Hyperparameters(num_epochs=7, batch_size=32, lr=0.5, weight_decay=0.25)


@pytest.mark.parametrize("num_rows", [57_345, 180_001, 900_141, 1_638_401, 10_000_001, 400_000_001])
def test_the_last_minibatch_of_a_pass_is_no_handful_of_rows(num_rows: int) -> None:
    size = find_batch_size(num_rows)
    assert size / 2 < (num_rows % size or size) <= size <= LARGEST_BATCH_SIZE


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_last_minibatch_of_six_rows_moves_weights_as_far_as_six_rows_should(seed: int) -> None:
    """A whole step of theirs raised these losses by 0.009 to 0.09."""
    prepared = mixed(rows=6000, classes=2, seed=seed)
    assert prepared.num_train % 792 == 6
    _, truth = one_hot(prepared, "test")
    ends, whole = (
        log_loss(truth, torch.from_numpy(predictions(prepared, each)).softmax(dim=1).numpy())
        for each in (learn(prepared, batch_size=792, num_epochs=1), learn(prepared))
    )
    assert ends < whole + 0.005


def test_a_minibatch_larger_than_the_rows_is_all_of_them() -> None:
    prepared, found = mixed(classes=2), []
    for size in (prepared.num_train, 1_000_000):
        torch.manual_seed(0)  # from which dropout draws
        found.append(weights(learn(prepared, batch_size=size, dropout=0.1, num_epochs=3)))
    for each, other in zip(*found, strict=True):
        np.testing.assert_array_equal(each, other)


@pytest.mark.slow
def test_minibatches_of_many_rows_come_within_two_ten_thousandths_of_the_converged_log_loss() -> None:
    """A few passes; a class of 3 %, levels of a ten-thousandth, rows in the order of their class."""
    rng = np.random.default_rng(0)
    rows = 260_000
    levels = np.minimum(rng.zipf(1.5, rows) - 1, 300)
    features = np.column_stack([rng.normal(size=rows), levels, rng.lognormal(size=rows)])
    score = features[:, 0] + np.sin(levels) + 0.2 * features[:, 2] - 5
    labels = (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(int)
    order = np.argsort(labels, kind="stable")
    prepared = prepare(features[order], labels[order], fifth(rows), ("number", "category", "number"), ("no", "yes"))
    learning, passes = learned_in(prepared, implementation="scratch")
    assert passes <= 6
    _, truth = one_hot(prepared, "test")
    whole = learn(prepared, batch_size=1_000_000, num_epochs=100, implementation="scratch")
    losses = []
    for each in (learning, whole):
        table = load(prepared, "test", each.net.weights()["b"].dtype)
        losses.append(log_loss(truth, outputs(each.net, table).softmax(dim=1).numpy()))
    assert losses[0] == pytest.approx(losses[1], abs=0.0002)


@pytest.mark.slow
def test_minibatches_of_classes_that_hardly_overlap_are_repeated_until_the_loss_no_longer_falls() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(64_000, 4))
    labels = (features[:, 0] + features[:, 1] + 0.05 * rng.normal(size=64_000) > 0).astype(int)
    prepared = prepare(features, labels, fifth(64_000), class_names=("no", "yes"))
    learning, passes = learned_in(prepared)
    assert learning.training.hyperparameters.batch_size < prepared.num_train, "minibatches"
    assert passes > 11, "of half a million rows there are more than are seen of an easy table"
    scores, truth = predictions(prepared, learning), one_hot(prepared, "test")[1]
    best = log_loss(truth, converged(prepared)[0].predict_proba(one_hot(prepared, "test")[0]))
    assert log_loss(truth, torch.from_numpy(scores).softmax(dim=1)) < 1.05 * best + 0.01


@pytest.mark.slow
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_mean_of_many_small_minibatches_is_least_squares(implementation: str) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(450, 10))
    truth = features @ rng.normal(size=10) + rng.normal(size=450)
    prepared = prepare(features, truth, fifth(450))
    learning = learn(prepared, implementation=implementation, batch_size=32)
    inputs, fitted = one_hot(prepared, "train")
    expected = LinearRegression().fit(inputs, fitted).predict(one_hot(prepared, "test")[0])
    difference = predictions(prepared, learning)[:, 0] - expected
    assert np.square(difference).mean() < 5e-3, "beside the 0.03 by which the fit itself is off, in a variance of 1"


# The stage


def test_weights_that_float32_cannot_hold_are_a_divergence_though_losses_are_finite() -> None:
    features, truth = dependent(0.5)
    asked = Training.model_validate({"model": "linear-regression", "defaults": "data", "lr": 5.0, "num_epochs": 60})
    with pytest.raises(TrainingDiverged, match="float32 at lr 5"):
        plain(train)(RunFolder.open("test-run", {}), prepare(features, truth, fifth(500)), asked)


# At the edges


@pytest.mark.parametrize("weight_decay", [1e-13, 1e-20])
@pytest.mark.parametrize("classes", [0, 2])
def test_next_to_no_penalty_is_none_where_columns_depend_on_each_other(classes: int, weight_decay: float) -> None:
    rng = np.random.default_rng(0)
    first, levels = rng.normal(size=300), rng.integers(0, 3, 300)
    truth = first + levels + rng.normal(size=300)
    features = np.column_stack([first, first, levels])
    kinds, names = ("number", "number", "category"), tuple(map(str, range(classes)))
    prepared = prepare(features, (truth > 1).astype(int) if names else truth, fifth(300), kinds, names)
    found, none = (predictions(prepared, learn(prepared, weight_decay=each)) for each in (weight_decay, 0.0))
    np.testing.assert_allclose(found, none, atol=1e-3)


@pytest.mark.parametrize(
    ("rows", "option", "words"),
    [
        (20, {"validation": 0.5}, "at least 20 training examples are needed"),
        (30, {"weight_decay": "auto"}, "--weight-decay auto"),
    ],
)
def test_too_few_rows_for_a_validation_part_are_refused(rows: int, option: dict[str, Any], words: str) -> None:
    features, truth = dependent(0.5, rows)
    with pytest.raises(UsageError, match=words):
        learn(prepare(features, truth, fifth(rows)), **option)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("classes", [0, 2])
def test_a_table_of_categories_alone_is_learned(classes: int, implementation: str) -> None:
    rng = np.random.default_rng(0)
    codes = np.column_stack([rng.integers(0, 4, 600), rng.integers(0, 3, 600)])
    truth: Array = codes[:, 0] - codes[:, 1] + rng.normal(size=600)
    names = ("no", "yes") if classes else ()
    prepared = prepare(codes, (truth > 0).astype(int) if names else truth, fifth(600), ("category",) * 2, names)
    learning = learn(prepared, implementation=implementation)
    (inputs, _), (fitted, target) = one_hot(prepared, "test"), one_hot(prepared, "train")
    found = predictions(prepared, learning)
    if names:
        expected = converged(prepared)[0].decision_function(inputs)
        np.testing.assert_allclose(found[:, 1] - found[:, 0], expected, rtol=1e-3, atol=1e-3)
    else:
        np.testing.assert_allclose(found[:, 0], LinearRegression().fit(fitted, target).predict(inputs), atol=1e-5)


def test_numbers_that_hang_together_converge_beside_more_levels_than_are_whitened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "WHITENED_INPUTS", 50)
    rng = np.random.default_rng(0)
    first, levels = rng.normal(size=(2000, 1)), rng.permutation(np.arange(2000) % 60)
    numbers = first + 0.01 * rng.normal(size=(2000, 4))
    truth = 100 * (numbers[:, 0] - numbers[:, 1]) + rng.normal(size=60)[levels] + 0.3 * rng.normal(size=2000)
    prepared = prepare(np.column_stack([numbers, levels]), truth, fifth(2000), ("number",) * 4 + ("category",))
    fit = LinearRegression().fit(*one_hot(prepared, "train"))
    difference = predictions(prepared, learn(prepared))[:, 0] - fit.predict(one_hot(prepared, "test")[0])
    assert np.abs(difference).max() < 1e-3


def test_more_inputs_than_are_whitened_converge_column_by_column() -> None:
    """1100 levels; the penalty is the one that decides what their few rows say."""
    rng = np.random.default_rng(0)
    rows = 30_000
    levels = rng.permutation(np.arange(rows) % 1100)
    features = np.column_stack([rng.normal(size=rows), levels])
    truth = features[:, 0] + rng.normal(size=1100)[levels] + rng.normal(size=rows)
    prepared = prepare(features, truth, fifth(rows), ("number", "category"))
    learning = learn(prepared, weight_decay=1e-3)
    inputs, fitted = one_hot(prepared, "train")
    assert inputs.shape[1] > WHITENED_INPUTS
    fit = Ridge(alpha=1e-3 * len(fitted), solver="cholesky").fit(inputs, fitted)
    np.testing.assert_allclose(
        predictions(prepared, learning)[:, 0], fit.predict(one_hot(prepared, "test")[0]), atol=1e-3
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_shrinks_a_classifier_and_ends(implementation: str) -> None:
    prepared = mixed(classes=2)
    plain_norm, dropped_norm = (
        float(np.square(weights(learn(prepared, implementation=implementation, **options))[0][:3]).sum())
        for options in ({}, {"dropout": 0.5, "num_epochs": 50})
    )
    assert 0 < dropped_norm < plain_norm
