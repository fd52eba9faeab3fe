"""Gates and figures of own data: what a sound model passes and one that has learned nothing does not."""

import dataclasses
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.linear_model import LogisticRegression

import own_images
from candidate import plain
from prepared_tables import prepare, trained
from tasks.data.prepared_splits import Examples, read_split
from tasks.data.recipe import Columns, Pixels, SplitRule
from tasks.errors import GateFailed
from tasks.evaluate import evaluate
from tasks.fitting.objective import Objective
from tasks.fitting.tables import fit_weights
from tasks.judging import baselines
from tasks.judging.baselines import Baselines
from tasks.judging.metrics import Answers
from tasks.parameters import Gates, Loss, Training
from tasks.records import Evaluation, PreparedDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

Array = np.ndarray[Any, Any]
HUES = tuple(own_images.HUES)
PENALISED = Objective(Loss.CROSS_ENTROPY, weight_decay=0.01)


@pytest.fixture
def run() -> RunFolder:
    return RunFolder.open("own", {})


def training(task: str, **options: Any) -> Training:
    model = "linear-regression" if task == "regression" else "softmax-regression"
    return Training.model_validate({"model": model, "defaults": "data", **options})


def converged(prepared: PreparedDataset, asked: Training) -> dict[str, Array]:
    """Weights that are fitted as well as can be, on all training rows."""
    rows, outputs = read_split(prepared.train, prepared), len(prepared.class_names) or 1
    objective = Objective.choose(asked, prepared)
    if isinstance(prepared.recipe, Pixels):
        return baselines.fit_images(*rows[:2], prepared.recipe, outputs, objective).weights
    assert isinstance(prepared.recipe, Columns)
    return fit_weights(*rows[:2], prepared.recipe, outputs, objective, objective.weight_decay)[1]


def judged(
    run: RunFolder, prepared: PreparedDataset, asked: Training, weights: dict[str, Array] | None = None
) -> Evaluation:
    weights = converged(prepared, asked) if weights is None else weights
    found: Evaluation = plain(evaluate)(run, prepared, trained(run, prepared, weights), asked, Gates())
    return found


def refused(*judging: Any) -> Evaluation:
    with pytest.raises(GateFailed) as caught:
        judged(*judging)
    assert isinstance(caught.value, AssertionError)  # which a gate is to whoever calls the flow
    assert isinstance(caught.value.record, Evaluation)
    return caught.value.record


def noise(task: str = "regression") -> PreparedDataset:
    """A target that follows from nothing."""
    rng = np.random.default_rng(9)
    features, names = rng.normal(size=(1000, 4)), "abc" if task == "classification" else ""
    return prepare(features, rng.integers(0, 3, 1000) if names else rng.normal(3e5, 6e4, 1000), class_names=names)


def rare() -> PreparedDataset:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(5000, 4))
    score = features @ [1.5, -1.0, 0.5, 0.0] + rng.logistic(size=5000)
    return prepare(features, score > np.quantile(score, 0.97), class_names=("often", "rare"))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_model_of_a_shuffled_target_is_refused_by_the_baseline(task: str, run: RunFolder) -> None:
    baseline, converged_gate = refused(run, noise(task), training(task)).gates
    assert [(gate.name, gate.verdict) for gate in (baseline, converged_gate)] == [
        ("baseline", "refused"),
        ("converged", "passed"),
    ]


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_a_sound_model_of_a_rare_class_passes_and_a_class_weighted_loss_is_not_called_nats_a_label(
    class_weight: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """By accuracy it could not be told from the majority class, and balanced its unweighted log loss is worse."""
    found = judged(run, rare(), training("classification", class_weight=class_weight)).metrics
    assert found["test_accuracy"] < 0.97 + 0.02
    if class_weight == "balanced":
        assert found["baseline_loss"] == pytest.approx(np.log(2))
        assert found["test_loss"] > scipy.stats.entropy([0.97, 0.03])
    weighted, unit = ("class-weighted ", "") if class_weight == "balanced" else ("", " nats a label")
    assert re.search(rf"; {weighted}loss [\d.]+{unit}, of the best constant ", capsys.readouterr().out)


@pytest.mark.parametrize("gradient", [2e-6, 5e-7])
def test_a_fit_that_is_not_at_its_minimum_is_refused(gradient: float, run: RunFolder) -> None:
    prepared, asked = rare(), training("classification")
    found = trained(run, prepared, converged(prepared, asked))
    assert found.fit is not None
    found = found.model_copy(update={"fit": found.fit.model_copy(update={"gradient": gradient})})
    if gradient < 1e-6:
        assert plain(evaluate)(run, prepared, found, asked, Gates()).gates[-1].verdict == "passed"
        return
    with pytest.raises(GateFailed, match="converged"):
        plain(evaluate)(run, prepared, found, asked, Gates())


def test_a_huber_fit_of_a_skewed_target_passes_though_its_squared_error_is_worse_than_the_means(run: RunFolder) -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(8000, 2))
    prepared = prepare(features, np.exp(1.5 * rng.normal(size=8000)) + 0.5 * features[:, 0])
    found = judged(run, prepared, training("regression", loss="huber"))
    assert all(gate.passed for gate in found.gates)
    assert found.metrics["r2"] < 0


