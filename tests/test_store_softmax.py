"""A published version of softmax regression, in a copy of the store: its files, damage, a second version, its bytes."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import sklearn.metrics
from PIL import Image

from candidate import plain
from command_line import assert_clear, gradmill
from conftest import Pipeline
from store_state import damage
from tasks.errors import DataError, GateFailed
from tasks.export import export
from tasks.judging.champion import compare_with_published
from tasks.parameters import RetrainParameters
from tasks.publish import publish
from tasks.records import Evaluation, ExportedModel, PreparedDataset, PublishedModel, TrainedModel
from tasks.store import artifact_paths, atomic, reading, verification
from tasks.store.run_folder import RunFolder

NAME = "softmax-regression-concise"
CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
]  # fmt: skip
PICTURES = {"learning-curve.png", "confusion-matrix.png", "reliability.png", "misclassified.png"}


@pytest.fixture
def folder(pipeline: Pipeline, artifacts: Path) -> Path:
    """Version 1 in a copy of the store that all tests share."""
    report = pipeline.report("softmax-regression")
    assert report.name == NAME
    shutil.copytree(pipeline.artifacts / "models" / NAME, artifacts / "models" / NAME)
    return artifact_paths.version(NAME, 1)


# The version folder (design 4.2)


def test_the_version_has_exactly_its_files(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == PICTURES | {
        "model.onnx", "manifest.json", "metadata.json", "labels.txt", "sample.npz", "README.md", "SHA256SUMS",
        "index.html",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert manifest["files"] == {
        name: digest for name, digest in digests.items() if name not in ("manifest.json", "SHA256SUMS")
    }
    assert {gate["name"] for gate in manifest["gates"]} == {
        "train_loss", "train_accuracy", "test_accuracy", "parity", "parity_labels", "servability", "latency_ms",
        "memory_mb",
    }  # fmt: skip
    assert verification.verify(NAME, 1)


def test_labels_are_the_class_names_one_a_line(folder: Path) -> None:
    assert (folder / "labels.txt").read_text() == "".join(f"{name}\n" for name in CLASSES)


def test_the_model_card_shows_every_picture(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for picture in PICTURES:
        assert f"]({picture})" in card
        with Image.open(folder / picture, formats=["PNG"]) as image:
            image.load()


def test_metadata_follow_the_open_inference_protocol(folder: Path) -> None:
    assert json.loads((folder / "metadata.json").read_text()) == {
        "name": NAME,
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }


def test_the_stored_sample_is_what_a_stranger_gets(folder: Path) -> None:
    sample = np.load(folder / "sample.npz", allow_pickle=False)
    probabilities, label = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(
        None, {"images": sample["images"]}
    )
    np.testing.assert_allclose(probabilities, sample["probabilities"], atol=2e-5)
    np.testing.assert_array_equal(label, sample["label"])


def test_a_flipped_bit_in_each_file_is_found_and_its_file_named(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        for position in (0, path.stat().st_size - 1, *rng.integers(path.stat().st_size, size=10).tolist()):
            before = damage(path, position, 1 << int(rng.integers(8)))
            with pytest.raises(DataError) as caught:
                verification.verify(NAME, 1)
            assert f"/{path.name}" in caught.value.found or f"in {path.name}," in caught.value.found
            path.write_bytes(before)
    verification.verify(NAME, 1)


# A second version


class Second:
    """The run that published version 1, with its weights changed and exported anew."""

    def __init__(self, pipeline: Pipeline, change: Callable[[np.ndarray], None]) -> None:
        noted = RunFolder(path=Path(pipeline.report("softmax-regression").run)).read()
        stages, self.run = noted.stages, RunFolder.open("second", {})
        self.parameters = RetrainParameters.model_validate(noted.parameters)
        copied = artifact_paths.root() / "datasets"
        if not copied.exists():
            shutil.copytree(pipeline.artifacts / "datasets", copied, copy_function=os.link)
        self.prepared = PreparedDataset.model_validate(stages["preprocess"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADMILL_ARTIFACTS", str(pipeline.artifacts))
            self.evaluated = Evaluation.model_validate(stages["evaluate"])
            trained = TrainedModel.model_validate(stages["train"])
        weights = safetensors.numpy.load_file(trained.weights.path)
        change(weights["W"])
        file = atomic.write_bytes(self.run.file("weights.safetensors"), safetensors.numpy.save(weights))
        self.trained = trained.model_copy(update={"weights": file})
        training, bounds = self.parameters.training, self.parameters.gates
        self.exported: ExportedModel = plain(export)(self.run, self.prepared, self.trained, training, bounds)

    def publish(self) -> PublishedModel:
        published: PublishedModel = plain(publish)(
            self.run, self.parameters, self.prepared, self.trained, self.evaluated, self.exported
        )
        return published

    def accuracy(self, model: Path) -> float:
        """Counted by scikit-learn from what onnxruntime says."""
        test = safetensors.numpy.load_file(self.prepared.test.path)
        _, label = onnxruntime.InferenceSession(str(model)).run(None, {"images": test["images"]})
        return float(sklearn.metrics.accuracy_score(test["labels"], label))


def rounded(weights: np.ndarray) -> None:
    weights[:] = np.round(weights, 4)


def without_one_class(weights: np.ndarray) -> None:
    weights[:, 5] = 0


@pytest.mark.slow  # two real commands
def test_predict_names_no_class_by_labels_that_are_swapped(
    folder: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", pipeline.server)
    np.save(tmp_path / "rows.npy", np.zeros((2, 28, 28), np.uint8))
    command = ("predict", str(tmp_path / "rows.npy"), "--name", NAME)
    assert gradmill(*command).returncode == 0
    labels = folder / "labels.txt"
    first, second, *others = labels.read_text().splitlines(keepends=True)
    folder.chmod(0o755)
    labels.chmod(0o644)
    labels.write_text("".join([second, first, *others]))
    done = gradmill(*command, "--restart")
    assert_clear(done, 4)
    assert str(labels) in done.stderr


def test_a_second_version_is_gated_against_the_first(pipeline: Pipeline, folder: Path) -> None:
    second = Second(pipeline, rounded)
    published = second.publish()
    assert (published.outcome, published.version) == ("published", 2)
    verdicts = {gate.name: gate for gate in published.gates}
    assert list(verdicts) == ["champion_signature", "champion_accuracy", "champion_recall"]
    drop = second.accuracy(folder / "model.onnx") - second.accuracy(published.model.path)
    assert verdicts["champion_accuracy"].value == pytest.approx(drop, abs=1e-12)
    assert abs(drop) <= 0.005
    for number in (1, 2):
        verification.verify(NAME, number)
    asked = second.parameters
    third = compare_with_published(NAME, second.exported.onnx, second.prepared, asked.gates, asked.training).gates
    best = max(second.accuracy(artifact_paths.version(NAME, number) / "model.onnx") for number in (1, 2))
    assert f"against {best:.4f}" in third[1].detail, "the best of all kept versions"


def test_a_candidate_that_forgot_a_class_is_refused_and_the_class_named(pipeline: Pipeline, folder: Path) -> None:
    second = Second(pipeline, without_one_class)
    with pytest.raises(GateFailed) as caught:
        second.publish()
    refused = {gate.name: gate.detail for gate in caught.value.record.gates if not gate.passed}
    assert list(refused) == ["champion_accuracy", "champion_recall"]
    assert CLASSES[5] in refused["champion_recall"]
    assert reading.versions(NAME) == [1]
    verification.verify(NAME, 1)


# Reproducible


@pytest.mark.slow
def test_another_process_and_another_folder_give_the_same_bytes(
    pipeline: Pipeline, fashion_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one is this process and the shared folder, the other the command line and an empty folder."""
    monkeypatch.setenv("PREFECT_API_URL", pipeline.server)
    here = pipeline.report("softmax-regression")
    elsewhere = str(tmp_path / "another" / "folder")
    done = gradmill("retrain", "--json", "--no-predict", "--artifacts", elsewhere)
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    assert there["model_path"].startswith(elsewhere)
    assert Path(there["model_path"]).read_bytes() == Path(here.model_path or "").read_bytes()
