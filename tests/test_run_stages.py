"""What makes a function a stage, and single stages at their edges: reused by content, and one GPU is for one job."""

import base64
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
from filelock import FileLock
from prefect import flow, task

from candidate import Contender, plain, synthetic
from command_line import gradmill
from flows.retrain import retrain
from prefect_api import api_client, eventually, post
from tasks.errors import GateFailed, TrainingDiverged, UsageError
from tasks.evaluate import evaluate
from tasks.fitting import split_tensors
from tasks.fitting.progress import Watch
from tasks.judging import gates
from tasks.judging.parity import judge_parity
from tasks.machine import devices
from tasks.networks.training import EpochMetrics
from tasks.parameters import Data, Device, Gates, RetrainParameters, Training
from tasks.records import Evaluation, GateVerdict, PreparedDataset, RawDataset
from tasks.serving.runtime import open_session, run_model
from tasks.stage import cache, gpu_lock
from tasks.store import artifact_paths, atomic, model_folder
from tasks.store.record_base import NOT_IN_KEY, FileRef, Record
from tasks.store.run_folder import RunFolder
from tasks.train import train


@pytest.fixture
def run() -> RunFolder:
    return RunFolder.open("test-run", {})


@pytest.fixture
def prepared(run: RunFolder) -> PreparedDataset:
    return synthetic(run)


def linear(**options: Any) -> Training:
    return Training.model_validate({"model": "linear-regression"} | options)


# Train


@pytest.mark.parametrize("loss", [np.inf, np.nan])
def test_a_validation_loss_that_is_no_number_is_divergence_too(run: RunFolder, loss: float) -> None:
    measured = EpochMetrics(train={"loss": 1.0}, test={"loss": 1.0}, validation={"loss": loss})
    with pytest.raises(TrainingDiverged, match=rf"validation loss {loss} in epoch 1"):
        Watch(linear(validation=0.5, patience=3), run).to_the_end(iter([measured]))


def test_early_stopping_waits_for_patience_and_keeps_the_best_epoch(run: RunFolder) -> None:
    """From a learning rate at which the loss soon rises again; half the examples are held out."""
    prepared = synthetic(run, synthetic_noise=1.0, num_examples=60)
    training = linear(num_epochs=200, lr=0.1, validation=0.5, patience=3)
    trained = plain(train)(run, prepared, training)
    losses = [point.validation_loss for point in trained.learning_curve]
    assert trained.kept_epoch == 1 + losses.index(min(losses)) == len(losses) - 3 < 197
    exactly = training.model_copy(update={"num_epochs": trained.kept_epoch, "patience": None})
    again = plain(train)(run, prepared, exactly)
    kept, expected = (safetensors.numpy.load_file(each.weights.path) for each in (trained, again))
    np.testing.assert_array_equal(kept["W"], expected["W"])


@pytest.mark.parametrize(("share", "held_out", "left"), [(0.0001, 0, 1000), (0.009, 9, 991), (0.999, 999, 1)])
def test_a_validation_share_that_leaves_too_few_examples_is_exit_2_and_says_how_many(
    run: RunFolder, prepared: PreparedDataset, share: float, held_out: int, left: int
) -> None:
    with pytest.raises(UsageError) as caught:
        plain(train)(run, prepared, linear(validation=share, patience=2))
    assert f"of 1000 training examples holds out {held_out} and leaves {left}" in caught.value.found
    assert caught.value.expected == "at least 10 of each"


# Gates


@pytest.mark.parametrize(
    ("value", "bounds", "passes"),
    [
        (0.7, {"above": 0.7}, False),
        (0.7001, {"above": 0.7, "maximum": 1.0}, True),
        (1.0, {"above": 0.7, "maximum": 1.0}, True),
        (0.5, {"below": 0.5}, False),
        (0.4999, {"below": 0.5}, True),
        (float("nan"), {"maximum": 1.0}, False),
        (float("inf"), {"above": 0.0}, False),
    ],
)
def test_gates_have_the_books_strict_and_inclusive_bounds(value: float, bounds: Any, passes: bool) -> None:
    assert gates.judge("gate", value, **bounds).passed is passes


