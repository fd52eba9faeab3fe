"""Own data are trained to the optimum of their objective: against scikit-learn, closed forms and float64 numpy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import sklearn.datasets
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss

import own_images
from candidate import plain
from prepared_tables import prepare
from tasks.data.prepared_splits import read_split
from tasks.data.recipe import Columns
from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting import trainer
from tasks.fitting.devices import one_thread
from tasks.fitting.trainer import (
    LARGEST_BATCH_SIZE,
    TrainingRun,
    find_batch_size,
    find_image_steps,
    make_plan,
    make_trainer,
)
from tasks.judging import baselines, parity
from tasks.judging.objective import Objective
from tasks.networks.table_network import (
    LARGEST_NORM,
)
from tasks.parameters import Device, Gates, Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.serving import onnx_graph, runtime
from tasks.store.run_folder import RunFolder
from tasks.train import train

Array = NDArray[Any]
CPU = torch.device("cpu")
IMPLEMENTATIONS = ["scratch", "concise"]
SOLVERS = [*IMPLEMENTATIONS, "reference"]


def learn(prepared: PreparedDataset, **options: Any) -> TrainingRun:
    """Train by the rules of tables, to the end."""
    return learned_in(prepared, **options)[0]


def ask(prepared: PreparedDataset, **options: Any) -> Training:
    model = "softmax-regression" if prepared.class_names else "linear-regression"
    return Training.model_validate({"model": model, "defaults": "data", **options})


def learned_in(prepared: PreparedDataset, **options: Any) -> tuple[TrainingRun, int]:
    """The same, and the number of epochs that it took."""
    with one_thread():
        learning = make_trainer(ask(prepared, **options), prepared, CPU).begin_training(
            torch.Generator().manual_seed(0)
        )
        return learning, sum(1 for _ in learning.epochs)


def recipe_of(prepared: PreparedDataset) -> Columns:
    assert isinstance(prepared.recipe, Columns)
    return prepared.recipe


def target_of(prepared: PreparedDataset) -> Any:
    return recipe_of(prepared).target


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
    target = target_of(learning.prepared)
    return np.asarray(target.mean + target.scale * (inputs @ W + b))


def centred(coefficients: Array) -> Array:
    """Softmax does not see what is added to all scores."""
    return np.asarray(coefficients - coefficients.mean(axis=1, keepdims=True))


def is_near(found: Array, expected: Array, share: float) -> bool:
    return bool(np.abs(found - expected).max() <= share * np.abs(expected).max())


def solve(prepared: PreparedDataset, solver: str, **options: Any) -> tuple[Array, Array, Array]:
    """Weights, bias, and what they say of the test rows: as trained, or the converged fit that judges candidates."""
    if solver in IMPLEMENTATIONS:
        learning = learn(prepared, implementation=solver, **options)
        return *weights(learning), predictions(prepared, learning)
    train, test = (read_split(file, prepared) for file in (prepared.train, prepared.test))
    objective, outputs = Objective.choose(ask(prepared, **options), prepared), len(prepared.class_names) or 1
    fit = baselines.fit_table(train.inputs, train.y_true, recipe_of(prepared), outputs, objective)
    assert fit.words.startswith("converged")
    return np.vstack([fit.weights["W"], fit.weights["effects"]]), fit.weights["b"], fit.score(test.inputs)


def converged(prepared: PreparedDataset, **options: Any) -> tuple[LogisticRegression, Array]:
    """scikit-learn's fit of the same objective, and its weights of every class."""
    inputs, truth = one_hot(prepared, "train")
    C = 1.0 if len(prepared.class_names) > 2 else 2.0
    fit = LogisticRegression(**{"C": C, "tol": 1e-10, "max_iter": 100_000} | options).fit(inputs, truth)
    return fit, fit.coef_.T if len(prepared.class_names) > 2 else np.hstack([-fit.coef_.T / 2, fit.coef_.T / 2])


