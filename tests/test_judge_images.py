"""Gates and figures of own pictures: against the best constant and kept versions, and what their pictures show."""

from typing import Any

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from sklearn.linear_model import LogisticRegression

import own_images
from candidate import plain
from own_images import Array, digits, grey, hues, prepare
from prepared_tables import trained
from tasks.data.prepared_splits import Examples, read_split
from tasks.data.recipe import Pixels, SplitRule
from tasks.errors import GateFailed
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.judging import baselines
from tasks.judging.baselines import Baselines
from tasks.judging.champion import compare_with_published
from tasks.judging.objective import Objective
from tasks.judging.task import Candidate
from tasks.parameters import Gates, Loss, RetrainParameters, Training
from tasks.publish import publish
from tasks.records import Evaluation, GateVerdict, PreparedDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

TEN = tuple(map(str, range(10)))
ASKED = Training(defaults="data")
PENALISED = Objective(Loss.CROSS_ENTROPY, weight_decay=0.01)


@pytest.fixture
def run() -> RunFolder:
    return RunFolder.open("own", {})


def fitted(prepared: PreparedDataset, steps: int = 100) -> dict[str, Array]:
    """Weights after some iterations of scikit-learn's logistic regression."""
    rows = read_split(prepared.train, prepared)
    found = LogisticRegression(C=0.3, max_iter=steps).fit(rows.inputs.reshape(len(rows.y_true), -1) / 255, rows.y_true)
    coefficients, intercept = found.coef_, found.intercept_
    if len(prepared.class_names) == 2:
        coefficients, intercept = np.concatenate([-found.coef_, found.coef_]) / 2, np.array([-1, 1]) * intercept / 2
    return {"W": np.ascontiguousarray(coefficients.T, np.float32), "b": intercept.astype(np.float32)}


def judged(run: RunFolder, prepared: PreparedDataset, weights: dict[str, Array] | None = None) -> Evaluation:
    model = trained(run, prepared, fitted(prepared) if weights is None else weights)
    found: Evaluation = plain(evaluate)(run, prepared, model, ASKED, Gates())
    return found


# Against the best constant


def test_a_sound_model_passes_the_baseline_and_the_reference_is_recorded_only(run: RunFolder) -> None:
    images, labels = digits()
    prepared = prepare(images[:600], labels[:600], TEN)
    found = judged(run, prepared)
    assert {gate.name: gate.verdict for gate in found.gates} == {"baseline": "passed", "reference": "recorded"}
    assert found.metrics["test_accuracy"] > 0.9
    truth = read_split(prepared.test, prepared).y_true
    frequencies = np.array(prepared.class_counts) / prepared.num_train
    expected = sklearn.metrics.log_loss(truth, np.tile(frequencies, (len(truth), 1)), labels=range(10))
    assert found.metrics["baseline_loss"] == pytest.approx(expected)
    answers = Candidate.read(prepared, trained(run, prepared, fitted(prepared)), ASKED).answers.answer
    recall = sklearn.metrics.recall_score(truth, answers, average=None)
    assert list(found.metrics["recall"].values()) == pytest.approx(recall.tolist(), rel=1e-6)


def test_grey_pictures_of_what_differs_in_hue_are_refused_by_the_baseline_and_a_penalty_is_advised(
    run: RunFolder,
) -> None:
    images, labels = hues(600, side=4)
    is_test = np.arange(600) >= 400
    names = tuple(own_images.HUES)
    assert judged(run, prepare(images, labels, names, is_test)).metrics["test_accuracy"] > 0.95
    with pytest.raises(GateFailed, match="--weight-decay") as caught:
        judged(run, prepare(grey(images), labels, names, is_test))
    assert caught.value.record.gates[0].verdict == "refused"
    assert all(gate.passed for gate in caught.value.record.gates[1:])


# Beside a fit


def test_the_fit_is_that_of_scikit_learn_with_the_same_penalty() -> None:
    images, labels = digits()
    small, labels = images[:300, 2:5, 2:6], labels[:300] % 3
    found = baselines.fit_images(small, labels, Pixels(shape=(3, 4), scale=1 / 255), 3, PENALISED)
    assert found is not None
    expected = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=1000).fit(small.reshape(300, -1) / 255, labels)
    probabilities = scipy.special.softmax(found.score(small), axis=1)
    np.testing.assert_allclose(probabilities, expected.predict_proba(small.reshape(300, -1) / 255), atol=1e-3)