def test_a_refused_candidate_leaves_its_evidence(run: RunFolder, prepared: PreparedDataset) -> None:
    trained = plain(train)(run, prepared, linear(num_epochs=1, lr=0.001))
    with pytest.raises(GateFailed, match="test_loss") as caught:
        plain(evaluate)(run, prepared, trained, linear(), Gates())
    assert isinstance(caught.value, AssertionError)
    evidence = json.loads(run.file("evaluation.json").read_text())
    assert [gate["name"] for gate in evidence["gates"] if not gate["passed"]] == ["test_loss", "parameter_error"]
    assert run.file("regression.png").is_file()


@pytest.mark.parametrize(("error", "passes"), [(0.0, True), (1e-4, False)])
def test_parity_gate_refuses_a_model_with_one_wrong_weight(
    error: float, passes: bool, candidates: list[Contender]
) -> None:
    exported, prepared = candidates[0].exported, candidates[0].prepared
    weights = safetensors.torch.load_file(candidates[0].trained.weights.path)
    weights["W"][0] += error
    test = split_tensors.load_split(prepared, "test")
    session = open_session(exported.onnx.path.read_bytes(), Device.CPU)
    pair = run_model(session, test.X.numpy()), (test.X @ weights["W"] + weights["b"]).numpy()
    (verdict,) = judge_parity("parity", [pair], Gates().max_parity_error, float(test.y.std()))
    assert verdict.passed is passes


@pytest.mark.parametrize(("error", "passes"), [(0.0, True), (5e-7, True), (2e-6, False)])
def test_parity_of_a_target_that_never_changes_allows_for_rounding(error: float, passes: bool) -> None:
    truth = np.full(20, 4.2, np.float32)
    found = {"prediction": np.full(20, 4.2 + error, np.float32)}
    (verdict,) = judge_parity(
        "parity", [(found, truth[:, None])], Gates().max_parity_error, float(truth.std(dtype=np.float64))
    )
    assert verdict.passed is passes


# Publish


@pytest.mark.slow
def test_the_card_and_the_manifest_of_an_early_stopped_run_say_what_was_used(run: RunFolder) -> None:
    """Its name holds what looks like the end of the front matter."""
    prepared = synthetic(run, num_examples=2000)
    candidate = Contender(run, prepared, 0, "a---b", num_epochs=200, validation=0.1, patience=3, schedule="cosine")
    folder = candidate.publish().model.path.parent
    trained, losses = candidate.trained, [point.validation_loss or 0.0 for point in candidate.trained.learning_curve]
    shown = (folder / "README.md").read_text().splitlines()
    assert {
        "# a---b, version 1",
        "| training examples | 1800, and 200 held out to watch |",
        f"| epochs | {len(losses)} of at most 200, with patience 3 |",
        f"| weights | of epoch {trained.kept_epoch}, whose validation loss was the smallest |",
        f"| validation loss | {min(losses):.4g} |",
        "| lr | 0.03, cosine |",
    } <= set(shown)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["metrics"]["validation_loss"] == min(losses)
    used = {"num_examples": 1800, "num_validation": 200, "num_epochs": len(losses), "kept_epoch": trained.kept_epoch}
    assert manifest["trained"] == used | {"steps": None, "collinear": []}  # which only own data have


def test_a_whole_version_that_a_kill_kept_from_becoming_champion_is_promoted(candidates: list[Contender]) -> None:
    candidates[0].publish()
    artifact_paths.champion("linear-regression").unlink()  # as if killed between the rename and the pointer
    published = candidates[0].publish()
    assert (published.outcome, published.version) == ("published", 1)
    assert model_folder.resolve_version("linear-regression", None) == 1


def test_a_version_folder_verifies_with_sha256sum_and_is_read_only(candidates: list[Contender]) -> None:
    published = candidates[0].publish()
    folder = published.model.path.parent
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    assert all(path.stat().st_mode & 0o222 == 0 for path in (folder, *folder.iterdir()))


def test_what_a_killed_publication_left_is_swept(candidates: list[Contender]) -> None:
    leftover = artifact_paths.model("linear-regression") / ".staging-0123456789abcdef"
    leftover.mkdir(parents=True)
    (leftover / "model.onnx").write_bytes(b"half")
    candidates[0].publish()
    assert not leftover.exists()


# Unchanged stages are reused by content, and only then


def key(**inputs: object) -> str:
    return cache.make_key("train", inputs)


def raw(folder: str, digest: str, source: str = "cache") -> RawDataset:
    return RawDataset(name="data", source=source, files={"train": FileRef(path=Path(folder) / "x", sha256=digest)})