def fifth(rows: int, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(rows) < 0.2


# scikit-learn's tables


def bundled(table: str) -> PreparedDataset:
    data = getattr(sklearn.datasets, f"load_{table}")()
    names = tuple(map(str, getattr(data, "target_names", ())))
    return prepare(data.data, data.target, fifth(len(data.target)), class_names=names)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("table", ["iris", "wine", "breast_cancer", pytest.param("digits", marks=pytest.mark.slow)])
def test_a_classifier_is_as_good_as_a_converged_fit_of_scikit_learn(table: str, solver: str) -> None:
    prepared = bundled(table)
    labels, (W, _, scores) = range(len(prepared.class_names)), solve(prepared, solver)
    (inputs, truth), (fit, coefficients) = one_hot(prepared, "test"), converged(prepared)
    ours, best = (
        log_loss(truth, each, labels=labels)
        for each in (scipy.special.softmax(scores, axis=1), fit.predict_proba(inputs))
    )
    assert ours <= 1.02 * best + 0.01
    assert np.mean(scores.argmax(axis=1) == truth) == pytest.approx(fit.score(inputs, truth), abs=0.02)
    tolerance = 5e-3 if solver == "reference" else 1e-3
    if table == "digits" or (solver, table) == ("reference", "breast_cancer"):  # nearly collinear: 0.87 % measured
        tolerance = 1e-2
    assert is_near(centred(W), coefficients, tolerance)


# Tables made up: numbers, a boolean, categories with rare levels, missing values


EVERY, CATEGORIES = range(5), [1, 3]


def mixed(
    rows: int = 600, classes: int = 0, seed: int = 0, share: float = 0.5, columns: Sequence[int] = EVERY
) -> PreparedDataset:
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
    features = features[:, columns]
    kinds = [("number", "category", "boolean", "category", "number")[at] for at in columns]
    if not classes:
        return prepare(features, truth, fifth(rows), kinds)
    edges = np.quantile(truth, [1 - share]) if classes == 2 else np.quantile(truth, np.arange(1, classes) / classes)
    labels = np.digitize(truth, edges)
    return prepare(features, labels, fifth(rows), kinds, tuple(f"class {at}" for at in range(classes)))


REGRESSIONS: dict[str, Callable[[], PreparedDataset]] = {
    "numbers": lambda: bundled("diabetes"),
    "all kinds": mixed,
    "categories": lambda: mixed(columns=CATEGORIES),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.05}])
@pytest.mark.parametrize("table", REGRESSIONS)
def test_a_regression_has_the_weights_of_scikit_learns_least_squares(
    table: str, options: dict[str, float], solver: str
) -> None:
    """A penalty is that of standardised inputs and effects before centring; without one the norm is the least."""
    prepared = REGRESSIONS[table]()
    (inputs, truth), scale = one_hot(prepared, "train"), target_of(prepared).scale
    W, _, found = solve(prepared, solver, **options)
    fit = Ridge(alpha=0.05 * len(truth), tol=1e-12) if options else LinearRegression()
    fit.fit(inputs, truth)  # which centres, then takes scipy's lstsq: minimum norm
    np.testing.assert_allclose(found[:, 0], fit.predict(one_hot(prepared, "test")[0]), atol=1e-5 * scale)
    np.testing.assert_allclose(W[:, 0] * scale, fit.coef_, atol=1e-5 * scale)


def test_of_many_inputs_the_converged_fit_descends_to_the_same_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = bundled("diabetes")
    closed, *_ = solve(prepared, "reference", weight_decay=0.1)
    monkeypatch.setattr(baselines, "CLOSED_FORM_WIDTH", 0)
    descended, *_ = solve(prepared, "reference", weight_decay=0.1)
    assert not np.array_equal(descended, closed)
    assert is_near(descended, closed, 5e-3)


@pytest.mark.parametrize("solver", ["concise", "reference"])
@pytest.mark.parametrize("columns", [EVERY, CATEGORIES])
@pytest.mark.parametrize(("classes", "class_weight"), [(2, "none"), (2, "balanced"), (4, "none"), (4, "balanced")])
def test_categories_are_learned_as_scikit_learn_learns_one_hot_inputs(
    classes: int, class_weight: str, columns: Sequence[int], solver: str
) -> None:
    """Balanced as scikit-learn means it: rows over classes times the rows of the class."""
    prepared = mixed(classes=classes, share=0.1, columns=columns)
    W, *_ = solve(prepared, solver, class_weight=class_weight)
    _, coefficients = converged(prepared, class_weight=None if class_weight == "none" else "balanced")
    assert is_near(centred(W), coefficients, 5e-3 if solver == "reference" else 2e-3)


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
    assert scratch.collinear == concise.collinear == (), "that indicators of a column sum to one is no news"
    halved = not classes and options.get("loss") != "huber"
    assert scratch.training.hyperparameters.lr == concise.training.hyperparameters.lr * (2 if halved else 1)


