"""A store written by the version before this one is read, verified, predicted from and retrained.

``store_of_c692a25/`` is what that commit left in ``/srv/gradmill/artifacts``: two retrains of linear regression (the
second with ``--seed 5 --no-predict``), ``rollback --no-freeze``, and ``retrain softmax-regression --no-predict``. The
images, training splits, the run of softmax regression, pictures of runs and lock files were left out.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

import flows.cli.app
from command_line import gradmill
from conftest import REPOSITORY

WRITTEN = REPOSITORY / "tests" / "store_of_c692a25"
NAME = "linear-regression"
SOFTMAX = "softmax-regression"


@pytest.fixture(autouse=True)
def store(artifacts: Path) -> Path:
    """A copy of the old store, in the artifacts folder."""
    shutil.copytree(WRITTEN, artifacts)
    return artifacts


def answer(*arguments: str) -> Any:
    """The document of a command that succeeds."""
    return document_of(gradmill(*arguments, "--json"))


def document_of(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(*arguments: str) -> int:
    return flows.cli.app.run(list(arguments))


def rows_of(prediction: Any) -> Any:
    return pq.read_table(sorted(Path(prediction["path"]).glob("part-*.parquet")))


def sample(store: Path, name: str, number: int) -> Any:
    """What version ``number`` was given when it was published, and what it answered."""
    return np.load(store / "models" / name / str(number) / "sample.npz", allow_pickle=False)


@pytest.mark.parametrize(("name", "number"), [(NAME, 1), (NAME, 2), (SOFTMAX, 1)])
def test_every_version_is_whole(name: str, number: int) -> None:
    assert run("verify", name, str(number)) == 0


def test_the_listing_tells_champion_and_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", "--json") == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert [(row["version"], row["champion"], row["held"]) for row in models[NAME]] == [
        (1, True, False),
        (2, False, True),
    ]
    assert models[NAME][0]["test_loss"] == pytest.approx(5.17772e-05, rel=1e-5)
    assert [row["test_accuracy"] for row in models[SOFTMAX]] == [pytest.approx(0.8322)]


@pytest.mark.slow
def test_the_champions_answer_as_they_did_when_they_were_published(
    store: Path, on_server: None, tmp_path: Path
) -> None:
    kept = sample(store, NAME, 1)
    np.save(tmp_path / "rows.npy", kept["features"])
    found = rows_of(answer("predict", str(tmp_path / "rows.npy"), "--name", NAME))
    np.testing.assert_allclose(found["prediction"], kept["prediction"], rtol=0, atol=1e-6)
    kept = sample(store, SOFTMAX, 1)
    np.save(tmp_path / "images.npy", kept["images"])
    found = rows_of(answer("predict", str(tmp_path / "images.npy"), "--name", SOFTMAX))
    names = (store / "models" / SOFTMAX / "1" / "labels.txt").read_text().splitlines()
    assert found["label"].to_pylist() == kept["label"].tolist()
    assert found["label_name"].to_pylist() == [names[label] for label in kept["label"]]
    probabilities = np.stack([found[f"probability_{name}"] for name in names], axis=1)
    np.testing.assert_allclose(probabilities, kept["probabilities"], rtol=0, atol=1e-6)


def predictions_of(model: Path, features: Any) -> Any:
    (found,) = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(
        None, {"features": features}
    )
    return found


@pytest.mark.slow
def test_the_same_retrain_gives_the_same_model_and_publishes_it_only_where_its_bytes_are_others(
    store: Path, on_server: None
) -> None:
    done = answer("retrain", NAME, "--no-predict")
    old = store / "models" / NAME / "1" / "model.onnx"
    same_bytes = Path(done["model_path"]).read_bytes() == old.read_bytes()
    assert (done["outcome"], done["version"]) == (("unchanged", 1) if same_bytes else ("published", 3))
    features = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)
    np.testing.assert_allclose(
        predictions_of(Path(done["model_path"]), features), predictions_of(old, features), rtol=0, atol=1e-5
    )


@pytest.mark.slow
def test_another_seed_is_judged_against_the_champion_of_before_and_the_pointer_moves_to_and_fro(
    store: Path, on_server: None
) -> None:
    done = answer("retrain", NAME, "--seed", "7", "--no-predict")
    assert (done["outcome"], done["version"]) == ("published", 3)
    (gate,) = (each for each in done["gates"] if each["name"] == "champion_loss")
    assert gate["maximum"] == pytest.approx(1.05 * old_loss_on(store, done), rel=1e-4)
    assert "of version 1)" in gate["detail"], "version 2 is held: it is compared with nothing"
    for command, champion, held in (
        (("rollback", NAME), 1, [2, 3]), (("promote", NAME, "2"), 2, [3]), (("promote", NAME, "3"), 3, []),
    ):  # fmt: skip
        assert run(*command) == 0
        pointer = json.loads((store / "models" / NAME / "champion.json").read_text())
        assert (pointer["version"], sorted(pointer["held"])) == (champion, held)
        assert run("verify", NAME) == 0


def old_loss_on(store: Path, done: Any) -> float:
    """Half the mean squared error of version 1 on the test split of this retrain, by numpy and onnxruntime alone."""
    manifest = json.loads(Path(done["model_path"]).with_name("manifest.json").read_text())
    test = safetensors.numpy.load_file(store / manifest["dataset"]["test"]["path"])
    residuals = predictions_of(store / "models" / NAME / "1" / "model.onnx", test["features"]) - test["target"]
    return float(np.mean(residuals.astype(np.float64) ** 2) / 2)
