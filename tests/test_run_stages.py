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
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from filelock import FileLock
from prefect import flow, task
from scipy.optimize import minimize
from scipy.special import huber
from sklearn.linear_model import LinearRegression

from candidate import Contender, plain, synthetic
from command_line import plant, typed
from documents import load
from flows.retrain import retrain
from prefect_api import api_client, eventually
from tasks.data.prepared_splits import read_split
from tasks.errors import TrainingDiverged
from tasks.evaluate import evaluate
from tasks.fitting.progress import watch_training
from tasks.judging import gates
from tasks.judging.parity import ERROR_SHARE, judge_parity
from tasks.machine import devices
from tasks.networks.training import EpochMetrics
from tasks.parameters import Device, Gates, RetrainParameters, Training
from tasks.records import Evaluation, GateVerdict, RawDataset
from tasks.stage import cache, gpu_lock
from tasks.store import artifact_paths, atomic
from tasks.store.record_base import NOT_IN_KEY, FileRef, Record
from tasks.store.run_folder import RunFolder
from tasks.train import train


@pytest.fixture
def run() -> RunFolder:
    return RunFolder.open("test-run", {})


def linear(**options: Any) -> Training:
    return Training.model_validate({"model": "linear-regression"} | options)


# Train


@pytest.mark.parametrize("loss", [np.inf, np.nan])
def test_a_validation_loss_that_is_no_number_is_divergence_too(run: RunFolder, loss: float) -> None:
    measured = EpochMetrics(train={"loss": 1.0}, test={"loss": 1.0}, validation={"loss": loss})
    with pytest.raises(TrainingDiverged, match=rf"validation loss {loss} in epoch 1"):
        watch_training(iter([measured]), linear(validation=0.5, patience=3), run)


def test_early_stopping_waits_for_patience_and_keeps_the_best_epoch(run: RunFolder) -> None:
    """From a learning rate at which the loss soon rises again; half the examples are held out."""
    prepared = synthetic(run, synthetic_noise=1.0, num_examples=60)
    training = linear(num_epochs=200, lr=0.1, validation=0.5, patience=3)
    trained = plain(train)(run, prepared, training)
    losses = [point.validation_loss for point in trained.learning_curve]
    assert trained.kept_epoch == 1 + losses.index(min(losses)) == len(losses) - 3 < 197
    exactly = training.model_copy(update={"num_epochs": trained.kept_epoch, "patience": None})
    assert plain(train)(run, prepared, exactly).weights.sha256 == trained.weights.sha256


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


@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_the_books_regression_may_lose_as_much_to_the_best_fit_of_scikit_learn_or_scipy(
    run: RunFolder, loss: str
) -> None:
    prepared, asked = synthetic(run, synthetic_noise=1.0, num_examples=300), linear(loss=loss, num_epochs=20)
    bounds = Gates(max_loss_ratio=2.0, max_parameter_error=1.0)
    gate, _ = plain(evaluate)(run, prepared, plain(train)(run, prepared, asked), asked, bounds).gates
    (X, y, _), (X_test, y_test, _) = (read_split(file, prepared) for file in (prepared.train, prepared.test))
    fit = LinearRegression().fit(X.astype(float), y.astype(float))
    w = np.array([*fit.coef_, fit.intercept_])
    if loss == "huber":
        options = {"xatol": 1e-9, "fatol": 1e-13}
        w = minimize(lambda w: huber(0.5, X @ w[:2] + w[2] - y).mean(), w, method="Nelder-Mead", options=options).x
    best = np.square(X_test @ w[:2] + w[2] - y_test).mean() / 2
    assert gate.maximum == pytest.approx(2 * best + (1e-3 * y.std(ddof=1)) ** 2 / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("spread", "error", "passes"),
    [(1.0, 9e-6, True), (1.0, 1.3e-5, False), (0.0, 0.0, True), (0.0, 5e-7, True), (0.0, 2e-6, False)],
)
def test_parity_refuses_one_wrong_answer_and_where_the_target_never_changes_allows_for_rounding(
    spread: float, error: float, passes: bool
) -> None:
    truth = 4.2 + spread * np.resize([1.0, -1.0], 20)
    found = {"prediction": truth + error * (np.arange(20) == 7)}
    (verdict,) = judge_parity("parity", [(found, truth[:, None], truth)], Gates().max_parity_error, spread)
    assert verdict.passed is passes


@pytest.mark.parametrize(("error", "passes"), [(1.9e-3, True), (2.1e-3, False)])
def test_parity_allows_for_a_thousandth_of_the_models_own_error(error: float, passes: bool) -> None:
    """Predictions are off by 2 on every row."""
    scores = 4.2 + np.resize([1.0, -1.0], 20)
    found = {"prediction": scores + error * (np.arange(20) == 7)}
    (verdict,) = judge_parity("parity", [(found, scores[:, None], scores + 2)], 1e-5, 1.0, ERROR_SHARE)
    assert verdict.passed is passes