# Columns that depend on each other


def dependent(offset: float, rows: int = 500) -> tuple[Array, Array]:
    """Two columns that differ by ``offset`` deviations, one apart, and a target that needs the difference."""
    rng = np.random.default_rng(0)
    first, difference, third = rng.normal(size=(3, rows))
    features = np.column_stack([first, first + offset * difference, third]).astype(np.float32)
    return features, first + difference + third + 0.1 * rng.normal(size=rows)


def test_at_a_condition_number_of_1e6_the_prediction_is_of_minimum_norm_and_columns_are_named() -> None:
    rng = np.random.default_rng(0)
    first, third = rng.normal(size=(2, 400))
    twin = first.astype(np.float32).astype(np.float64) * (1 + 2e-6 * rng.normal(size=400))
    features, truth = np.column_stack([first, twin, third, np.ones(400)]), first + third + 0.1 * rng.normal(size=400)
    prepared = prepare(features, truth, fifth(400), names=("a", "b", "c", "one"))
    inputs, fitted = one_hot(prepared, "train")
    assert np.linalg.cond(inputs[:, :3]) > 2e5
    expected = np.linalg.pinv(inputs - inputs.mean(axis=0), rcond=1e-5) @ (fitted - fitted.mean())
    for solver in ("concise", "reference"):
        W, *_ = solve(prepared, solver)
        np.testing.assert_allclose(W[:, 0] * target_of(prepared).scale, expected, atol=1e-5)
    assert learn(prepared).collinear == ("a", "b"), "a constant is no news here"


