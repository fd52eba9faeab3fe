"""The store: versions, the champion, holds, pruning; what readers and writers see while all that happens."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from candidate import Contender, job_document
from command_line import plant, plant_strangers
from conftest import REPOSITORY, Pipeline
from consumer import answers
from documents import load
from store_state import age_demotions, champion, leftovers
from tasks.store import (
    artifact_paths,
    atomic,
    housekeeping,
    locks,
    model_folder,
    pointer,
    predictions,
    publication,
    verification,
)
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"


# Publication and unchanged candidates


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [-1, *shape]}


OF_ALL = "model.onnx manifest.json metadata.json sample.npz README.md SHA256SUMS learning-curve.png index.html"
KINDS = {  # files and gates beside those that all have, tensors
    "linear-regression": (
        "regression.png weights.npz", "test_loss parameter_error",
        [tensor("features", "FP32", 2)], [tensor("prediction", "FP32")],
    ),
    "softmax-regression": (
        "labels.txt confusion-matrix.png reliability.png misclassified.png",
        "train_loss train_accuracy test_accuracy parity_labels",
        [tensor("images", "UINT8", 28, 28)], [tensor("probabilities", "FP32", 10), tensor("label", "INT64")],
    ),
}  # fmt: skip
LABELS = "t-shirt\ntrouser\npullover\ndress\ncoat\nsandal\nshirt\nsneaker\nbag\nankle boot\n"


@pytest.mark.parametrize("model", KINDS)
def test_a_version_has_exactly_its_files_which_say_what_the_contract_says(
    model: str, pipeline: Pipeline, artifacts: Path
) -> None:
    files, gates, inputs, outputs = KINDS[model]
    name, number = pipeline.report(model).name, 1
    shutil.copytree(pipeline.artifacts / "models" / name, artifacts / "models" / name)
    folder = artifact_paths.version(name, number)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert digests.keys() == {*OF_ALL.split(), *files.split()}
    manifest = load(folder / "manifest.json")
    assert (manifest["name"], manifest["version"]) == (name, number)
    of_all = {"parity", "servability", "latency_ms", "memory_mb"}
    assert {gate["name"] for gate in manifest["gates"]} == of_all | {*gates.split()}
    assert manifest["files"].items() == digests.items() - {
        (name, digests[name]) for name in ("manifest.json", "SHA256SUMS")
    }
    assert load(folder / "metadata.json") == {
        "name": name, "versions": [str(number)], "platform": "onnx_onnxv1", "inputs": inputs, "outputs": outputs,
    }  # fmt: skip
    assert "labels.txt" not in digests or (folder / "labels.txt").read_text() == LABELS
    with np.load(folder / "sample.npz", allow_pickle=False) as archive:
        sample = dict(archive)
    found = answers(folder / "model.onnx", sample[inputs[0]["name"]])
    for each in outputs:
        np.testing.assert_allclose(found[each["name"]], sample[each["name"]], atol=2e-5)
    assert verification.verify(name, number)


def test_identical_to_a_kept_or_held_version_is_unchanged_until_promote_lifts_the_hold(
    candidates: list[Contender], two_versions: None
) -> None:
    def publish(number: int) -> tuple[int, int | None, list[int]]:
        published = candidates[number - 1].publish()
        assert (published.outcome, published.version) == ("unchanged", number)
        return champion()

    assert publish(1) == publish(2) == (2, 1, []), "the older one does not come back"
    assert pointer.rollback(NAME) == (2, 1)
    assert publish(2) == (1, None, [2]), "nor by a nightly retrain"
    artifact_paths.history(NAME).unlink()
    assert publish(2) == (1, None, [2]), "though the history is lost"
    assert pointer.promote(NAME, 2)
    assert champion() == (2, 1, [])


# Pruning


@pytest.fixture
def three_versions(candidates: list[Contender], two_versions: None) -> None:
    candidates[2].publish()


def prune() -> tuple[list[int], dict[int, str]]:
    return housekeeping.prune(NAME, keep=1)


PREVIOUS = {2: "the version that a rollback would return to"}


@pytest.mark.usefixtures("three_versions")
def test_prune_keeps_champion_previous_recent_and_needed_versions(tmp_path: Path) -> None:
    assert prune() == ([], {1: "demoted less than a day ago"} | PREVIOUS)
    age_demotions()
    folder, notes = tmp_path / "out of sight", artifact_paths.jobs_elsewhere()  # of outputs outside artifacts/
    for name, content in (("0123456789abcdef", os.fsencode(folder)), ("odd", b"\xff\0"), ("left over", b"/nowhere")):
        atomic.write_bytes(notes / name, content)
    (notes / "gone").symlink_to(tmp_path / "nowhere")
    for place in (folder, artifact_paths.predictions("0123456789abcdef")):
        atomic.write_json(place / "_job.json", job_document(NAME))
        assert prune() == ([], {1: f"named by the unfinished job in {place}"} | PREVIOUS)
        atomic.write_json(place / "_job.json", job_document(NAME, status="done"))
    assert prune() == ([1], PREVIOUS)
    pointer.promote(NAME, 2)
    age_demotions()
    assert prune() == ([], {2: "the champion"})
    assert model_folder.list_versions(NAME) == [2, 3]
    assert leftovers() == []


@pytest.mark.usefixtures("three_versions")
def test_prune_spares_every_version_while_the_document_of_an_unfinished_job_is_damaged() -> None:
    """Whichever it names: restored from a copy, the document lets the job go on."""
    age_demotions()
    folder = artifact_paths.predictions("0123456789abcdef")
    predictions.make_scratch(folder)
    (folder / "_job.json").write_text("{")
    pruned, kept = prune()
    assert (pruned, list(kept)) == ([], [1, 2])
    assert str(folder) in kept[1]
    predictions.remove_scratch(folder)
    assert prune()[0] == [1], "a job without its scratch was done"


# Readers and writers at once


@pytest.mark.slow
def test_a_reader_never_fails_during_50_promotions_and_rollbacks(two_versions: None, artifacts: Path) -> None:
    folder, stop, reads = artifacts / "models" / NAME, threading.Event(), list[int]()

    def read() -> None:
        """A consumer's loop, with nothing of ours: pointer, file, digest, inference."""
        while not stop.is_set():
            document = json.loads((folder / "champion.json").read_bytes())
            content = (folder / str(document["version"]) / "model.onnx").read_bytes()
            assert hashlib.sha256(content).hexdigest() == document["model_sha256"], "a mixed version"
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            session.run(None, {"features": np.zeros((1, 2), np.float32)})
            reads.append(document["version"])

    with ThreadPoolExecutor() as pool:
        reader, moves = pool.submit(read), 0
        while moves < 50 or (len(reads) < 50 and not reader.done()):
            pointer.rollback(NAME)
            pointer.promote(NAME, 2)
            moves += 2
        stop.set()
        reader.result()
    assert len(reads) >= 50


