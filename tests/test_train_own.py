"""Own data are trained to the optimum of their objective: against scikit-learn, closed forms and float64 numpy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import sklearn.datasets
import torch
from numpy.testing import assert_allclose, assert_array_equal
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
from tasks.networks.table_network import LARGEST_NORM
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
    with one_thread():
        learning = make_trainer(ask(prepared, **options), prepared, CPU).begin_training(
            torch.Generator().manual_seed(0)
        )
        list(learning.epochs)
        return learning


def ask(prepared: PreparedDataset, **options: Any) -> Training:
    model = "softmax-regression" if prepared.class_names else "linear-regression"
    return Training.model_validate({"model": model, "defaults": "data", **options})


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
        blocks.append((column.weight_indices()[codes][:, None] == np.arange(column.num_slots)).astype(float))
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


def fifth(rows: int) -> NDArray[np.bool_]:
    return np.random.default_rng(0).random(rows) < 0.2


# scikit-learn's tables


def bundled(table: str) -> PreparedDataset:
    data = getattr(sklearn.datasets, f"load_{table}")()
    names = tuple(map(str, getattr(data, "target_names", ())))
    return prepare(data.data, data.target, fifth(len(data.target)), class_names=names)


# Tables made up: numbers, a boolean, categories with rare levels, missing values


ALL, CATEGORIES = range(5), [1, 3]


def mixed(
    rows: int = 600, classes: int = 0, seed: int = 0, share: float = 0.5, columns: Sequence[int] = ALL
) -> PreparedDataset:
    """A target of numbers and categories, some of them rare, some missing; with ``classes`` its quantiles."""
    rng = np.random.default_rng(seed)
    features = np.column_stack([
        rng.normal(50, 10, rows), rng.integers(0, 4, rows), rng.random(rows) < 0.3,
        np.where(rng.random(rows) < 0.02, rng.integers(3, 9, rows), rng.integers(0, 3, rows)), rng.lognormal(size=rows),
    ]).astype(float)  # fmt: skip
    truth = features @ [0.1, -0.5, 1, 0, 0.3] + 2 * (features[:, 1] == 3) + rng.normal(size=rows)
    features[:, :2][rng.random((rows, 2)) < 0.1] = np.nan
    names = tuple(map(str, range(classes)))
    if classes:
        truth = np.digitize(truth, np.quantile(truth, [1 - share] if classes == 2 else np.arange(1, classes) / classes))
    kinds = np.array(["number", "category", "boolean", "category", "number"])[columns]
    return prepare(features[:, columns], truth, fifth(rows), kinds.tolist(), names)


# Tables of classes, and the options with which each is learned.
CLASSIFIERS: dict[str, tuple[Callable[[], PreparedDataset], dict[str, Any]]] = {
    **{table: (partial(bundled, table), {}) for table in ("iris", "wine", "breast_cancer", "digits")},
    **{
        f"{classes} {columns} {class_weight}": (
            partial(mixed, classes=classes, share=0.1, columns=ALL if columns == "of all kinds" else CATEGORIES),
            {"class_weight": class_weight},
        )
        for classes in (2, 4)
        for columns in ("of all kinds", "of categories")
        for class_weight in ("none", "balanced")
    },
}
SLOW = [pytest.param(each, marks=pytest.mark.slow) if each == "digits" else each for each in CLASSIFIERS]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("table", SLOW)
def test_a_classifier_is_as_good_as_a_converged_fit_of_scikit_learn(table: str, solver: str) -> None:
    """Balanced as scikit-learn means it: rows over classes times the rows of the class."""
    make, options = CLASSIFIERS[table]
    prepared = make()
    num_classes, (W, _, scores) = len(prepared.class_names), solve(prepared, solver, **options)
    weight, C = options.get("class_weight", "none"), 1.0 if num_classes > 2 else 2.0
    fit = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, class_weight=None if weight == "none" else weight)
    fit.fit(*one_hot(prepared, "train"))
    expected = fit.coef_.T if num_classes > 2 else fit.coef_.T * [-0.5, 0.5]
    centred = W - W.mean(axis=1, keepdims=True)  # softmax does not see what is added to all scores
    tolerance = 1e-2 if solver == "reference" or table == "digits" else 2e-3  # of nearly collinear columns 0.87 %
    assert_allclose(centred, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    inputs, truth = one_hot(prepared, "test")
    ours, best = (
        log_loss(truth, each, labels=range(num_classes))
        for each in (scipy.special.softmax(scores, axis=1), fit.predict_proba(inputs))
    )
    assert ours <= 1.02 * best + 0.01
    assert np.mean(scores.argmax(axis=1) == truth) == pytest.approx(fit.score(inputs, truth), abs=0.02)


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
    assert_allclose(found[:, 0], fit.predict(one_hot(prepared, "test")[0]), atol=1e-5 * scale)
    assert_allclose(W[:, 0] * scale, fit.coef_, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("classes", "loss", "steps"),
    [
        (0, "squared", {}),
        (0, "huber", {}),
        (3, "cross-entropy", {"batch_size": 64, "num_epochs": 3}),
        (0, "huber", {"batch_size": 64, "num_epochs": 3}),
    ],
)
def test_scratch_and_concise_learn_equal_weights(classes: int, loss: str, steps: dict[str, int]) -> None:
    """From an equal start, in equal order; concise squared loss, which has no half, at half the rate by rule."""
    prepared = mixed(classes=classes)
    scratch, concise = (learn(prepared, implementation=each, loss=loss, **steps) for each in IMPLEMENTATIONS)
    torch.testing.assert_close(scratch.net.weights(), concise.net.weights(), rtol=1e-4, atol=1e-6)
    assert scratch.collinear == (), "that indicators of a column sum to one is no news"
    rates = [each.training.hyperparameters.lr for each in (scratch, concise)]
    assert rates[0] == rates[1] * (2 if loss == "squared" else 1)


# Columns that depend on each other


def test_at_a_condition_number_of_1e6_the_prediction_is_of_minimum_norm_and_columns_are_named() -> None:
    rng = np.random.default_rng(0)
    first, third, noise, change = rng.normal(size=(4, 400))
    features = np.column_stack([first, first.astype(np.float32) * (1 + 2e-6 * change), third, np.ones(400)])
    prepared = prepare(features, first + third + 0.1 * noise, fifth(400), names=("a", "b", "c", "one"))
    inputs, fitted = one_hot(prepared, "train")
    assert np.linalg.cond(inputs[:, :3]) > 2e5
    expected = np.linalg.pinv(inputs - inputs.mean(axis=0), rcond=1e-5) @ (fitted - fitted.mean())
    for solver in ("concise", "reference"):
        W, *_ = solve(prepared, solver)
        assert_allclose(W[:, 0] * target_of(prepared).scale, expected, atol=1e-5)
    assert learn(prepared).collinear == ("a", "b"), "a constant is no news here"


@pytest.mark.parametrize(
    ("condition", "noise", "loss"),
    [(1e4, 1.0, "squared"), (1e5, 0.1, "squared"), (1e6, 0.1, "huber"), (1e7, 1.0, "squared")],
)
def test_weights_that_noise_alone_makes_too_large_for_float32_are_smaller_ones_and_pass_the_gates(
    condition: float, noise: float, loss: str
) -> None:
    """Those of the highest rank whose norm is small enough.

    Six columns have singular values that fall evenly to one over ``condition``.
    """
    ranks = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        left, right = (np.linalg.qr(rng.normal(size=(each, 6)))[0] for each in (400, 6))
        features = (left * np.geomspace(1, 1 / condition, 6) @ right.T * 20).astype(np.float32)
        truth = features @ rng.normal(size=6) + noise * rng.normal(size=400)
        prepared = prepare(features, truth, fifth(400))
        learning, (inputs, truth), target = learn(prepared, loss=loss), one_hot(prepared, "train"), target_of(prepared)
        left, values, right = np.linalg.svd(inputs - inputs.mean(axis=0), full_matrices=False)
        parts = right.T * (left.T @ ((truth - target.mean) / target.scale) / values)
        fits = np.cumsum(parts[:, values > 1e-5 * values[0]], axis=1)
        ranks.append(int((np.linalg.norm(fits, axis=0) <= LARGEST_NORM).sum()))
        if loss == "squared":
            assert_allclose(weights(learning)[0][:, 0], fits[:, ranks[-1] - 1], atol=1e-4)
        assert bool(learning.collinear) == (ranks[-1] < 6)
        found = {name: each.numpy() for name, each in learning.read_weights().items()}
        content = onnx_graph.write_model(found, recipe_of(prepared), prepared.signature, {})
        asked = runtime.open_session(content, Device.CPU), found, prepared, Gates()
        assert all(
            each.passed for each in (*parity.compare_with_weights(*asked)[0], *parity.compare_in_float64(*asked))
        )
    assert min(ranks) < 6, "or nothing is shown here"


@pytest.mark.parametrize(("offset", "collinear"), [(0.0, ()), (500.0, ("a", "b"))])
def test_an_offset_makes_smaller_weights_too_large(offset: float, collinear: tuple[str, ...]) -> None:
    first, third, change, noise = np.random.default_rng(1).normal(size=(4, 400))
    features = np.column_stack([first + offset, first + 0.01 * change + offset, third])
    assert learn(prepare(features, first + third + 0.5 * noise, fifth(400), names="abc")).collinear == collinear


# Skewed targets, rare classes


@pytest.mark.parametrize("solver", SOLVERS)
def test_huber_on_a_skewed_target_is_at_its_minimum(solver: str) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 3))
    prepared = prepare(features, features @ [1.0, -2, 0.5] + rng.lognormal(sigma=1.5, size=500), fifth(500))
    (inputs, fitted), target = one_hot(prepared, "train"), target_of(prepared)
    W, b, _ = solve(prepared, solver, loss="huber")
    slopes = np.clip((inputs @ W[:, 0] + b[0] - (fitted - target.mean) / target.scale) / 0.5, -1, 1)
    assert np.abs(np.append(inputs.T @ slopes, slopes.sum())).max() < 1e-4 * len(inputs)


# What is not given


def test_weight_decay_auto_is_that_of_the_grid_that_is_best_on_the_last_fifth_of_keys() -> None:
    """Few rows, many columns of which one matters: without a penalty it overfits."""
    rng, keys = np.random.default_rng(0), np.arange(80)
    features = rng.normal(size=(80, 40))
    truth = np.digitize(features[:, 0] + rng.normal(size=80), [-0.5, 0.5])
    prepared = prepare(features, truth, keys >= 64, split_key=keys, class_names="abc")
    (inputs, fitted), losses = one_hot(prepared, "train"), {}
    for decay in 10.0 ** np.arange(-1, 4) / 64:
        fit = LogisticRegression(C=1 / (51 * decay), tol=1e-9, max_iter=10_000).fit(inputs[:51], fitted[:51])
        losses[log_loss(fitted[51:], fit.predict_proba(inputs[51:]))] = decay
    learning = learn(prepared, weight_decay="auto")
    chosen = learning.training.hyperparameters.weight_decay
    assert chosen == pytest.approx(losses[min(losses)])
    assert learning.num_examples == 64, "then all training rows are learned"
    given = learn(prepared, weight_decay=chosen)
    assert_array_equal(weights(learning)[0], weights(given)[0], "as if it had been given")


def dependent(rows: int = 500) -> tuple[Array, Array]:
    """Two columns that are alike, one apart, and a target that needs the difference."""
    rng = np.random.default_rng(0)
    first, difference, third = rng.normal(size=(3, rows))
    features = np.column_stack([first, first + 0.5 * difference, third]).astype(np.float32)
    return features, first + difference + third + 0.1 * rng.normal(size=rows)


def test_rows_that_are_named_validation_are_watched_and_train_no_weight() -> None:
    """Their targets obey another law: whoever learned from them would be far off."""
    features, truth = dependent()
    part = np.random.default_rng(1).choice(3, 500, p=[0.6, 0.2, 0.2])
    truth[part == 1] *= -5
    prepared = prepare(features, truth, part == 2, is_validation=part == 1)
    learning = learn(prepared, validation=0.5)
    counts = (part == 0).sum(), (part == 1).sum()
    assert (learning.num_examples, learning.num_validation) == counts, "and no share"
    fit = LinearRegression().fit(features[part == 0], truth[part == 0])
    assert_allclose(predictions(prepared, learning)[:, 0], fit.predict(features[part == 2]), atol=1e-3)
    chosen = learn(prepared, weight_decay="auto").training.hyperparameters.weight_decay
    assert chosen == 1.0, "the most of the grid: the less is learned the better"


@pytest.mark.parametrize(
    ("rows", "validation", "option", "words"),
    [
        (500, 1, {"patience": 2}, "^only 1 validation rows"),
        (500, 0, {"patience": 2}, "without validation rows"),
        (1250, 0, {"validation": 0.0001}, "of 1000 training examples holds out 0 and leaves 1000"),
        (1250, 0, {"validation": 0.009}, "of 1000 training examples holds out 9 and leaves 991"),
        (1250, 0, {"validation": 0.999}, "of 1000 training examples holds out 999 and leaves 1"),
        (20, 0, {"validation": 0.5}, "at least 20 training examples are needed"),
        (30, 0, {"weight_decay": "auto"}, "^--weight-decay auto"),
    ],
)
def test_a_validation_part_that_is_missing_or_too_small_is_refused_and_says_what_it_is(
    rows: int, validation: int, option: dict[str, Any], words: str
) -> None:
    at, (features, truth) = np.arange(rows), dependent(rows)
    with pytest.raises(UsageError, match=words):
        learn(prepare(features, truth, at % 5 == 0, is_validation=at == 1 if validation else None), **option)


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
    prepared = prepare(*dependent(), fifth(500))
    with pytest.raises(TrainingDiverged, match="float32 at lr 5"):
        learn(prepared, lr=5.0, num_epochs=60).read_weights()


# Pictures: the book's loop by rules of its own


@pytest.mark.parametrize(
    ("num_examples", "num_inputs", "num_epochs", "lr"),
    [
        (60_000, 784, 10, 0.1),
        (500, 784, 1175, 0.1),
        (500, 64, 1175, 0.1),
        (20, 784, 2350, 0.1),
        (1_000_000, 784, 10, 0.1),
        (60_000, 2 * 784, 10, 0.05),
    ],
)
def test_epochs_and_rate_are_the_books_and_fewer_pictures_have_more_and_more_pixels_a_smaller_one(
    num_examples: int, num_inputs: int, num_epochs: int, lr: float
) -> None:
    found = find_image_steps(Training(defaults="data"), num_examples, num_inputs, 0.5)
    assert (found.num_epochs, found.lr, found.batch_size, found.weight_decay) == (num_epochs, lr, 256, 0.5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
@pytest.mark.parametrize("darkest", [0, 150])
def test_the_steps_are_those_of_numpy_with_a_penalty_on_the_weights_alone(
    implementation: str, class_weight: str, darkest: int
) -> None:
    """Of bright pictures they are taken on inputs less their mean, for the book's rate would never arrive."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 100, (200, 20, 15, 3), np.uint8), rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    prepared, count = own_images.prepare(images + np.uint8(darkest), labels, "abc", np.arange(200) >= 160), 160
    asked = {"implementation": implementation, "class_weight": class_weight, "num_epochs": 4, "batch_size": 64}
    training = ask(prepared, device="cpu", seed=5, schedule="step", **asked)
    found: TrainedModel = plain(train)(RunFolder.open("own", {}), prepared, training)
    learned = safetensors.numpy.load_file(found.weights.path)
    pixels, y, _ = read_split(prepared.train, prepared)
    of_rows = (count / (3 * np.bincount(y)) if class_weight == "balanced" else np.ones(3))[y]
    X = pixels.reshape(count, 900) / 255
    mean = X.mean(axis=0) if darkest else np.zeros(900)
    generator = torch.Generator().manual_seed(5)
    W = torch.normal(0, 0.01, (3, 900), generator=generator).numpy().T.astype(float)
    b = mean @ W
    for lr in 0.1 * 784 / 900 * 10.0 ** -np.arange(4):
        order = torch.randperm(count, generator=generator).numpy()
        for at in np.split(order, range(64, count, 64)):
            g = scipy.special.softmax((X[at] - mean) @ W + b, axis=1) - np.eye(3)[y[at]]
            g *= of_rows[at, None] / len(at)
            W, b = W - lr * ((X[at] - mean).T @ g + W / count), b - lr * g.sum(axis=0)
    assert_allclose(learned["W"], W, atol=2e-6)
    assert_allclose(learned["b"], b - mean @ W, atol=1e-4 if darkest else 2e-6)


