"""Single stages at their edges, and one GPU is for one job."""

import multiprocessing
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from scipy.optimize import minimize
from scipy.special import huber
from sklearn.linear_model import LinearRegression

from candidate import Contender, plain, synthetic
from flows.retrain import retrain
from tasks.data.prepared_splits import read_split
from tasks.errors import EnvironmentProblem, TrainingDiverged
from tasks.evaluate import evaluate
from tasks.fitting.progress import watch_training
from tasks.judging import gates
from tasks.judging.parity import ERROR_SHARE, judge_parity
from tasks.machine import devices
from tasks.networks.training import EpochMetrics
from tasks.parameters import Device, Gates, RetrainParameters, Training
from tasks.stage import gpu_lock
from tasks.store import artifact_paths, publication
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
    ("value", "bounds", "verdict"),
    [
        (0.7, {"above": 0.7}, "refused"),
        (0.7001, {"above": 0.7, "maximum": 1.0}, "passed"),
        (1.0, {"above": 0.7, "maximum": 1.0}, "passed"),
        (0.5, {"below": 0.5}, "refused"),
        (0.4999, {"below": 0.5}, "passed"),
        (1.0, {}, "recorded"),
        (np.nan, {}, "refused"),
        (np.nan, {"maximum": 1.0}, "refused"),
        (np.inf, {"above": 0.0}, "refused"),
    ],
)
def test_gates_have_the_books_strict_and_inclusive_bounds_and_record_what_has_none(
    value: float, bounds: Any, verdict: str
) -> None:
    assert gates.judge("gate", value, **bounds).verdict == verdict


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
    ("spread", "off", "error", "passes"),
    [
        (1.0, 0.0, 9e-6, True),
        (1.0, 0.0, 1.3e-5, False),
        (0.0, 0.0, 0.0, True),
        (0.0, 0.0, 5e-7, True),
        (0.0, 0.0, 2e-6, False),
        (1.0, 2.0, 1.9e-3, True),
        (1.0, 2.0, 2.1e-3, False),
    ],
)
def test_parity_refuses_one_wrong_answer_but_for_rounding_and_a_thousandth_of_the_models_own_error(
    spread: float, off: float, error: float, passes: bool
) -> None:
    """The model is ``off`` on every row; where the target never changes, rounding is allowed for."""
    scores = 4.2 + spread * np.resize([1.0, -1.0], 20)
    found = {"prediction": scores + error * (np.arange(20) == 7)}
    checked = [(found, scores[:, None], scores + off)]
    (verdict,) = judge_parity("parity", checked, Gates().max_parity_error, spread, ERROR_SHARE)
    assert verdict.passed is passes


# Publish


def test_a_version_folder_verifies_with_sha256sum_and_is_read_only(candidates: list[Contender]) -> None:
    folder = candidates[0].publish().model.path.parent
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    checked = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
    assert checked == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    assert all(path.stat().st_mode & 0o222 == 0 for path in (folder, *folder.iterdir()))


# Which code made a version


def test_every_edit_of_our_code_changes_its_digest(tmp_path: Path) -> None:
    for folder in (publication.CODE, publication.CODE.with_name("gradmill")):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    tasks, digest = tmp_path / "tasks", publication.digest_code.__wrapped__
    seen = [digest(tasks)]
    assert seen[0] == publication.digest_code(), "wherever it lies"
    for name in ("train.py", "networks/training.py", "store/page.html.jinja", "../gradmill/rows.py"):
        (tasks / name).write_bytes((tasks / name).read_bytes()[:-1] + b" ")
        seen.append(digest(tasks))
    (tasks / "train.py").rename(tasks / "trained.py")
    seen.append(digest(tasks))
    (tasks / "empty.py").touch()
    assert digest(tasks) not in seen
    assert len(set(seen)) == 6


# Whole runs


def retrained(**options: object) -> RunFolder:
    document = {"training": {"model": "linear-regression"}, **options}
    return RunFolder(path=Path(retrain(RetrainParameters.model_validate(document)).run))


@pytest.mark.slow
def test_another_folder_and_another_day_give_the_same_bytes(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = retrained(name="one")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another" / "folder"))
    time.sleep(1.1)  # another second, at least, in every time stamp
    second = retrained(name="two")
    assert first.file(artifact_paths.ONNX).read_bytes() == second.file(artifact_paths.ONNX).read_bytes()


# One GPU, one job; seen on any machine, since what is held is a lock file


@pytest.fixture
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "cuda_fault", lambda: None)


def hold(place: Path, held: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(place))
        patch.setattr(devices, "cuda_fault", lambda: None)
        with gpu_lock.hold(Device.CUDA):
            held.set()
            signal.pause()


@pytest.mark.slow
@pytest.mark.usefixtures("_own_lock")
def test_a_job_waits_for_the_lock_file_of_another_process_until_that_one_is_killed(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path, held))
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
def test_nobody_else_can_take_the_lock_or_its_place(tmp_path: Path) -> None:
    lock = gpu_lock.lock_file()
    assert lock.parent.stat().st_mode & 0o777 == 0o700
    lock.parent.chmod(0o755)
    refuses_its_folder()
    lock.parent.rename(tmp_path / "elsewhere")
    lock.parent.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o700)
    refuses_its_folder()


def refuses_its_folder() -> None:
    with pytest.raises(EnvironmentProblem, match="is not only yours"), gpu_lock.hold(Device.CUDA):
        pass


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
