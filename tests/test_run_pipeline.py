"""Whole retrains in a real Prefect engine, on real data: what the README promises, measured from outside."""

import json
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import sklearn.metrics
from PIL import Image

from conftest import Pipeline
from prefect_api import eventually

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


def test_scratch_and_concise_are_equally_good(pipeline: Pipeline) -> None:
    scratch, concise = (pipeline.report("softmax-regression", how).metrics for how in ("scratch", "concise"))
    assert scratch["train_loss"] == pytest.approx(concise["train_loss"], rel=1e-4)
    assert scratch["test_accuracy"] == pytest.approx(concise["test_accuracy"], abs=2e-3)


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


@pytest.mark.parametrize("model", ["softmax-regression", "linear-regression"])
def test_onnx_file_keeps_the_contract(pipeline: Pipeline, model: str) -> None:
    report = pipeline.report(model)
    path = Path(report.model_path or "")
    proto = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version <= 20
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert {"dataset_digest", "training", "signature"} <= {entry.key for entry in proto.metadata_props}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    described = [(node.name, node.type, node.shape) for node in (*session.get_inputs(), *session.get_outputs())]
    assert (
        described
        == {
            "softmax-regression": [
                ("images", "tensor(uint8)", ["batch", 28, 28]),
                ("probabilities", "tensor(float)", ["batch", 10]),
                ("label", "tensor(int64)", ["batch"]),
            ],
            "linear-regression": [
                ("features", "tensor(float)", ["batch", 2]),
                ("prediction", "tensor(float)", ["batch"]),
            ],
        }[model]
    )
    content = path.read_bytes()
    for trace in (b"site-packages", b"/home", str(pipeline.artifacts).encode(), b".py", b"File "):
        assert trace not in content


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


def test_predictions_hold_every_row_in_order_as_onnxruntime_labels_it(pipeline: Pipeline) -> None:
    report = pipeline.report("softmax-regression")
    assert report.prediction is not None
    folder = Path(report.prediction.path)
    table = pq.read_table(folder / "part-00000.parquet").to_pydict()
    test = safetensors.numpy.load_file(pipeline.prepared(report).test.path)
    probabilities, label = onnxruntime_outputs(report.model_path or "", test["images"])
    names = pipeline.prepared(report).class_names
    assert table["row"] == list(range(10_000))
    assert table["label"] == label.tolist()
    assert table["label_name"] == [names[index] for index in label]
    stored = np.stack([table[f"probability_{name}"] for name in names], axis=1)
    np.testing.assert_allclose(stored, probabilities, atol=1e-6)
    job = json.loads((folder / "_job.json").read_text())
    assert job["provider"] == report.provider
    assert job["provider"] in onnxruntime.get_available_providers()
    assert job["model"]["sha256"] == report.model_sha256
    assert (job["rows"], job["status"]) == (10_000, "done")


@pytest.mark.parametrize(
    ("model", "pictures"),
    [
        ("softmax-regression", ["learning-curve.png", "confusion-matrix.png"]),
        ("linear-regression", ["learning-curve.png", "regression.png"]),
    ],
)
def test_a_run_leaves_its_pictures_and_curve(pipeline: Pipeline, model: str, pictures: list[str]) -> None:
    report = pipeline.report(model)
    for picture in pictures:
        with Image.open(Path(report.run) / picture, formats=["PNG"]) as image:
            image.load()
            assert min(image.size) > 200
    curve = json.loads((Path(report.run) / "learning-curve.json").read_text())
    assert [point["epoch"] for point in curve] == list(range(1, len(curve) + 1))
    assert curve[-1]["train_loss"] == report.metrics["train_loss"]


def test_the_run_appears_at_the_prefect_server_with_one_task_a_stage_and_its_log(pipeline: Pipeline) -> None:
    report = pipeline.report("softmax-regression")
    flow_id = Path(report.run).name.rsplit("-", 1)[-1]
    with httpx.Client(base_url=f"{pipeline.server}/") as client:
        named = {"flow_runs": {"name": {"like_": "softmax-regression-concise concise 20"}}}  # 200 of all is the most
        runs = client.post("flow_runs/filter", json=named).json()
        (run,) = [each for each in runs if each["id"].startswith(flow_id)]
        wanted = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}

        def log() -> str:
            return "\n".join(line["message"] for line in client.post("logs/filter", json=wanted).json())

        eventually(lambda: "predictions in" in log(), 60, "logs are sent in the background")
        assert "gate test_accuracy passed" in log()
    assert run["state"]["type"] == "COMPLETED"
    assert run["name"].startswith("softmax-regression-concise concise 20")