def test_the_same_content_elsewhere_is_the_same_and_other_content_parameters_or_libraries_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert key(raw=raw("/a", "1"), data=Data()) == key(raw=raw("/b", "1", source="mirror"), data=Data())
    assert key(raw=raw("/a", "1"), data=Data()) != key(raw=raw("/a", "2"), data=Data())
    assert key(raw=raw("/a", "1"), data=Data()) != key(raw=raw("/a", "1"), data=Data(resize=14))
    assert cache.make_key("evaluate", {"data": Data()}) != cache.make_key("train", {"data": Data()})
    options: list[dict[str, Any]] = [{}, {"lr": 0.2}, {"seed": 1}, {"num_epochs": 9}, {"batch_size": 32}]
    assert len({key(training=Training.model_validate(each)) for each in options}) == 5
    before = key()
    assert {"python", "torch", "numpy", "onnx"} <= set(cache.package_versions())
    monkeypatch.setattr(cache, "package_versions", lambda: {"torch": "other"})
    assert key() != before


def test_a_wish_for_a_device_counts_as_the_kind_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, cpu, cuda = (Training(device=device) for device in Device)
    monkeypatch.setattr(devices, "cuda_fault", lambda: "no GPU")
    on_cpu = key(training=cpu)
    assert key(training=auto) == on_cpu
    monkeypatch.setattr(devices, "cuda_fault", lambda: None)
    assert key(training=auto) == key(training=cuda) != on_cpu
    assert key(training=cpu) == on_cpu


def test_only_what_is_marked_is_left_out_whatever_its_name() -> None:
    class Inner(Record):
        source: str
        device: str
        place: Annotated[str, NOT_IN_KEY]

    def of(source: str, device: str, place: str) -> str:
        return key(nested={"all": (Inner(source=source, device=device, place=place),)}, path="p", sha256="s")

    assert of("a", "b", "c") == of("a", "b", "other")
    assert len({of("a", "b", "c"), of("other", "b", "c"), of("a", "other", "c")}) == 3
    assert key(path="a", sha256="s") != key(path="b", sha256="s"), "a file is known by its type, not by two names"


def test_every_edit_of_our_code_changes_its_digest(tmp_path: Path) -> None:
    for folder in (cache.CODE, cache.CODE.with_name("gradmill")):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    tasks = tmp_path / "tasks"

    def digest() -> str:
        return cache.code_digest.__wrapped__(tasks)

    seen = [cache.code_digest()]
    assert digest() == seen[0], "wherever it lies"
    for name in ("train.py", "networks/training.py", "store/page.html.jinja", "../gradmill/rows.py"):
        (tasks / name).write_bytes((tasks / name).read_bytes()[:-1] + b" ")
        seen.append(digest())
    (tasks / "train.py").rename(tasks / "trained.py")
    seen.append(digest())
    (tasks / "empty.py").touch()
    seen.append(digest())
    assert len(set(seen)) == 7
    (tasks / "notes.txt").touch()
    assert digest() == seen[-1]


# Records, kept and found


KEY = "0" * 64


def evaluation(picture: Path) -> Evaluation:
    verdict = GateVerdict(name="test_accuracy", value=0.8447, minimum=0.7, passed=True, detail="more than 0.7 required")
    file = atomic.write_bytes(picture, b"a picture")
    return Evaluation(metrics={"test_accuracy": 0.8447}, gates=(verdict,), pictures=(file,))


def test_no_flipped_bit_of_a_record_is_believed(capsys: pytest.CaptureFixture[str]) -> None:
    record = evaluation(artifact_paths.runs() / "a.png")
    cache.keep_record(KEY, record)
    path = artifact_paths.stage_record(KEY)
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(content) * 8, size=300).tolist():
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        assert cache.find_record(KEY, Evaluation) in (None, record), "an indent may have become another white space"
    assert f"computed again: {path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["record"]["metrics"].update(test_accuracy=0.9447),
        lambda document: document["record"].update(gates="passed"),
        lambda document: document["record"].update(more=1),
        lambda document: document["record"].pop("gates"),
        lambda document: document["record"].update(gates=[]),
        lambda document: document["record"]["gates"][0].update(passed=False),
        lambda document: document["record"]["gates"][0].update(minimum=0.9),
        lambda document: document["record"]["gates"][0].update(maximum=0.8),
        lambda document: document.update(kind="ChampionGates"),
        lambda document: document.update(key="1" * 64),
    ],
)
def test_a_record_of_another_shape_class_verdict_or_stage_is_none_even_with_a_right_digest(change: Any) -> None:
    cache.keep_record(KEY, evaluation(artifact_paths.runs() / "a.png"))
    path = artifact_paths.stage_record(KEY)
    document = json.loads(path.read_text())
    change(document)
    sealed = json.dumps([document[name] for name in ("key", "kind", "record")], sort_keys=True)
    path.write_text(json.dumps(document | {"sha256": hashlib.sha256(sealed.encode()).hexdigest()}))
    assert cache.find_record(KEY, Evaluation) is None


