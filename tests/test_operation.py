"""``gradmill up`` as a person on duty meets it: a real server, worker and schedules, and nothing left afterwards."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.cli.operate import _nested
from flows.operation import _merged
from tasks.errors import UsageError
from test_cli import GRADMILL, assert_clear, gradmill


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def family(artifacts: Path) -> set[int]:
    """Every process that works in this artifacts folder, this one aside."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT_HOME") == str(artifacts / ".prefect"):
                found.add(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def eventually(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture
def start(artifacts: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Start ``gradmill up`` on a port, and wait until it says that it is up."""
    started = []

    def up(port: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [GRADMILL, "up", "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        started.append(process)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert lines[0].split() == ["Prefect", "UI", f"http://127.0.0.1:{port}"]
        named = {line.split()[1] for line in lines if line.startswith("next")}
        assert named == {"softmax-nightly", "linear-weekly", "predict-daily"}
        return process

    yield up
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_up_schedules_runs_ends_without_a_trace_and_continues_its_history(
    start: Callable[[int], subprocess.Popen[str]], artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    up = start(port)
    taken = gradmill("up", "--port", str(port))
    assert taken.returncode == 2
    assert f"port {port} of 127.0.0.1 is taken" in taken.stderr
    monkeypatch.setenv("PREFECT_API_URL", api)
    triggered = gradmill("trigger", "linear-weekly", "--param", "training.seed=7", "--json")
    assert json.loads(triggered.stdout)["deployment"] == "linear-weekly"
    assert_clear(gradmill("trigger", "no-such"), 2)

    def verdicts() -> list[list[str]]:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        found = httpx.post(f"{api}/flow_runs/filter", json=wanted).raise_for_status().json()
        return [run["tags"] for run in found if run["name"].startswith("linear-regression concise")]

    (tags,) = eventually(verdicts, 60)
    assert {"model:linear-regression", "verdict:published"} <= set(tags)
    limit = httpx.get(f"{api}/v2/concurrency_limits/gpu").raise_for_status().json()
    assert limit["limit"] == 1
    monkeypatch.delenv("PREFECT_API_URL")
    up.send_signal(signal.SIGINT)
    assert up.wait(10) == 130
    assert family(artifacts) == set()
    again = start(port)
    (tags_again,) = verdicts()
    assert tags_again == tags, "the history goes on"
    automations = httpx.post(f"{api}/automations/filter", json={}).raise_for_status().json()
    assert [each["name"] for each in automations].count("gradmill: crash runs whose heartbeats stop") == 1
    os.kill(again.pid, signal.SIGKILL)
    eventually(lambda: not family(artifacts), 12)


def test_trigger_parameters_are_nested_and_replace_only_what_they_name() -> None:
    parameters = _nested(["training.lr=0.3", "training.seed=auto", "predict=false"])
    assert parameters == {"training": {"lr": 0.3, "seed": "auto"}, "predict": False}
    base = {"training": {"lr": 0.5, "schedule": "cosine"}, "name": "x"}
    assert _merged(base, parameters) == {
        "training": {"lr": 0.3, "seed": "auto", "schedule": "cosine"},
        "name": "x",
        "predict": False,
    }
    for wrong in ("x", "=1", "a..b=1"):
        with pytest.raises(UsageError):
            _nested([wrong])