def test_the_fit_sees_ten_thousand_pictures_at_most_and_fewer_of_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10_500, 6, 6), np.uint8), rng.integers(0, 2, 10_500)
    rows = Examples(images, labels, rng.permutation(10_500).astype(np.uint64))
    monkeypatch.setattr(baselines, "MAX_IMAGE_ITERATIONS", 1)
    recipe, rule, seen = Pixels(shape=(6, 6), scale=1 / 255), SplitRule(rule="rows", test=0.2), []
    for most in (40_000_000, 36_000):
        monkeypatch.setattr(baselines, "MAX_VALUES", most)
        fit = Baselines.of_rows(rows, rows, recipe, (5_000, 5_500), PENALISED, rule).fit
        assert fit is not None
        seen.append(fit.words.partition(" rows")[0].split()[-1])
    assert seen == ["10,000", "1,000"]


def test_of_pictures_that_are_many_and_large_there_is_no_reference(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        baselines.FIT_RULES, "pixels", baselines.FIT_RULES["pixels"]._replace(max_products=400 * 48 * 3 - 1)
    )
    images, labels = hues(600, side=4)
    found = judged(run, prepare(images, labels, tuple(own_images.HUES), np.arange(600) >= 400))
    assert [gate.name for gate in found.gates] == ["baseline"]
    assert "reference_loss" not in found.metrics


# Against kept versions


def exported(run: RunFolder, prepared: PreparedDataset, weights: dict[str, Array]) -> dict[str, Any]:
    """A candidate, as far as it comes before it is compared with what is kept."""
    model = trained(run, prepared, weights)
    evaluated = plain(evaluate)(run, prepared, model, ASKED, Gates())
    made = plain(export)(run, prepared, model, ASKED, Gates())
    return {"prepared": prepared, "trained": model, "evaluated": evaluated, "exported": made}


@pytest.mark.slow  # four exports
def test_a_version_is_not_followed_by_a_worse_one_nor_by_one_of_other_classes(run: RunFolder) -> None:
    images, labels = hues(1500, side=3)
    names = tuple(own_images.HUES)
    prepared = prepare(images, labels, names)
    good = fitted(prepared)
    asked = {"name": "hues", "training": {"defaults": "data"}, "data": {"source": "hues/", "target": "label"}}
    plain(publish)(run, RetrainParameters.model_validate(asked), **exported(run, prepared, good))

    def compared(data: PreparedDataset, times: float) -> tuple[GateVerdict, ...]:
        model = exported(run, data, {name: each * np.float32(times) for name, each in good.items()})["exported"]
        return compare_with_published("hues", model.onnx, data, Gates(), ASKED).gates

    verdicts = {times: [gate.passed for gate in compared(prepared, times)] for times in (1.01, 0.5)}
    assert verdicts == {1.01: [True, True], 0.5: [True, False]}
    (refused,) = compared(prepare(images, labels, names[::-1]), 0.99)
    assert not refused.passed
    assert "classes are 'sky', 'leafy', 'rosy', and were 'rosy', 'leafy', 'sky'" in refused.detail


# Pictures


def test_every_picture_of_a_model_is_drawn_and_none_of_mistakes_where_there_are_none(run: RunFolder) -> None:
    images, labels = hues(200, side=4)
    prepared = prepare(images, labels, tuple(own_images.HUES))
    found = {picture.path.name for picture in judged(run, prepared).pictures}
    expected = {artifact_paths.CLASS_WEIGHTS, artifact_paths.CONFUSION_MATRIX, artifact_paths.RELIABILITY}
    assert found == expected
    wrong = {name: each * np.float32(-1) for name, each in fitted(prepared).items()}
    with pytest.raises(GateFailed) as caught:
        judged(run, prepared, wrong)
    assert {picture.path.name for picture in caught.value.record.pictures} == {*expected, artifact_paths.MISCLASSIFIED}
