"""One GPU, one job; seen on any machine, since what is held is a limit of the server and a lock file."""

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from prefect import flow, task

from prefect_api import api_client, eventually
from tasks.machine import devices
from tasks.parameters import Device
from tasks.stage import gpu, live


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "lock_file", lambda: tmp_path / "gpu.lock")


def in_a_task(work: Callable[[], Any]) -> Any:
    return flow(name="turn")(lambda: task(name="turn")(work)())()


def hold(path: Path, held: Any, release: Any) -> None:
    gpu.lock_file = lambda: path
    with gpu.held():
        held.set()
        release.wait(120)


def test_without_a_limit_a_job_waits_for_the_lock_file_of_another_process() -> None:
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(gpu.lock_file(), held, release))
    other.start()
    assert held.wait(120)
    entered = threading.Event()

    def wait_for_a_turn() -> None:
        with gpu.held():
            entered.set()

    waiting = threading.Thread(target=wait_for_a_turn)
    waiting.start()
    assert not entered.wait(0.5), "the other has it"
    release.set()
    assert entered.wait(120)
    waiting.join()
    other.join()
    assert free()


def free() -> bool:
    lock = FileLock(gpu.lock_file())
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return False
    lock.release()
    return True


def test_a_dead_job_does_not_keep_the_gpu() -> None:
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(gpu.lock_file(), held, release))
    other.start()
    assert held.wait(120)
    other.kill()
    other.join()
    with gpu.held():
        assert not free()


def test_with_the_server_s_limit_its_slot_is_taken_too(prefect_api: str) -> None:
    with api_client(prefect_api) as client:
        client.post("/v2/concurrency_limits/", json={"name": gpu.LIMIT, "limit": 1}).raise_for_status()

        def active() -> int:
            return int(client.get(f"/v2/concurrency_limits/{gpu.LIMIT}").raise_for_status().json()["active_slots"])

        def work() -> tuple[int, bool]:
            with gpu.held():
                return active(), free()

        try:
            assert in_a_task(work) == (1, False)
            eventually(lambda: active() == 0, 60, "the slot is given back")
        finally:
            client.delete(f"/v2/concurrency_limits/{gpu.LIMIT}")


def test_without_the_server_s_limit_a_task_takes_the_lock_file(prefect_api: str) -> None:
    def work() -> bool:
        with gpu.held():
            return free()

    assert in_a_task(work) is False


@pytest.mark.parametrize(("active", "said"), [(0, ""), (1, "another job has its turn on the GPU; waiting for it\n")])
def test_whoever_waits_for_the_server_s_limit_says_so(
    active: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "in_a_run", lambda: True)
    monkeypatch.setattr(gpu, "_limit", lambda: SimpleNamespace(active_slots=active, limit=1))
    monkeypatch.setattr(gpu, "concurrency", lambda *names, **options: nullcontext())
    with gpu.held():
        output = capsys.readouterr().out
    assert output == said


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
    with gpu.turn(device):
        assert free() is not waits
