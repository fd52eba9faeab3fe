"""The store: versions, the champion, holds, pruning; what readers and writers see while all that happens."""

import copy
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest

from candidate import Contender, job_document, plain
from command_line import plant
from conftest import REPOSITORY, Pipeline
from store_state import age_demotions, champion, damage
from table_files import written
from tasks.data.prepared_splits import write_arrays
from tasks.download import download
from tasks.errors import DataError, UsageError
from tasks.parameters import RetrainParameters
from tasks.preprocess import preprocess
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
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate
from victims import fork

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


def test_identical_to_a_kept_version_is_unchanged_and_does_not_bring_it_back(
    candidates: list[Contender], two_versions: None
) -> None:
    for number in (1, 2):
        published = candidates[number - 1].publish()
        assert (published.outcome, published.version, champion()) == ("unchanged", number, (2, 1, []))


def test_identical_to_a_held_version_is_unchanged_until_promote_lifts_the_hold(
    candidates: list[Contender], two_versions: None
) -> None:
    assert pointer.rollback(NAME) == (2, 1)
    assert candidates[1].publish().outcome == "unchanged"
    assert champion() == (1, None, [2]), "the nightly retrain does not bring it back"
    assert pointer.promote(NAME, 2)
    assert champion() == (2, 1, [])


# Promotion, rollback, pruning


