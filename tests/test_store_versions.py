"""The store: versions, the champion, holds, pruning, verification; what readers see while all that happens."""

import hashlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import yaml

from candidate import Candidate, job_document
from conftest import REPOSITORY, Pipeline
from store_state import age_demotions, champion, damage
from tasks.errors import DataError, UsageError
from tasks.store import (
    artifact_paths,
    folders,
    housekeeping,
    locks,
    pointer,
    predictions,
    reading,
    state,
    verification,
)

NAME = "linear-regression"


# Publication and unchanged candidates


class Kind(NamedTuple):
    """What a version of a model of this kind has beside what all have."""

    name: str
    number: int
    files: set[str]
    gates: set[str]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


KINDS = {
    "regression": Kind(
        NAME, 2, {"regression.png", "weights.npz"},
        {"test_loss", "parameter_error", "champion_signature", "champion_loss"},
        [{"name": "features", "datatype": "FP32", "shape": [-1, 2]}],
        [{"name": "prediction", "datatype": "FP32", "shape": [-1]}],
    ),
    "classifier": Kind(
        "softmax-regression-concise", 1,
        {"labels.txt", "confusion-matrix.png", "reliability.png", "misclassified.png"},
        {"train_loss", "train_accuracy", "test_accuracy", "parity_labels"},
        [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}],
        [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    ),
}  # fmt: skip
OF_ALL = {
    "model.onnx", "manifest.json", "metadata.json", "sample.npz", "README.md", "SHA256SUMS", "learning-curve.png",
    "index.html",
}  # fmt: skip
CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_has_exactly_its_files_which_say_what_the_contract_says(
    kind: str, artifacts: Path, request: pytest.FixtureRequest
) -> None:
    wanted = KINDS[kind]
    if kind == "classifier":
        pipeline: Pipeline = request.getfixturevalue("pipeline")
        assert pipeline.report("softmax-regression").name == wanted.name
        shutil.copytree(pipeline.artifacts / "models" / wanted.name, artifacts / "models" / wanted.name)
    else:
        request.getfixturevalue("two_versions")
    folder = artifact_paths.version(wanted.name, wanted.number)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert digests.keys() == OF_ALL | wanted.files
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == (wanted.name, wanted.number)
    assert {gate["name"] for gate in manifest["gates"]} == wanted.gates | {
        "parity", "servability", "latency_ms", "memory_mb",
    }  # fmt: skip
    assert manifest["files"] == {
        name: digest for name, digest in digests.items() if name not in ("manifest.json", "SHA256SUMS")
    }
    assert json.loads((folder / "metadata.json").read_text()) == {
        "name": wanted.name, "versions": [str(wanted.number)], "platform": "onnx_onnxv1",
        "inputs": wanted.inputs, "outputs": wanted.outputs,
    }  # fmt: skip
    if kind == "classifier":
        assert (folder / "labels.txt").read_text() == "".join(f"{name}\n" for name in CLASSES)
    sample = np.load(folder / "sample.npz", allow_pickle=False)
    outputs = [output["name"] for output in wanted.outputs]
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    found = session.run(outputs, {each["name"]: sample[each["name"]] for each in wanted.inputs})
    for name, values in zip(outputs, found, strict=True):
        np.testing.assert_allclose(values, sample[name], atol=2e-5)
    assert verification.verify(wanted.name, wanted.number)