def ill_conditioned(condition: float, noise: float, seed: int, rows: int = 400) -> tuple[Array, Array]:
    """Six columns whose singular values fall evenly to one over ``condition``, and a target of ordinary weights."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(each, 6)))[0] for each in (rows, 6))
    features = (left * np.geomspace(1, 1 / condition, 6) @ right.T * np.sqrt(rows)).astype(np.float32)
    return features, features @ rng.normal(size=6) + noise * rng.normal(size=rows)


@pytest.mark.parametrize(
    ("condition", "noise", "loss"),
    [(1e4, 1.0, "squared"), (1e5, 0.1, "squared"), (1e6, 0.1, "squared"), (1e6, 0.1, "huber"), (1e7, 1.0, "squared")],
)
def test_weights_that_noise_alone_makes_too_large_for_float32_are_smaller_ones_and_pass_the_gates(
    condition: float, noise: float, loss: str
) -> None:
    """Those of the highest rank whose norm is small enough."""
    num_smaller = 0
    for seed in range(3):
        prepared = prepare(*ill_conditioned(condition, noise, seed), fifth(400))
        learning, target = learn(prepared, loss=loss), target_of(prepared)
        (inputs, truth), (others, unseen) = one_hot(prepared, "train"), one_hot(prepared, "test")
        left, values, right = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)
        parts = right.T * (left.T @ ((truth - target.mean) / target.scale) / values)
        fits = np.cumsum(parts[:, values > 1e-5 * values[0]], axis=1)
        rank = int((np.linalg.norm(fits, axis=0) <= LARGEST_NORM).sum())
        if loss == "squared":
            np.testing.assert_allclose(weights(learning)[0][:, 0], fits[:, rank - 1], atol=1e-4)
        assert bool(learning.collinear) == (rank < 6)
        num_smaller += rank < 6
        least = LinearRegression().fit(inputs, truth).predict(others)
        rmse, best = (np.sqrt(np.mean((each - unseen) ** 2)) for each in (predictions(prepared, learning)[:, 0], least))
        assert rmse < 1.05 * best
        found = {name: each.numpy() for name, each in learning.read_weights().items()}
        content = onnx_graph.write_model(found, recipe_of(prepared), prepared.signature, {})
        session = runtime.open_session(content, Device.CPU)
        verdicts, _ = parity.compare_with_torch(session, found, prepared, Gates())
        assert all(each.passed for each in (*verdicts, *parity.compare_in_float64(session, found, prepared, Gates())))
    assert num_smaller, "or nothing is shown here"


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


# Skewed targets, rare classes


@pytest.mark.parametrize("solver", SOLVERS)
def test_huber_on_a_skewed_target_is_at_its_minimum(solver: str) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3))
    truth = features @ np.array([1.0, -2, 0.5]) + rng.lognormal(sigma=1.5, size=500)
    prepared = prepare(features, truth, fifth(500))
    (inputs, fitted), target = one_hot(prepared, "train"), target_of(prepared)
    W, b, _ = solve(prepared, solver, loss="huber")
    slopes = np.clip((inputs @ W[:, 0] + b[0] - (fitted - target.mean) / target.scale) / 0.5, -1, 1)
    gradient = np.append(inputs.T @ slopes, slopes.sum()) / len(inputs)
    assert np.abs(gradient).max() < 1e-4


# What is not given


@pytest.mark.parametrize("classes", [0, 3])
def test_weight_decay_auto_is_that_of_the_grid_that_is_best_on_the_last_fifth_of_keys(classes: int) -> None:
    """Few rows, many columns of which one matters: without a penalty it overfits."""
    rng, keys = np.random.default_rng(0), np.arange(80)
    features = rng.normal(size=(80, 40))
    truth: Array = features[:, 0] + rng.normal(size=80)
    if classes:
        truth = np.digitize(truth, [-0.5, 0.5])
    names = tuple(map(str, range(classes)))
    prepared = prepare(features, truth, keys >= 64, split_key=keys, class_names=names)
    learning = learn(prepared, weight_decay="auto")
    (inputs, fitted), losses = one_hot(prepared, "train"), {}
    for decay in 10.0 ** np.arange(-1, 4) / 64 if classes else 10.0 ** np.arange(-4, 1):
        if classes:
            fit = LogisticRegression(C=1 / (51 * decay), tol=1e-9, max_iter=10_000).fit(inputs[:51], fitted[:51])
            losses[decay] = log_loss(fitted[51:], fit.predict_proba(inputs[51:]), labels=range(classes))
        else:
            fit = Ridge(alpha=decay * 51).fit(inputs[:51], fitted[:51])
            losses[decay] = float(((fit.predict(inputs[51:]) - fitted[51:]) ** 2).mean())
    chosen = learning.training.hyperparameters.weight_decay
    assert chosen == pytest.approx(min(losses, key=lambda decay: losses[decay]))
    assert learning.num_examples == 64, "then all training rows are learned"
    given = learn(prepared, weight_decay=chosen)
    np.testing.assert_array_equal(weights(learning)[0], weights(given)[0], "as if it had been given")


def test_rows_that_are_named_validation_are_watched_and_train_no_weight() -> None:
    """Their targets obey another law: whoever learned from them would be far off."""
    features, truth = dependent(0.5)
    part = np.random.default_rng(1).choice(3, 500, p=[0.6, 0.2, 0.2])
    truth[part == 1] *= -5
    prepared = prepare(features, truth, part == 2, is_validation=part == 1)
    found: TrainedModel = plain(train)(RunFolder.open("test-run", {}), prepared, ask(prepared, validation=0.5))
    fit = LinearRegression().fit(features[part == 0], truth[part == 0])
    assert (found.num_examples, found.num_validation) == ((part == 0).sum(), (part == 1).sum()), "and no share"
    losses = [np.square(fit.predict(features[part == at]) - truth[part == at]).mean() / 2 for at in range(3)]
    point = found.kept_point
    assert [point.train_loss, point.validation_loss, point.test_loss] == pytest.approx(losses, rel=1e-4)
    chosen = learn(prepared, weight_decay="auto").training.hyperparameters.weight_decay
    assert chosen == 1.0, "the most of the grid: the less is learned the better"


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
    nothing = Training(defaults="data")
    assert [make_plan(nothing, rows, 20).is_full_batch for rows in (1000, 1_000_000)] == [True, False]
    squared = Training.model_validate({"model": "linear-regression", "defaults": "data"})
    assert make_plan(squared, 10**7, 20).is_full_batch, "one step is all that it needs"
    assert not make_plan(nothing, 16_000, 20, num_outputs=1000).is_full_batch, "16 million scores a step"
    given = {"batch_size": 32, "lr": 0.5, "num_epochs": 7, "weight_decay": 0.25}
    found = learn(prepare(*dependent(0.5), fifth(500)), **given).training.hyperparameters
    assert found.model_dump() == given


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


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_shrinks_a_classifier_and_ends(implementation: str) -> None:
    prepared = mixed(classes=2)
    plain_norm, dropped_norm = (
        float(np.square(weights(learn(prepared, implementation=implementation, **options))[0][:3]).sum())
        for options in ({}, {"dropout": 0.5, "num_epochs": 50})
    )
    assert 0 < dropped_norm < plain_norm


# Pictures: the book's loop by rules of its own


@pytest.mark.parametrize(
    ("num_examples", "num_inputs", "expected"),
    [
        (60_000, 784, (10, 0.1)),
        (500, 784, (1175, 0.1)),
        (500, 64, (1175, 0.1)),
        (20, 784, (2350, 0.1)),
        (1_000_000, 784, (10, 0.1)),
        (60_000, 64 * 64 * 3, (10, 0.1 * 784 / (64 * 64 * 3))),
    ],
)
def test_epochs_and_rate_are_the_books_and_fewer_pictures_have_more_and_more_pixels_a_smaller_one(
    num_examples: int, num_inputs: int, expected: tuple[int, float]
) -> None:
    found = find_image_steps(Training(defaults="data"), num_examples, num_inputs, 0.5)
    assert found.lr == pytest.approx(expected[1])
    assert (found.num_epochs, found.batch_size, found.weight_decay) == (expected[0], 256, 0.5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
@pytest.mark.parametrize("darkest", [0, 150])
def test_the_steps_are_those_of_numpy_with_a_penalty_on_the_weights_alone(
    implementation: str, class_weight: str, darkest: int
) -> None:
    """Of bright pictures they are taken on inputs less their mean, for the book's rate would never arrive."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 100, (200, 20, 15, 3), np.uint8), rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    prepared = own_images.prepare(images + np.uint8(darkest), labels, "abc")
    asked = {"implementation": implementation, "class_weight": class_weight, "num_epochs": 4, "batch_size": 64}
    training = Training.model_validate({"defaults": "data", "device": "cpu", "seed": 5, "schedule": "step", **asked})
    found: TrainedModel = plain(train)(RunFolder.open("own", {}), prepared, training)
    learned, count = safetensors.numpy.load_file(found.weights.path), prepared.num_train
    assert found.steps is not None
    assert found.steps.weight_decay == pytest.approx(1 / count)
    of_classes = count / (3 * np.array(prepared.class_counts)) if class_weight == "balanced" else np.ones(3)
    pixels, y, _ = read_split(prepared.train, prepared)
    X = pixels.reshape(count, 900) / 255
    mean = X.mean(axis=0) if darkest else np.zeros(900)
    generator = torch.Generator().manual_seed(5)
    W = torch.normal(0, 0.01, (3, 900), generator=generator).numpy().T.astype(float)
    b = mean @ W
    for lr in 0.1 * 784 / 900 * 10.0 ** -np.arange(4):
        order = torch.randperm(count, generator=generator).numpy()
        for at in np.split(order, range(64, count, 64)):
            o = (X[at] - mean) @ W + b
            g = (scipy.special.softmax(o, axis=1) - np.eye(3)[y[at]]) * of_classes[y[at], None] / len(at)
            W, b = W - lr * ((X[at] - mean).T @ g + W / count), b - lr * g.sum(axis=0)
    np.testing.assert_allclose(learned["W"], W, atol=2e-6)
    np.testing.assert_allclose(learned["b"], b - mean @ W, atol=1e-4 if darkest else 2e-6)