def test_a_record_whose_file_is_a_folder_a_fifo_or_cannot_be_written_costs_time_only() -> None:
    path, record = artifact_paths.stage_record(KEY), evaluation(artifact_paths.runs() / "a.png")
    path.mkdir(parents=True)
    assert cache.find_record(KEY, Evaluation) is None
    cache.keep_record(KEY, record)
    path.rmdir()
    os.mkfifo(path)
    assert cache.find_record(KEY, Evaluation) is None
    cache.keep_record(KEY, record)
    assert cache.find_record(KEY, Evaluation) == record


class Planted:
    """What runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.slow  # two real commands with servers of their own
def test_planted_and_damaged_stage_records_run_no_code_and_change_no_figure(tmp_path: Path, artifacts: Path) -> None:
    command = ("retrain", "linear-regression", "--no-predict", "--json")
    first = json.loads(gradmill(*command).stdout)
    planted = base64.b64encode(pickle.dumps(Planted(tmp_path / "code ran"))).decode()
    document = {"metadata": {"storage_key": "x", "serializer": {"type": "pickle"}}, "result": planted}
    kinds = set()
    for path in [*(artifacts / ".stages").iterdir()]:
        kept = json.loads(path.read_text())
        kinds.add(kept["kind"])
        if kept["kind"] == "Evaluation":
            kept["record"]["metrics"]["test_loss"] /= 10
        else:
            kept = document
            path.with_suffix("").write_text(json.dumps(document))  # as Prefect names them
        path.write_text(json.dumps(kept))
    assert kinds == {"ValidatedDataset", "PreparedDataset", "TrainedModel", "Evaluation", "ExportedModel"}
    done = gradmill(*command)
    again = json.loads(done.stdout)
    assert not (tmp_path / "code ran").exists()
    assert (again["outcome"], again["metrics"]) == ("unchanged", first["metrics"])
    assert done.stderr.count("computed again") == len(kinds)


# Whole runs


def retrained(**options: object) -> RunFolder:
    document = {"training": {"model": "linear-regression"}, **options}
    return RunFolder(path=Path(retrain(RetrainParameters.model_validate(document)).run))


def trained_file(run: RunFolder) -> Path:
    return FileRef.model_validate(run.read().stages["train"]["weights"]).path


@pytest.mark.slow
def test_a_retrain_with_nothing_changed_reuses_its_stages_and_force_does_not(prefect_api: str) -> None:
    first = retrained()
    again = retrained()
    runs = post(prefect_api, "flow_runs/filter", {"sort": "START_TIME_DESC"})  # which tells of 200 at most
    (flow_run,) = [run["id"] for run in runs if run["id"].startswith(again.path.name[-8:])]
    cached = {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"state": {"name": {"any_": ["Cached"]}}}}
    stages = {"validate", "preprocess", "train", "evaluate", "export"}
    eventually(lambda: stages == {run["name"] for run in post(prefect_api, "task_runs/filter", cached)}, 60)
    assert trained_file(again) == trained_file(first), "the record of the first run"
    shown_again = {"data-report.json", "data-report.md"}  # of a reused validation
    assert {path.name for path in again.path.iterdir()} == {".lock", "run.json"} | shown_again, "no stage has run"
    forced = retrained(force=True)
    assert trained_file(forced) == forced.file("weights.safetensors")


@pytest.mark.slow
def test_a_reused_stage_whose_file_is_not_whole_is_run_again(prefect_api: str) -> None:
    path = trained_file(retrained())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    second = retrained()
    assert trained_file(second) == second.file("weights.safetensors")
    trained_file(second).unlink()
    third = retrained()
    assert trained_file(third) == third.file("weights.safetensors")
    assert trained_file(retrained()) == trained_file(third), "the repaired record is the one that is kept"


@pytest.mark.slow
def test_another_folder_and_another_day_give_the_same_bytes(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retrained(name="one")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another" / "folder"))
    time.sleep(1.1)  # another second, at least, in every time stamp
    second = retrained(name="two")
    assert first.file(artifact_paths.ONNX).read_bytes() == second.file(artifact_paths.ONNX).read_bytes()


# One GPU, one job; seen on any machine, since what is held is a limit of the server and a lock file


@pytest.fixture
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lock, "lock_file", lambda: tmp_path / "gpu.lock")
    monkeypatch.setattr(devices, "cuda_fault", lambda: None)


def in_a_task(work: Callable[[], Any]) -> Any:
    """The result of ``work`` in a Prefect task; whoever would wait for ever fails."""
    return flow(name="turn")(lambda: task(name="turn", timeout_seconds=120)(work)())()


def hold(path: Path, held: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_lock, "lock_file", lambda: path)
        patch.setattr(devices, "cuda_fault", lambda: None)
        with gpu_lock.hold(Device.CUDA):
            held.set()
            signal.pause()


@pytest.mark.slow
@pytest.mark.usefixtures("_own_lock")
def test_without_a_limit_a_job_waits_for_the_lock_file_of_another_process_until_that_one_is_killed() -> None:
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    other = spawn.Process(target=hold, args=(gpu_lock.lock_file(), held))
    other.start()
    assert held.wait(120)
    entered = threading.Event()

    def wait_for_a_turn() -> None:
        with gpu_lock.hold(Device.CUDA):
            assert not free()
            entered.set()

    waiting = threading.Thread(target=wait_for_a_turn)
    waiting.start()
    assert not entered.wait(0.5), "the other has it"
    other.kill()
    assert entered.wait(120)
    waiting.join()
    other.join()
    assert free()


def free() -> bool:
    lock = FileLock(gpu_lock.lock_file())
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return False
    lock.release()
    return True


@contextmanager
def the_limit(api: str) -> Iterator[tuple[httpx.Client, Callable[[], int]]]:
    """A server that has the limit: a client of it, and how many jobs have their turn there."""
    with api_client(api) as client:
        client.delete(f"/v2/concurrency_limits/{gpu_lock.LIMIT}")  # which a registration in another test may have left
        client.post("/v2/concurrency_limits/", json={"name": gpu_lock.LIMIT, "limit": 1}).raise_for_status()

        def active() -> int:
            return int(client.get(f"/v2/concurrency_limits/{gpu_lock.LIMIT}").raise_for_status().json()["active_slots"])

        try:
            yield client, active
            eventually(lambda: active() == 0, 60, "the slot is given back")
        finally:
            client.delete(f"/v2/concurrency_limits/{gpu_lock.LIMIT}")


@pytest.mark.usefixtures("_own_lock")
def test_whoever_waits_for_the_server_s_limit_says_so_and_goes_on_once_it_is_free(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other job gives its place back once it hears that somebody waits."""
    with the_limit(prefect_api) as (client, active):
        place = {"names": [gpu_lock.LIMIT], "slots": 1, "mode": "concurrency"}
        client.post("/v2/concurrency_limits/increment", json=place).raise_for_status()
        told: list[tuple[str, int]] = []

        def hear(line: str) -> None:
            told.append((line, active()))
            client.post("/v2/concurrency_limits/decrement", json=place).raise_for_status()

        def work() -> int:
            with gpu_lock.hold(Device.CUDA):
                return active()

        monkeypatch.setattr(gpu_lock, "tell", hear)
        assert in_a_task(work) == 1
        assert told == [("another job has its turn on the GPU; waiting for it", 1)]


@pytest.mark.usefixtures("_own_lock")
@pytest.mark.parametrize(
    ("device", "fault", "waits"),
    [
        (Device.CPU, None, False),
        (Device.AUTO, "no GPU", False),
        (Device.AUTO, None, True),
        (Device.CUDA, None, True),
    ],
)
def test_only_a_job_that_uses_the_gpu_waits_for_it(
    device: Device, fault: str | None, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cuda_fault", lambda: fault)
    with gpu_lock.hold(device):
        assert free() is not waits
