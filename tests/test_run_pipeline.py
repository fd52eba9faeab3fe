"""Whole retrains in a real Prefect engine, on real data: what the README promises, measured from outside."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import sklearn.metrics

from conftest import Pipeline
from consumer import answers

SYSTEMS = [(model, how) for model in ("softmax-regression", "linear-regression") for how in ("scratch", "concise")]


@pytest.mark.parametrize(("model", "implementation"), SYSTEMS)
def test_all_four_systems_are_published_by_the_same_flow(pipeline: Pipeline, model: str, implementation: str) -> None:
    report = pipeline.report(model, implementation)
    assert (report.outcome, report.version, report.model) == ("published", 1, model)
    assert all(gate.passed for gate in report.gates)
    stages = ["download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"]
    assert list(report.seconds) == stages


@pytest.mark.parametrize(
    ("implementation", "options"), [("scratch", {}), ("concise", {}), ("scratch", {"loss": "huber"})]
)
def test_linear_regression_finds_the_truth(pipeline: Pipeline, implementation: str, options: dict[str, str]) -> None:
    metrics = pipeline.report("linear-regression", implementation, **options).metrics
    assert metrics["weights"] == pytest.approx([2, -3.4], abs=0.02)
    assert metrics["bias"] == pytest.approx(4.2, abs=0.02)


@pytest.mark.parametrize(("model", "implementation"), SYSTEMS)
def test_exported_model_equals_the_trained_weights_on_every_test_example_in_any_batch(
    pipeline: Pipeline, model: str, implementation: str
) -> None:
    """The reference is float64 numpy on the stored weights: neither torch nor our export code."""
    report = pipeline.report(model, implementation)
    model_path = report.model_path or ""
    test, weights = pipeline.load_test(report), safetensors.numpy.load_file(Path(report.run) / "weights.safetensors")
    W, b = weights["W"].astype(np.float64), weights["b"].astype(np.float64)
    if model == "linear-regression":
        prediction = answers(model_path, test["features"])["prediction"]
        np.testing.assert_allclose(prediction, (test["features"] @ W + b)[:, 0], atol=1e-5 * test["target"].std())
        return
    expected = scipy.special.softmax(test["images"].reshape(10_000, 784) / 255 @ W + b, axis=1)
    probabilities, label = answers(model_path, test["images"]).values()
    np.testing.assert_allclose(probabilities, expected, atol=3e-5)
    assert (label == expected.argmax(axis=1)).mean() >= 0.9999
    np.testing.assert_array_equal(label, probabilities.argmax(axis=1))
    for rows in (1, 7):
        some, labels = answers(model_path, test["images"][:rows]).values()
        assert (some.shape, labels.tolist()) == ((rows, 10), label[:rows].tolist())


@pytest.mark.parametrize("implementation", ["scratch", "concise"])
def test_metrics_equal_scikit_learns_and_are_as_promised(pipeline: Pipeline, implementation: str) -> None:
    """Everything is computed from what onnxruntime says of the published file, with the default seed."""
    report = pipeline.report("softmax-regression", implementation)
    test, metrics = pipeline.load_test(report), report.metrics
    truth, (probabilities, label) = test["labels"], answers(report.model_path or "", test["images"]).values()
    np.testing.assert_array_equal(metrics["confusion_matrix"], sklearn.metrics.confusion_matrix(truth, label))
    precision, recall, *_ = sklearn.metrics.precision_recall_fscore_support(truth, label)
    assert [*metrics["precision"].values()] == pytest.approx(precision.tolist(), abs=1e-6)
    assert [*metrics["recall"].values()] == pytest.approx(recall.tolist(), abs=1e-6)
    assert metrics["test_loss"] == pytest.approx(sklearn.metrics.log_loss(truth, probabilities), rel=1e-5)
    assert 0.82 <= metrics["test_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, label), abs=1e-9)
    assert metrics["train_loss"] == pytest.approx(0.447, abs=0.003)
    assert metrics["test_loss_bits"] == pytest.approx(metrics["test_loss"] / np.log(2))
    assert metrics["label_entropy"] == pytest.approx(np.log(10), rel=1e-6)
    correct, confidence = label == truth, probabilities.max(axis=1)
    bins = np.ceil(confidence * 15)
    gaps = [abs((correct - confidence)[bins == each].sum()) for each in set(bins)]
    assert metrics["calibration_error"] == pytest.approx(sum(gaps) / len(label), abs=1e-4)