WRITES = 60  # a sweep that does not wait for the lock takes one in forty


def write_half(path: Path) -> None:
    with atomic.replace_file(path) as temporary:
        temporary.write_bytes(b"half of the new")
        raise OSError("disk full")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_sweep_takes_what_a_killed_writer_left_but_not_what_is_being_written(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "name"
    code = "import time; from pathlib import Path; from tasks.store import atomic\n"
    code += f"with atomic.replace_file(Path('{folder}/champion.json')):\n    print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        atomic.sweep(tmp_path)
        assert len(list(folder.iterdir())) == 1, "its writer is alive"
        process.kill()
    atomic.sweep(tmp_path)
    assert not list(folder.iterdir())


def test_sweepers_take_nothing_from_writers(tmp_path: Path) -> None:
    """A sweep between the creation of a temporary file and its lock took one in forty."""

    def write() -> None:
        for _ in range(WRITES):
            atomic.write_bytes(tmp_path / "file", b"content")

    def sweep() -> None:
        while not all(writer.done() for writer in writers):
            atomic.sweep(tmp_path)

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write) for _ in range(3)]
        sweepers = [pool.submit(sweep) for _ in range(3)]
    assert [each.exception() for each in (*writers, *sweepers)] == [None] * 6
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


OURS = ".gradmill-0123456789abcdef.partial"


