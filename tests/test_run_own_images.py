"""Own images from their folders to a version that is published, trained again, and refused where it should be."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from flows.retrain import retrain
from flows.story.report import RetrainReport
from image_folders import drawn, write
from tasks.errors import DataError, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, own_data, verification

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
    assert np.asarray(Image.open(version / "contact-sheet.png")).shape == (184, 780, 3)
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