def test_the_reference_takes_the_first_rows_by_their_hash_and_in_time_a_sample_of_all_times() -> None:
    """And no row that a candidate held out, which are the last by their hash."""
    keys = np.random.default_rng(0).permutation(1000).astype(np.uint64)
    spread = baselines.choose_rows(keys, 100, in_time=True)
    assert (len(np.unique(spread)), spread.min(), spread.max()) == (100, 0, 999)
    for most, held_out, expected in ((100, 0.0, keys < 100), (1000, 0.0, keys < 1000), (1000, 0.2, keys < 800)):
        found = baselines.choose_rows(keys, most, in_time=False, held_out=held_out)
        assert (found == np.flatnonzero(expected)).all()


def test_a_single_test_group_says_nothing_and_is_refused() -> None:
    held = Baselines.of_dataset(rare(), Objective(Loss.CROSS_ENTROPY))
    held = dataclasses.replace(held, units=np.zeros(len(held.constant), np.uint64))
    verdict = next(held.judge(held.constant / 2, Gates()))
    assert (verdict.passed, "one test row or group says nothing" in verdict.detail) == (False, True)
    assert verdict.value == pytest.approx(held.metrics["baseline_loss"] / 2)


def test_scores_of_many_classes_become_losses_before_memory_holds_them_all() -> None:
    """Two million rows of a hundred classes would be 1.6 GB."""
    labels = np.arange(500_000) % 100
    tracemalloc.start()
    Answers.ask(lambda rows: np.eye(100)[rows], labels.__getitem__, labels, Objective(Loss.CROSS_ENTROPY))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(labels) * 100 / 4, "a quarter of the scores in float64"


# Pictures


def test_a_sound_model_of_pictures_passes_the_baseline_and_the_reference_is_recorded_only(run: RunFolder) -> None:
    images, labels = own_images.digits()
    prepared, asked = own_images.prepare(images[:600], labels[:600], "0123456789"), training("classification")
    found = judged(run, prepared, asked)
    assert {gate.name: gate.verdict for gate in found.gates} == {"baseline": "passed", "reference": "recorded"}
    assert found.metrics["test_accuracy"] > 0.9


def test_the_fit_to_pictures_is_that_of_scikit_learn_with_the_same_penalty() -> None:
    images, labels = own_images.digits()
    small, labels = images[:300, 2:5, 2:6], labels[:300] % 3
    found = baselines.fit_images(small, labels, Pixels(shape=(3, 4), scale=1 / 255), 3, PENALISED)
    X = small.reshape(300, -1) / 255
    expected = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=1000).fit(X, labels).predict_proba(X)
    np.testing.assert_allclose(scipy.special.softmax(found.score(small), axis=1), expected, atol=1e-3)


@pytest.mark.parametrize(("most", "seen"), [(40_000_000, "10,000"), (36_000, "1,000")])
def test_the_fit_sees_ten_thousand_pictures_at_most_and_fewer_of_large_ones(
    most: int, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.arange(10_500) % 2
    rows = Examples(np.zeros((10_500, 6, 6), np.uint8), labels, labels.astype(np.uint64))
    monkeypatch.setattr(baselines, "MAX_IMAGE_ITERATIONS", 1)
    monkeypatch.setattr(baselines, "MAX_VALUES", most)
    recipe, rule = Pixels(shape=(6, 6), scale=1 / 255), SplitRule(rule="rows", test=0.2)
    fit = Baselines.of_rows(rows, rows, recipe, (5_000, 5_500), PENALISED, rule).fit
    assert f" {seen} rows" in str(fit and fit.words)


def test_every_picture_of_a_model_is_drawn_and_none_of_mistakes_where_there_are_none(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are many and large, there is no reference."""
    images, labels = own_images.hues(600, side=4)
    prepared, asked = own_images.prepare(images, labels, HUES, np.arange(600) >= 400), training("classification")
    weights = converged(prepared, asked)
    monkeypatch.setattr(baselines, "MAX_PRODUCTS", 400 * 48 * 3 - 1)
    found = judged(run, prepared, asked, weights)
    assert [gate.name for gate in found.gates] == ["baseline"]
    assert "reference_loss" not in found.metrics
    expected = {artifact_paths.CLASS_WEIGHTS, artifact_paths.CONFUSION_MATRIX, artifact_paths.RELIABILITY}
    assert {picture.path.name for picture in found.pictures} == expected
    wrong = refused(run, prepared, asked, weights | {"W": -weights["W"]})
    assert {picture.path.name for picture in wrong.pictures} == {*expected, artifact_paths.MISCLASSIFIED}