def test_the_sweep_looks_at_regular_files_only_and_follows_no_link(tmp_path: Path) -> None:
    outside, swept = atomic.write_bytes(tmp_path / "outside" / OURS, b"of another folder").path, tmp_path / "swept"
    plant_strangers(swept)
    for number, target in enumerate((str(outside), "nowhere")):
        (swept / f".gradmill-{number:016}.partial").symlink_to(target)
    (swept / "behind-a-link").symlink_to(outside.parent)
    before = {*swept.iterdir()}
    atomic.sweep(swept)
    assert {*swept.iterdir()} == before
    assert outside.exists()


# Locks


@pytest.mark.parametrize("kind", ["fifo", "dangling link", "folder"])
def test_a_lock_file_of_another_kind_is_an_error_and_no_endless_wait(tmp_path: Path, kind: str) -> None:
    path = plant(tmp_path / ".lock", kind)
    with pytest.raises(OSError, match=r"\.lock"), locks.hold_lock(path, "busy"):
        pass
    assert not (tmp_path / "nowhere").exists()


# models/ is a Triton repository at any time: no folder without a version stays in it


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_publication_that_is_cut_off_leaves_nothing_half_done(
    candidates: list[Contender], fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(folder: Path, *_: Any, **__: Any) -> None:
        (folder / "model.onnx").write_bytes(b"half of it")
        raise fault

    def cut_off(candidate: Contender) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(publication, "write_version_files", half)
            with pytest.raises(type(fault)):
                candidate.publish()

    cut_off(candidates[0])
    assert not list(artifact_paths.models().iterdir()), "nor a folder without a version"
    assert candidates[0].publish().version == 1
    before = {*artifact_paths.model(NAME).iterdir()}
    cut_off(candidates[1])
    assert {*artifact_paths.model(NAME).iterdir()} == before


def test_whoever_waits_for_the_lock_of_a_folder_that_goes_publishes_into_a_new_one(candidates: list[Contender]) -> None:
    with ThreadPoolExecutor() as pool:
        with publication.take_turn(NAME, to_publish=True):
            waiting = pool.submit(candidates[0].publish)
            assert not wait([waiting], timeout=0.3).done
        assert waiting.result(60).version == 1
    assert model_folder.list_versions(NAME) == [1]


def test_the_next_run_of_any_name_removes_what_others_have_left(two_versions: None) -> None:
    for name in ("new", NAME):
        (artifact_paths.model(name) / ".staging-0123456789abcdef").mkdir(parents=True)
    for name in ("empty", "theirs", "busy", "lost+found"):
        artifact_paths.model(name).mkdir()
    (artifact_paths.model("theirs") / "notes.txt").touch()
    with locks.hold_lock(artifact_paths.lock(artifact_paths.model("busy")), "busy"):
        RunFolder.open("a-run", {})
        assert {path.name for path in artifact_paths.models().iterdir()} == {"busy", NAME, "lost+found", "theirs"}
        assert model_folder.list_names() == ["busy", NAME, "theirs"], "a model cannot have the other one's name"
    assert leftovers() == []


def test_row_digests_and_every_file_are_on_disk_before_the_version_that_names_them(
    candidates: list[Contender], artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, rows = copy.copy(candidates[0]), atomic.write_bytes(artifacts / "rows", b"rows")
    made.prepared = made.prepared.model_copy(update={"rows": rows})
    forced, fsync = list[Path](), os.fsync

    def note(descriptor: int) -> None:
        forced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert made.publish().version == 1
    staging = max(at for at, path in enumerate(forced) if path.name.startswith(".staging"))
    assert forced.index(rows.path) < forced.index(artifacts) < staging
    names = {path.name for path in artifact_paths.version(NAME, 1).iterdir()}
    assert names <= {path.name for path in forced[:staging] if path.parent == forced[staging]}
    assert forced[staging + 1] == artifact_paths.model(NAME), "in which it is renamed"
