"""A store that another version of Gradmill has written, or that was moved or copied, works where it is now.

``store_of_c692a25/`` is what that commit left in ``/srv/gradmill/artifacts``: two retrains of linear regression (the
second with ``--seed 5 --no-predict``), ``rollback --no-freeze``, and ``retrain softmax-regression --no-predict``. The
images, training splits, the run of softmax regression, pictures of runs and lock files were left out.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from candidate import seal
from command_line import answer, assert_clear, gradmill, run
from conftest import REPOSITORY
from consumer import answers
from documents import load
from tasks.store.own_data import repeat_parameters

NAME = "linear-regression"
SOFTMAX = "softmax-regression"


@pytest.fixture
def store(artifacts: Path) -> Path:
    """A copy of the old store, in the artifacts folder."""
    return Path(shutil.copytree(REPOSITORY / "tests" / "store_of_c692a25", artifacts))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("words", [f"{NAME} 1", f"{NAME} 2", f"{SOFTMAX} 1"])
def test_every_version_is_whole(words: str) -> None:
    assert answer(f"verify {words}")["checked"]


def test_the_listing_tells_champion_and_hold(store: Path) -> None:
    models = answer("models")["models"]
    marks = [(row["version"], row["champion"], row["held"]) for row in models[NAME]]
    assert marks == [(1, True, False), (2, False, True)]
    assert models[NAME][0]["test_loss"] == pytest.approx(5.17772e-05, rel=1e-5)
    assert [row["test_accuracy"] for row in models[SOFTMAX]] == [pytest.approx(0.8322)]


@pytest.mark.slow
def test_the_champions_answer_as_they_did_when_they_were_published(
    store: Path, on_server: None, tmp_path: Path
) -> None:
    for name, rows, answer_column in ((NAME, "features", "prediction"), (SOFTMAX, "images", "label")):
        with np.load(store / "models" / name / "1" / "sample.npz", allow_pickle=False) as archive:
            sample = dict(archive)
        np.save(tmp_path / f"{name}.npy", sample[rows])
        job = Path(run("predict", tmp_path / f"{name}.npy", "--name", name)["path"])
        found = pq.read_table(sorted(job.glob("part-*.parquet")))
        np.testing.assert_allclose(found[answer_column], sample[answer_column], rtol=0, atol=1e-6)
    labels = (store / "models" / SOFTMAX / "1" / "labels.txt").read_text().splitlines()
    assert found["label_name"].to_pylist() == [labels[label] for label in sample["label"]]
    probabilities = np.stack([found[f"probability_{name}"] for name in labels], axis=1)
    np.testing.assert_allclose(probabilities, sample["probabilities"], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_another_seed_is_judged_against_the_champion_of_before_and_what_was_held_can_be_promoted(
    store: Path, on_server: None
) -> None:
    """The champion's loss is computed by numpy and onnxruntime alone."""
    done = run("retrain", NAME, "--seed", "7", "--no-predict")
    assert (done["outcome"], done["version"]) == ("published", 3)
    (gate,) = (each for each in done["gates"] if each["name"] == "champion_loss")
    manifest = load(Path(done["model_path"]).with_name("manifest.json"))
    test = safetensors.numpy.load_file(store / manifest["dataset"]["test"]["path"])
    predictions = answers(store / f"models/{NAME}/1/model.onnx", test["features"])["prediction"]
    loss = np.mean((predictions - test["target"]).astype(np.float64) ** 2) / 2
    assert gate["maximum"] == pytest.approx(1.05 * loss, rel=1e-4)
    assert "of version 1)" in gate["detail"], "version 2 is held: it is compared with nothing"
    assert answer(f"promote {NAME} 2")["before"] == 3
    assert answer(f"verify {NAME}")["version"] == 2


def test_an_option_of_then_that_was_removed_is_left_out_of_a_repeat_which_is_said(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store / "models" / SOFTMAX / "1"
    document = load(folder / "manifest.json")
    assert repeat_parameters(SOFTMAX, {})["training"].get("dropout") is None
    assert not capsys.readouterr().out, "it was 0"
    document["parameters"]["training"]["dropout"] = 0.5
    seal(folder, document)
    assert "dropout" not in repeat_parameters(SOFTMAX, {})["training"]
    assert "dropout 0.5 of version 1 is ignored: use --weight-decay" in capsys.readouterr().out


# Moved and copied


def documents_without_absolute_paths(artifacts: Path) -> set[str]:
    """The names of all JSON documents, in which no text begins with /."""
    documents = [*artifacts.rglob("*.json")]
    assert [path for path in documents if re.search(r'[:\[,]\s*"/', path.read_text())] == []
    return {path.name for path in documents}


@pytest.mark.slow  # two real retrains
def test_a_moved_folder_is_unchanged_and_predicts_and_a_copy_never_uses_the_files_of_the_original(
    artifacts: Path, tmp_path: Path, on_server: None
) -> None:
    run("retrain", NAME, "--no-predict")
    moved = artifacts.rename(tmp_path / "moved")
    result = run("retrain", NAME, "--artifacts", moved)
    assert (result["outcome"], result["model_path"]) == ("unchanged", str(moved / "models" / NAME / "1" / "model.onnx"))
    predicted = run("predict", "--name", NAME, "--artifacts", moved)
    assert predicted["rows"] == 1000
    assert Path(predicted["path"]).parent == moved / "predictions", "absolute on stdout"
    written = documents_without_absolute_paths(moved)
    assert {"manifest.json", "run.json", "_job.json", "evaluation.json"} <= written
    assert not artifacts.exists()
    copy = Path(shutil.copytree(moved, tmp_path / "copy"))
    split = next(copy.glob("datasets/*/test.*"))
    split.unlink()
    assert_clear(gradmill("predict", "--name", NAME, "--artifacts", str(copy)), 4, split)