# Publish


def test_a_version_folder_verifies_with_sha256sum_and_is_read_only(candidates: list[Contender]) -> None:
    folder = candidates[0].publish().model.path.parent
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    checked = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
    assert checked == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    assert all(path.stat().st_mode & 0o222 == 0 for path in (folder, *folder.iterdir()))


# Unchanged stages are reused by content, and only then


def key(**inputs: object) -> str:
    return cache.make_key("train", inputs)


def test_the_same_content_elsewhere_is_the_same_and_other_content_parameters_or_libraries_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of(folder: str = "/a", digest: str = "1", source: str = "cache", **options: Any) -> str:
        files = {"train": FileRef(path=Path(folder) / "x", sha256=digest)}
        raw = RawDataset(name="data", source=source, files=files)
        return key(raw=raw, training=Training.model_validate(options))

    before = of()
    assert of("/b", source="mirror") == before
    options: list[dict[str, Any]] = [{"lr": 0.2}, {"seed": 1}, {"num_epochs": 9}, {"batch_size": 32}]
    others = [of(digest="2"), *(of(**each) for each in options), cache.make_key("evaluate", {}), key()]
    assert len({before, *others}) == 8
    assert {"python", "torch", "numpy", "onnx"} <= set(cache.package_versions())
    monkeypatch.setattr(cache, "package_versions", lambda: {"torch": "other"})
    assert of() != before


def test_a_wish_for_a_device_counts_as_the_kind_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    auto, cpu, cuda = (Training(device=device) for device in Device)
    monkeypatch.setattr(devices, "cuda_fault", lambda: "no GPU")
    on_cpu = key(training=cpu)
    assert key(training=auto) == on_cpu
    monkeypatch.setattr(devices, "cuda_fault", lambda: None)
    assert key(training=auto) == key(training=cuda) != on_cpu
    assert key(training=cpu) == on_cpu


def test_only_what_is_marked_is_left_out_whatever_its_name() -> None:
    class InnerRecord(Record):
        source: str
        device: str
        place: Annotated[str, NOT_IN_KEY]

    a, same, *others = (
        key(
            nested={"all": (InnerRecord(source=values[0], device=values[1], place=values[2]),)},
            path=values[3],
            sha256="s",
        )
        for values in ("abcp", "abxp", "xbcp", "axcp", "abcx")  # a file is known by its type, not by two names
    )
    assert a == same
    assert len({a, *others}) == 4


def test_every_edit_of_our_code_changes_its_digest(tmp_path: Path) -> None:
    for folder in (cache.CODE, cache.CODE.with_name("gradmill")):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    tasks, digest = tmp_path / "tasks", cache.code_digest.__wrapped__
    seen = [digest(tasks)]
    assert seen[0] == cache.code_digest(), "wherever it lies"
    for name in ("train.py", "networks/training.py", "store/page.html.jinja", "../gradmill/rows.py"):
        (tasks / name).write_bytes((tasks / name).read_bytes()[:-1] + b" ")
        seen.append(digest(tasks))
    (tasks / "train.py").rename(tasks / "trained.py")
    seen.append(digest(tasks))
    (tasks / "empty.py").touch()
    assert digest(tasks) not in seen
    assert len(set(seen)) == 6


# Records, kept and found


KEY = "0" * 64


def evaluation() -> Evaluation:
    verdict = GateVerdict(name="test_accuracy", value=0.8447, minimum=0.7, passed=True, detail="more than 0.7 required")
    file = atomic.write_bytes(artifact_paths.runs() / "a.png", b"a picture")
    return Evaluation(metrics={"test_accuracy": 0.8447}, gates=(verdict,), pictures=(file,))


def test_no_flipped_bit_of_a_record_is_believed(capsys: pytest.CaptureFixture[str]) -> None:
    record, path = evaluation(), artifact_paths.stage_record(KEY)
    cache.keep_record(KEY, record)
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
        lambda document, record: record["metrics"].update(test_accuracy=0.9447),
        lambda document, record: record.update(gates="passed"),
        lambda document, record: record.update(more=1),
        lambda document, record: record.pop("gates"),
        lambda document, record: record.update(gates=[]),
        lambda document, record: record["gates"][0].update(passed=False),
        lambda document, record: record["gates"][0].update(minimum=0.9),
        lambda document, record: record["gates"][0].update(maximum=0.8),
        lambda document, record: document.update(kind="ChampionGates"),
        lambda document, record: document.update(key="1" * 64),
    ],
)
def test_a_record_of_another_shape_class_verdict_or_stage_is_none_even_with_a_right_digest(change: Any) -> None:
    cache.keep_record(KEY, evaluation())
    path = artifact_paths.stage_record(KEY)
    document = load(path)
    change(document, document["record"])
    sealed = json.dumps([document[name] for name in ("key", "kind", "record")], sort_keys=True)
    path.write_text(json.dumps(document | {"sha256": hashlib.sha256(sealed.encode()).hexdigest()}))
    assert cache.find_record(KEY, Evaluation) is None


