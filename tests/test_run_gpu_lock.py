"""One GPU, one job; seen on any machine, since what is held is a limit of the server and a lock file."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock
from prefect import flow, task

from prefect_api import api_client, eventually
from tasks.machine import devices
from tasks.parameters import Device
from tasks.stage import gpu_lock


@pytest.fixture(autouse=True)
def _own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lock, "lock_file", lambda: tmp_path / "gpu.lock")
    monkeypatch.setattr(devices, "cuda_fault", lambda: None)


def in_a_task(work: Callable[[], Any]) -> Any:
    """The result of ``work`` in a Prefect task; whoever would wait for ever fails."""
    return flow(name="turn")(lambda: task(name="turn", timeout_seconds=120)(work)())()


def hold(path: Path, held: Any, release: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_lock, "lock_file", lambda: path)
        patch.setattr(devices, "cuda_fault", lambda: None)
        hold_until(held, release)


def hold_until(held: Any, release: Any) -> None:
    with gpu_lock.hold(Device.CUDA):
        held.set()
        release.wait(120)


@pytest.mark.slow
def test_without_a_limit_a_job_waits_for_the_lock_file_of_another_process() -> None:
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(gpu_lock.lock_file(), held, release))
    other.start()
    assert held.wait(120)
    entered = threading.Event()

    def wait_for_a_turn() -> None:
        with gpu_lock.hold(Device.CUDA):
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
    lock = FileLock(gpu_lock.lock_file())
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return False
    lock.release()
    return True


@pytest.mark.slow
def test_a_dead_job_does_not_keep_the_gpu() -> None:
    spawn = multiprocessing.get_context("spawn")
    held, release = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(gpu_lock.lock_file(), held, release))
    other.start()
    assert held.wait(120)
    other.kill()
    other.join()
    with gpu_lock.hold(Device.CUDA):
        assert not free()


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