@pytest.mark.parametrize(
    ("classes", "dense_inputs", "steps"), [(0, 2_500, 10), (0, 100, 120), (3, 2_500, 60), (3, 100, 60)]
)
def test_beside_many_levels_the_converged_fit_has_scikit_learns_minimum_in_few_steps(
    classes: int, dense_inputs: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two categories, one of which nearly follows from the other, and numbers of which one is the sum of others.

    Within ``dense_inputs``, only the wider category is a diagonal; if fewer are allowed, both are.
    """
    monkeypatch.setattr(baselines, "CLOSED_FORM_WIDTH", 0)
    monkeypatch.setattr(baselines, "DENSE_INPUTS", dense_inputs)
    monkeypatch.setattr(baselines, "MAX_ITERATIONS", steps)
    rng = np.random.default_rng(0)
    wide = (400 * rng.random(4000) ** 2).astype(int)
    narrow = np.where(rng.random(4000) < 0.95, wide // 3, rng.integers(0, 134, 4000))
    hour, minute = rng.integers(0, 24, 4000), rng.integers(0, 60, 4000)
    late = hour + 0.05 * rng.normal(size=4000)
    effects = rng.normal(size=400)[wide] + rng.normal(size=134)[narrow]
    truth = hour + 20 * (late - hour) + effects + 6 * rng.normal(size=4000)
    if classes:
        truth = np.digitize(truth, np.quantile(truth, [1 / 3, 2 / 3]))
    features = np.column_stack([hour, minute, 100 * hour + minute, late, wide, narrow])
    kinds, names = ["number"] * 4 + ["category"] * 2, ("a", "b", "c")[:classes]
    prepared = prepare(features, truth, fifth(4000), kinds, names)
    W, _, found = solve(prepared, "reference")
    (X, y), (unseen, _) = one_hot(prepared, "train"), one_hot(prepared, "test")
    if classes:
        best = LogisticRegression(tol=1e-10, max_iter=10_000, solver="newton-cholesky").fit(X, y)
        assert_allclose(scipy.special.softmax(found, axis=1), best.predict_proba(unseen), atol=1e-3)
        return
    fit, scale = LinearRegression().fit(X, y), target_of(prepared).scale
    assert_allclose(found[:, 0], fit.predict(unseen), atol=3e-3 * scale)
    if dense_inputs == 2_500:
        assert_allclose(W[:, 0] * scale, fit.coef_, atol=1e-4 * scale)


def test_what_is_given_stands_and_what_is_not_follows_from_the_rows() -> None:
    nothing = Training(defaults="data")
    assert [make_plan(nothing, rows, 20).is_full_batch for rows in (1000, 1_000_000)] == [True, False]
    squared = Training.model_validate({"model": "linear-regression", "defaults": "data"})
    assert make_plan(squared, 10**7, 20).is_full_batch, "one step is all that it needs"
    assert not make_plan(nothing, 16_000, 20, num_outputs=1000).is_full_batch, "16 million scores a step"
    given = {"batch_size": 32, "lr": 0.5, "num_epochs": 7, "weight_decay": 0.25}
    assert learn(mixed(), **given).training.hyperparameters.model_dump() == given


@pytest.mark.parametrize("num_rows", [57_345, 180_001, 900_141, 1_638_401, 10_000_001, 400_000_001])
def test_the_last_minibatch_of_a_pass_is_no_handful_of_rows(num_rows: int) -> None:
    size = find_batch_size(num_rows)
    assert size / 2 < (num_rows % size or size) <= size <= LARGEST_BATCH_SIZE


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