def test_the_model_card_has_hugging_face_front_matter(two_versions: None) -> None:
    folder = artifact_paths.version(NAME, 1)
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert {"license", "library_name", "tags", "datasets", "metrics", "model-index"} <= set(card)
    (result,) = card["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(2 * state.read_name(NAME).rows[0]["test_loss"])
    for picture in ("learning-curve.png", "regression.png"):
        assert f"]({picture})" in body
        assert (folder / picture).is_file()


def test_identical_to_the_champion_is_unchanged(candidates: list[Candidate], two_versions: None) -> None:
    published = candidates[1].publish()
    assert (published.outcome, published.version, champion()) == ("unchanged", 2, (2, 1, []))


def test_identical_to_a_replaced_version_is_unchanged_and_does_not_bring_it_back(
    candidates: list[Candidate], two_versions: None
) -> None:
    published = candidates[0].publish()
    assert (published.outcome, published.version, champion()) == ("unchanged", 1, (2, 1, []))


def test_identical_to_a_held_version_is_unchanged_until_promote_lifts_the_hold(
    candidates: list[Candidate], two_versions: None
) -> None:
    assert pointer.rollback(NAME) == (2, 1)
    assert champion() == (1, None, [2])
    assert candidates[1].publish().outcome == "unchanged"
    assert champion() == (1, None, [2]), "the nightly retrain does not bring it back"
    assert pointer.promote(NAME, 2)
    assert champion() == (2, 1, [])


# Promotion, rollback, pruning


def test_promote_and_rollback_move_the_pointer_and_tritons_policy(
    candidates: list[Candidate], two_versions: None
) -> None:
    candidates[2].publish()
    assert not pointer.promote(NAME, 3), "it is the champion already"
    assert pointer.promote(NAME, 1)
    assert champion() == (1, 3, [])
    assert "versions: [ 1 ]" in artifact_paths.triton_config(NAME).read_text()
    assert pointer.rollback(NAME) == (1, 3)
    assert champion() == (3, 2, [1]), "a second rollback would go to the one before"
    assert pointer.rollback(NAME) == (3, 2)
    assert champion() == (2, None, [1, 3])
    with pytest.raises(UsageError, match="no version before its champion"):
        pointer.rollback(NAME)


def test_a_damaged_version_cannot_be_promoted_or_rolled_back_to(two_versions: None) -> None:
    damage(artifact_paths.version(NAME, 1) / "model.onnx", 100)
    for move in (lambda: pointer.promote(NAME, 1), lambda: pointer.rollback(NAME)):
        with pytest.raises(DataError, match=r"model\.onnx has changed"):
            move()
    assert champion() == (2, 1, [])


def test_prune_keeps_champion_previous_recent_and_needed_versions(
    candidates: list[Candidate], two_versions: None
) -> None:
    candidates[2].publish()
    pruned, kept = housekeeping.prune(NAME, keep=1)
    assert pruned == []
    assert kept == {1: "demoted less than a day ago", 2: "the version that a rollback goes to"}
    age_demotions()
    job = artifact_paths.predictions("0123456789abcdef") / "_job.json"
    job.parent.mkdir(parents=True)
    job.write_text(json.dumps(job_document(NAME)))
    assert housekeeping.prune(NAME, keep=1)[0] == []
    job.write_text(json.dumps(job_document(NAME, status="done")))
    assert housekeeping.prune(NAME, keep=1)[0] == [1]
    assert reading.versions(NAME) == [2, 3]
    assert not [path for path in artifact_paths.model(NAME).iterdir() if path.name.startswith(".pruned")]


def test_a_pruned_number_never_comes_back(candidates: list[Candidate], two_versions: None) -> None:
    pointer.promote(NAME, 1)
    pointer.rollback(NAME, freeze=False)
    pointer.promote(NAME, 1)
    age_demotions()
    document = json.loads(artifact_paths.champion(NAME).read_text())
    artifact_paths.champion(NAME).write_text(json.dumps(document | {"previous": None}))
    assert housekeeping.prune(NAME, keep=1) == ([], {1: "the champion"})
    folders.remove(artifact_paths.version(NAME, 2))
    assert candidates[2].publish().version == 3


def test_prune_spares_what_an_unfinished_job_elsewhere_names(
    candidates: list[Candidate], two_versions: None, tmp_path: Path
) -> None:
    """Its output is outside artifacts/, where only a note tells of it; notes may be left over or gone at any moment."""
    candidates[2].publish()
    age_demotions()
    folder, notes = tmp_path / "out of sight", artifact_paths.jobs_elsewhere()
    for path in (folder, notes):
        path.mkdir(parents=True)
    (notes / "0123456789abcdef").write_text(str(folder))
    (notes / "left over").write_text(str(tmp_path / "no such folder"))
    (notes / "odd").write_bytes(b"\xff\0")
    (notes / "gone").symlink_to(tmp_path / "nowhere")
    job = folder / "_job.json"
    job.write_text(json.dumps(job_document(NAME)))
    assert housekeeping.prune(NAME, keep=1)[0] == []
    assert str(folder) in housekeeping.find_protected(NAME)[1]
    job.write_text(json.dumps(job_document(NAME, status="done")))
    assert housekeeping.prune(NAME, keep=1)[0] == [1]


def test_prune_spares_every_version_while_the_document_of_an_unfinished_job_is_damaged(
    candidates: list[Candidate], two_versions: None
) -> None:
    """Whichever it names: restored from a copy, the document lets the job go on."""
    candidates[2].publish()
    age_demotions()
    folder = artifact_paths.predictions("0123456789abcdef")
    predictions.make_scratch(folder)
    content = json.dumps(job_document(NAME))
    (folder / "_job.json").write_text(content[: len(content) // 2])
    pruned, kept = housekeeping.prune(NAME, keep=1)
    assert (pruned, list(kept)) == ([], [1, 2])
    assert str(folder) in kept[1]
    (folder / "_job.json").write_text(content)
    assert housekeeping.find_protected(NAME)[1] == f"named by the unfinished job in {folder}"
    predictions.remove_scratch(folder)
    (folder / "_job.json").write_text("{")
    assert housekeeping.prune(NAME, keep=1)[0] == [1], "a job without its scratch was done"


# Readers and writers at once


def read_in_a_loop(artifacts: str, stop: object, failures: object, reads: object) -> None:
    """A consumer's loop, with nothing of ours: pointer, file, digest, inference."""
    folder = Path(artifacts) / "models" / NAME
    while not stop.is_set():  # type: ignore[attr-defined]
        try:
            document = json.loads((folder / "champion.json").read_bytes())
            content = (folder / str(document["version"]) / "model.onnx").read_bytes()
            assert hashlib.sha256(content).hexdigest() == document["model_sha256"], "a mixed version"
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            session.run(None, {"features": np.zeros((1, 2), np.float32)})
            reads.value += 1  # type: ignore[attr-defined]
        except Exception as error:
            failures.put(repr(error))  # type: ignore[attr-defined]
            return


@pytest.mark.slow
def test_a_reader_never_fails_during_50_promotions_and_rollbacks(two_versions: None, artifacts: Path) -> None:
    context = multiprocessing.get_context("spawn")
    stop, failures, reads = context.Event(), context.Queue(), context.Value("i", 0)
    reader = context.Process(target=read_in_a_loop, args=(str(artifacts), stop, failures, reads))
    reader.start()
    while not reads.value and reader.is_alive():
        stop.wait(0.05)
    moves = 0
    while moves < 50 or (reads.value < 50 and reader.is_alive()):
        pointer.rollback(NAME)
        pointer.promote(NAME, 2)
        moves += 2
    stop.set()
    reader.join(60)
    assert failures.empty(), failures.get()
    assert reads.value >= 50


def test_two_publications_at_once_give_two_whole_versions_and_one_champion(candidates: list[Candidate]) -> None:
    threads = [threading.Thread(target=candidate.publish) for candidate in candidates[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reading.versions(NAME) == [1, 2]
    assert champion() == (2, 1, [])
    gated = [{gate.name for gate in reading.manifest(NAME, number).gates} for number in (1, 2)]
    assert ["champion_loss" in gates for gates in gated] == [False, True], "the second is gated against the first"
    for number in (1, 2):
        verification.verify(NAME, number)


def test_the_lock_is_free_again_when_its_holder_is_killed(two_versions: None) -> None:
    code = (
        "import time; from tasks.store import locks\n"
        f"with locks.model('{NAME}'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with locks.locked_if_free(artifact_paths.lock(artifact_paths.model(NAME))) as free:
        assert not free
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locks.model(NAME):
        pass
