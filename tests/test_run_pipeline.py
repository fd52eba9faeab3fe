"""Whole retrains in a real Prefect engine, on real data: what the README promises, measured from outside."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import sklearn.metrics

from conftest import Pipeline

SYSTEMS = [(model, how) for model in ("softmax-regression", "linear-regression") for how in ("scratch", "concise")]


def onnxruntime_outputs(model: Path | str, inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})  # type: ignore[no-any-return]


def softmax_float64(scores: np.ndarray) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("model", "implementation"), SYSTEMS)
def test_all_four_systems_are_published_by_the_same_flow(pipeline: Pipeline, model: str, implementation: str) -> None:
    report = pipeline.report(model, implementation)
    assert (report.outcome, report.version, report.model) == ("published", 1, model)
    assert all(gate.passed for gate in report.gates)
    stages = ["download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"]
    assert list(report.seconds) == stages


@pytest.mark.parametrize("implementation", ["scratch", "concise"])
def test_softmax_regression_with_the_default_seed_is_as_accurate_as_promised(
    pipeline: Pipeline, implementation: str
) -> None:
    """Accuracy is counted here, by scikit-learn, from what onnxruntime says of the published file."""
    report = pipeline.report("softmax-regression", implementation)
    test = safetensors.numpy.load_file(pipeline.prepared(report).test.path)
    _, label = onnxruntime_outputs(report.model_path or "", test["images"])
    accuracy = sklearn.metrics.accuracy_score(test["labels"], label)
    assert accuracy >= 0.82
    assert accuracy == pytest.approx(report.metrics["test_accuracy"], abs=1e-9)
    assert report.metrics["train_loss"] == pytest.approx(0.447, abs=0.003)


@pytest.mark.parametrize(
    ("implementation", "options"), [("scratch", {}), ("concise", {}), ("scratch", {"loss": "huber"})]
)
def test_linear_regression_finds_the_truth(pipeline: Pipeline, implementation: str, options: dict[str, str]) -> None:
    metrics = pipeline.report("linear-regression", implementation, **options).metrics
    assert metrics["weights"] == pytest.approx([2, -3.4], abs=0.02)
    assert metrics["bias"] == pytest.approx(4.2, abs=0.02)


@pytest.mark.parametrize(("model", "implementation"), SYSTEMS)
def test_exported_model_equals_the_trained_weights_on_every_test_example(
    pipeline: Pipeline, model: str, implementation: str
) -> None:
    """The reference is float64 numpy on the stored weights: neither torch nor our export code."""
    report = pipeline.report(model, implementation)
    test = safetensors.numpy.load_file(pipeline.prepared(report).test.path)
    weights = safetensors.numpy.load_file(Path(report.run) / "weights.safetensors")
    W, b = weights["W"].astype(np.float64), weights["b"].astype(np.float64)
    if model == "linear-regression":
        (prediction,) = onnxruntime_outputs(report.model_path or "", test["features"])
        np.testing.assert_allclose(prediction, (test["features"] @ W + b)[:, 0], atol=1e-5 * test["target"].std())
        return
    expected = softmax_float64(test["images"].reshape(10_000, 784) / 255 @ W + b)
    probabilities, label = onnxruntime_outputs(report.model_path or "", test["images"])
    np.testing.assert_allclose(probabilities, expected, atol=3e-5)
    assert (label == expected.argmax(axis=1)).mean() >= 0.9999
    np.testing.assert_array_equal(label, probabilities.argmax(axis=1))


@pytest.mark.parametrize("rows", [1, 7])
def test_onnx_file_takes_any_batch(pipeline: Pipeline, rows: int) -> None:
    report = pipeline.report("softmax-regression")
    images = safetensors.numpy.load_file(pipeline.prepared(report).test.path)["images"][:rows]
    probabilities, label = onnxruntime_outputs(report.model_path or "", images)
    assert probabilities.shape == (rows, 10)
    assert label.shape == (rows,)


def test_metrics_equal_scikit_learns(pipeline: Pipeline) -> None:
    report = pipeline.report("softmax-regression")
    test = safetensors.numpy.load_file(pipeline.prepared(report).test.path)
    probabilities, label = onnxruntime_outputs(report.model_path or "", test["images"])
    truth, names = test["labels"], pipeline.prepared(report).class_names
    metrics = report.metrics
    np.testing.assert_array_equal(metrics["confusion_matrix"], sklearn.metrics.confusion_matrix(truth, label))
    for key, score in (("precision", sklearn.metrics.precision_score), ("recall", sklearn.metrics.recall_score)):
        assert [metrics[key][name] for name in names] == pytest.approx(score(truth, label, average=None), abs=1e-6)
    assert metrics["test_loss"] == pytest.approx(sklearn.metrics.log_loss(truth, probabilities), rel=1e-5)
    assert metrics["test_loss_bits"] == pytest.approx(metrics["test_loss"] / np.log(2))
    assert metrics["label_entropy"] == pytest.approx(np.log(10), rel=1e-6)
    confidence, correct = probabilities.max(axis=1), label == truth
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [abs(correct[bins == k].mean() - confidence[bins == k].mean()) * (bins == k).mean() for k in set(bins)]
    assert metrics["calibration_error"] == pytest.approx(sum(gaps), abs=1e-4)