def test_promote_and_rollback_move_the_pointer_and_tritons_policy(
    candidates: list[Contender], two_versions: None
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


@pytest.fixture
def three_versions(candidates: list[Contender], two_versions: None) -> None:
    candidates[2].publish()


def prune() -> tuple[list[int], dict[int, str]]:
    return housekeeping.prune(NAME, keep=1)


def write_job(folder: Path, **changes: Any) -> Path:
    """The document of a job that goes on with version 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_job.json").write_text(json.dumps(job_document(NAME) | changes))
    return folder / "_job.json"


@pytest.mark.usefixtures("three_versions")
def test_prune_keeps_champion_previous_recent_and_needed_versions(tmp_path: Path) -> None:
    previous = "the version that a rollback goes to"
    assert prune() == ([], {1: "demoted less than a day ago", 2: previous})
    age_demotions()
    folder, notes = tmp_path / "out of sight", artifact_paths.jobs_elsewhere()  # of outputs outside artifacts/
    notes.mkdir(parents=True)
    (notes / "0123456789abcdef").write_text(str(folder))
    (notes / "left over").write_text(str(tmp_path / "no such folder"))
    (notes / "odd").write_bytes(b"\xff\0")
    (notes / "gone").symlink_to(tmp_path / "nowhere")
    for place in (folder, artifact_paths.predictions("0123456789abcdef")):
        write_job(place)
        assert prune() == ([], {1: f"named by the unfinished job in {place}", 2: previous})
        write_job(place, status="done")
    assert prune() == ([1], {2: previous})
    pointer.promote(NAME, 2)
    age_demotions()
    assert prune() == ([], {2: "the champion"})
    assert model_folder.list_versions(NAME) == [2, 3]
    assert not [path for path in artifact_paths.model(NAME).iterdir() if path.name.startswith(".pruned")]


@pytest.mark.usefixtures("three_versions")
def test_prune_spares_every_version_while_the_document_of_an_unfinished_job_is_damaged() -> None:
    """Whichever it names: restored from a copy, the document lets the job go on."""
    age_demotions()
    folder = artifact_paths.predictions("0123456789abcdef")
    document = write_job(folder)
    content = document.read_text()
    predictions.make_scratch(folder)
    document.write_text(content[: len(content) // 2])
    pruned, kept = prune()
    assert (pruned, list(kept)) == ([], [1, 2])
    assert str(folder) in kept[1]
    document.write_text(content)
    assert prune()[1][1] == f"named by the unfinished job in {folder}"
    predictions.remove_scratch(folder)
    document.write_text("{")
    assert prune()[0] == [1], "a job without its scratch was done"


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


def test_two_publications_at_once_give_two_whole_versions_and_one_champion(candidates: list[Contender]) -> None:
    threads = [threading.Thread(target=candidate.publish) for candidate in candidates[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model_folder.list_versions(NAME) == [1, 2]
    assert champion() == (2, 1, [])
    gated = [{gate.name for gate in model_folder.find_manifest(NAME, number).gates} for number in (1, 2)]
    assert ["champion_loss" in gates for gates in gated] == [False, True], "the second is gated against the first"
    for number in (1, 2):
        verification.verify(NAME, number)


def test_the_lock_is_free_again_when_its_holder_is_killed(two_versions: None) -> None:
    code = (
        "import time; from tasks.store import locks\n"
        f"with locks.hold_model('{NAME}'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with locks.locked_if_free(artifact_paths.lock(artifact_paths.model(NAME))) as free:
        assert not free
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locks.hold_model(NAME):
        pass


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
    code = (
        "import sys, time; from pathlib import Path; from tasks.store import atomic\n"
        "with atomic.replace_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)"
    )
    folder = tmp_path / "models" / "name"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "champion.json")], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    atomic.sweep(tmp_path)
    assert len(list(folder.iterdir())) == 1, "its writer is alive"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    atomic.sweep(tmp_path)
    assert not list(folder.iterdir())
    atomic.write_json(folder / "champion.json", {})
    assert json.loads((folder / "champion.json").read_text()) == {}


def write_often(path: Path, lost: "Synchronized[int]", writing: "Synchronized[int]") -> None:
    for _ in range(WRITES):
        try:
            atomic.write_bytes(path, b"content")
        except FileNotFoundError:
            with lost.get_lock():
                lost.value += 1
    with writing.get_lock():
        writing.value -= 1


def sweep_meanwhile(folder: Path, writing: "Synchronized[int]") -> None:
    while writing.value:
        atomic.sweep(folder)


def test_sweepers_take_nothing_from_writers(tmp_path: Path) -> None:
    """A sweep between the creation of a temporary file and its lock took one in forty."""
    context = multiprocessing.get_context("fork")
    lost, writing = context.Value("i", 0), context.Value("i", 3)
    path = tmp_path / "file"
    workers = [context.Process(target=write_often, args=(path, lost, writing)) for _ in range(3)]
    workers += [context.Process(target=sweep_meanwhile, args=(tmp_path, writing)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6
    assert lost.value == 0
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


OURS = ".gradmill-0123456789abcdef.partial"


@pytest.mark.parametrize("name", [OURS, "x.partial", ".cache.partial"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "dangling link"])
def test_the_sweep_looks_at_regular_files_only(tmp_path: Path, kind: str, name: str) -> None:
    path, outside = plant(tmp_path / "swept" / name, kind), tmp_path / "outside" / OURS
    atomic.write_bytes(outside, b"of another folder")
    (path.parent / "behind-a-link").symlink_to(outside.parent)
    (path.parent / ".gradmill-0123456789abcdee.partial").symlink_to(outside)
    before = {*path.parent.iterdir()}
    atomic.sweep(path.parent)
    assert {*path.parent.iterdir()} == before
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
    published: list[int | None] = []
    waiting = threading.Thread(target=lambda: published.append(candidates[0].publish().version))
    with publication.take_turn(NAME, to_publish=True):
        waiting.start()
        waiting.join(0.3)
        assert published == []
    waiting.join(60)
    assert published == [1]
    assert model_folder.list_versions(NAME) == [1]


def killed_in_its_turn(artifacts: str) -> None:
    """The body of a victim: the first candidate of a name, killed while it is staged."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    with publication.take_turn("new", to_publish=True):
        (artifact_paths.model("new") / ".staging-0123456789abcdef").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_run_of_any_name_removes_what_others_have_left(two_versions: None, artifacts: Path) -> None:
    victim = fork(killed_in_its_turn, str(artifacts))
    victim.join()
    assert artifact_paths.model("new").is_dir()
    for name in ("empty", "theirs", "busy", "lost+found", f"{NAME}/.staging-0123456789abcdef"):
        artifact_paths.model(name).mkdir()
    (artifact_paths.model("theirs") / "notes.txt").touch()
    with locks.hold_lock(artifact_paths.lock(artifact_paths.model("busy")), "busy"):
        RunFolder.open("a-run", {})
        assert {path.name for path in artifact_paths.models().iterdir()} == {"busy", NAME, "lost+found", "theirs"}
        assert model_folder.list_names() == ["busy", NAME, "theirs"], "a model cannot have the other one's name"
    assert not [*artifact_paths.model(NAME).glob(".staging-*")]


# What waits for the disk: versions and all that they name, and nothing that a run can make again


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file and folder that is forced to disk, in order; and a renamed one as it is called afterwards."""
    found: list[Path] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def noted_rename(source: Path, target: Path, **options: int) -> None:
        rename(source, target, **options)
        found.append(Path(target))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    return found


def test_from_a_table_to_its_weights_only_the_notes_of_the_run_wait_for_the_disk(
    tmp_path: Path, forced: list[Path]
) -> None:
    size = np.random.default_rng(0).normal(size=300)
    columns = {"size": size, "late": np.where(size > 0, "yes", "no"), "split": ["train"] * 250 + ["test"] * 50}
    artifact_paths.make_root()
    data = {"source": str(written(tmp_path / "table.csv", columns)), "target": "late", "split_column": "split"}
    document = {"name": "late", "training": {"model": "softmax-regression", "device": "cpu"}, "data": data}
    asked, run = RetrainParameters.model_validate(document), RunFolder.open("late", {})
    validated = plain(validate)(run, plain(download)(run, asked.dataset, asked.data), asked.data, "classification")
    plain(train)(run, plain(preprocess)(run, validated, asked.data, 0), asked.training)
    assert {path.parent if path != run.path else path for path in forced} == {run.path}
    assert len(forced) == 2, "run.json, as it is called until it is whole, and its folder"


def test_row_digests_are_on_disk_before_the_version_that_names_them(
    candidates: list[Contender], artifacts: Path, forced: list[Path]
) -> None:
    made, rows = copy.copy(candidates[0]), artifacts / "rows"
    artifacts.mkdir()
    sha256 = write_arrays(rows, {"train": (np.uint64, (3,))}, {"train": [np.arange(3, dtype=np.uint64)]})
    made.prepared = made.prepared.model_copy(update={"rows": FileRef(path=rows, sha256=sha256)})
    assert made.publish().version == 1
    assert forced.index(rows) < forced.index(artifacts) < forced.index(artifact_paths.version(NAME, 1))