def test_a_record_whose_file_is_a_folder_a_fifo_or_cannot_be_written_costs_time_only() -> None:
    path, record = artifact_paths.stage_record(KEY), evaluation()
    for kind in ("folder", "fifo"):
        plant(path, kind)
        assert cache.find_record(KEY, Evaluation) is None
        cache.keep_record(KEY, record)
        if kind == "folder":
            path.rmdir()
    assert cache.find_record(KEY, Evaluation) == record


@pytest.mark.slow
def test_planted_and_damaged_stage_records_run_no_code_and_change_no_figure(
    prefect_api: str, tmp_path: Path, artifacts: Path
) -> None:
    class PlantedRecord:
        """What runs code when it is unpickled."""

        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "code ran"),)

    command = ("retrain", "linear-regression", "--no-predict", "--json")
    first = json.loads(typed(*command).stdout)
    planted = base64.b64encode(pickle.dumps(PlantedRecord())).decode()
    document = {"metadata": {"storage_key": "x", "serializer": {"type": "pickle"}}, "result": planted}
    kinds = []
    for path in [*(artifacts / ".stages").iterdir()]:
        kept = load(path)
        kinds.append(kept["kind"])
        if kept["kind"] == "Evaluation":
            kept["record"]["metrics"]["test_loss"] /= 10
        else:
            kept = document
            path.with_suffix("").write_text(json.dumps(document))  # as Prefect names them
        path.write_text(json.dumps(kept))
    assert sorted(kinds) == ["Evaluation", "ExportedModel", "PreparedDataset", "TrainedModel", "ValidatedDataset"]
    done = typed(*command)
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
def test_a_retrain_with_nothing_changed_reuses_its_stages_unless_a_file_is_not_whole_or_it_is_forced(
    prefect_api: str,
) -> None:
    first, again = retrained(), retrained()
    assert trained_file(again) == trained_file(first), "the record of the first run"
    shown_again = {"data-report.json", "data-report.md"}  # of a reused validation
    assert {path.name for path in again.path.iterdir()} == {".lock", "run.json"} | shown_again, "no stage has run"
    content = bytearray(trained_file(first).read_bytes())
    content[-1] ^= 1
    trained_file(first).write_bytes(content)
    second = retrained()
    assert trained_file(second) == second.file("weights.safetensors")
    trained_file(second).unlink()
    third = retrained()
    assert trained_file(third) == third.file("weights.safetensors")
    assert trained_file(retrained()) == trained_file(third), "the repaired record is the one that is kept"
    forced = retrained(force=True)
    assert trained_file(forced) == forced.file("weights.safetensors")


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


@pytest.mark.usefixtures("_own_lock")
def test_whoever_waits_for_the_server_s_limit_says_so_and_goes_on_once_it_is_free(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other job gives its place back once it hears that somebody waits."""
    limits, place = "/v2/concurrency_limits/", {"names": [gpu_lock.LIMIT], "slots": 1, "mode": "concurrency"}
    told: list[tuple[str, int]] = []
    with api_client(prefect_api) as client:

        def active() -> int:
            return int(client.get(limits + gpu_lock.LIMIT).raise_for_status().json()["active_slots"])

        def hear(line: str) -> None:
            told.append((line, active()))
            client.post(f"{limits}decrement", json=place).raise_for_status()

        def work() -> int:
            with gpu_lock.hold(Device.CUDA):
                return active()

        client.delete(limits + gpu_lock.LIMIT)  # which a registration in another test may have left
        try:
            client.post(limits, json={"name": gpu_lock.LIMIT, "limit": 1}).raise_for_status()
            client.post(f"{limits}increment", json=place).raise_for_status()
            monkeypatch.setattr(gpu_lock, "print_message", hear)
            run = flow(name="turn")(lambda: task(name="turn", timeout_seconds=120)(work)())
            assert run() == 1
            assert told == [("another job is using the GPU; waiting for it", 1)]
            eventually(lambda: active() == 0, 60, "the slot is given back")
        finally:
            client.delete(limits + gpu_lock.LIMIT)


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
