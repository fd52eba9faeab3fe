"""Own images from their folders to a version that is published, trained again, and refused where it should be."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from PIL import Image
from sklearn.linear_model import LogisticRegression

import own_images
from command_line import gradmill
from flows.pages.report import RetrainReport
from flows.retrain import retrain
from image_folders import drawn, write
from tasks.errors import DataError, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, own_data, reading, verification

COUNTS = {"cat": 60, "dog": 60, "owl": 60}


def trained(source: Path) -> RetrainReport:
    return retrain(RetrainParameters.model_validate({"name": "pets", "data": {"source": str(source)}}))


def again(**given: object) -> RetrainReport:
    return retrain(RetrainParameters.model_validate(own_data.again("pets", {"name": "pets", **given})))


@pytest.mark.slow  # four runs of the flow, one of them with all its stages
def test_folders_become_a_model_that_takes_raw_pixels_and_is_trained_again(
    artifacts: Path, prefect_api: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "pets", COUNTS, channels=3)
    report = trained(source)
    assert (report.outcome, report.version) == ("published", 1)
    verification.verify("pets", 1)
    version = artifact_paths.version("pets", 1)
    assert (version / "labels.txt").read_text().split() == ["cat", "dog", "owl"]
    assert np.asarray(Image.open(version / "contact-sheet.png")).shape == (184, 780, 4)
    assert "contact-sheet.png" in (version / "data-report.md").read_text()
    session = onnxruntime.InferenceSession(report.model_path, providers=["CPUExecutionProvider"])
    raw = np.stack([drawn(label, 5000 + label, channels=3) for label in range(3)])
    assert session.run(["label"], {"images": raw})[0].tolist() == [0, 1, 2]
    assert str(source) not in json.dumps(json.loads((version / "manifest.json").read_text()))

    same = again()
    assert same.outcome == "unchanged"
    assert set(same.seconds) == {"download", "predict"}, "of files that look untouched not a picture is read"
    os.utime(source / "dog" / "0000.png")
    touched = again()
    assert (touched.outcome, touched.metrics) == ("unchanged", report.metrics)
    assert set(touched.seconds) == {"download", "validate", "preprocess", "predict"}, "nothing is trained"
    shutil.rmtree(source / "dog")
    with pytest.raises(DataError, match="dog is gone"):
        again()
    with pytest.raises(UsageError, match="own images, as its version 1"):
        again(data={"target": "y", "source": "houses.csv"})


@pytest.mark.slow  # three commands that train
def test_digits_and_hues_are_learned_on_the_command_line_and_grey_tells_no_hues_apart(
    artifacts: Path, on_server: None, tmp_path: Path
) -> None:
    def learned(name: str, source: Path, *options: str) -> Any:
        done = gradmill("retrain", "softmax-regression", "--name", name, "--data", str(source), "--json", *options)
        return json.loads(done.stdout) | {"exit_code": done.returncode}

    sources = {"digits": own_images.digits(), "hues": own_images.hues(600)}
    for name, (images, labels) in sources.items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (tmp_path / name / f"class-{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / name / f"class-{label}" / f"{number}.png")
    found = learned("digits", tmp_path / "digits")
    dataset = reading.manifest("digits", 1).dataset
    train, test = (safetensors.numpy.load_file(each.path) for each in (dataset.train, dataset.test))
    X, T = (each["images"].reshape(-1, 64) / 255 for each in (train, test))
    converged = LogisticRegression(max_iter=2000).fit(X, train["labels"])
    assert found["metrics"]["test_accuracy"] > converged.score(T, test["labels"]) - 0.02
    assert learned("rgb", tmp_path / "hues", "--channels", "rgb")["metrics"]["test_accuracy"] > 0.95
    refused = learned("grey", tmp_path / "hues", "--channels", "grey")
    assert (refused["outcome"], refused["exit_code"]) == ("refused", 3)
    assert refused["metrics"]["test_accuracy"] < 0.5, "of three classes, chance"
