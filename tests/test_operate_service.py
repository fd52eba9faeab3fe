"""The service of an artifacts folder: how commands find it, and whom its server lets in."""

import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    temporary_settings,
)

from command_line import assert_clear, gradmill
from conftest import REPOSITORY
from duty import Duty
from flows.server import connection, prefect_server, supervisor, up
from flows.server.connection import temporary_server
from prefect_api import eventually, post
from tasks.errors import DataError, EnvironmentProblem
from tasks.store import artifact_paths, locks

NAME = "linear-regression"
API = "http://127.0.0.1:24680/api"


@pytest.fixture
def alive(artifacts: Path) -> Iterator[Callable[[connection.Service], object]]:
    """Makes it look as if a ``gradmill up`` were at work in these artifacts."""
    artifact_paths.prefect_home().mkdir(parents=True, mode=0o700)
    with artifact_paths.up_lock().open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda found: found.write(artifact_paths.service())


def test_commands_use_the_service_with_its_credential(alive: Any) -> None:
    credential, new = connection.find_credential()
    assert new
    alive(connection.make_service(API, own_credential=True))
    with connection.connect():
        assert (PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value()) == (API, credential)
        assert PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() is None, "a run would wait for the end of their thread"
    with temporary_settings({PREFECT_API_URL: API}), connection.connect():
        assert PREFECT_API_AUTH_STRING.value() == credential, "it is the same one"
    with temporary_settings({PREFECT_API_URL: "http://prefect.example/api"}), connection.connect():
        assert PREFECT_API_URL.value() == "http://prefect.example/api"
        assert PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value(), "somebody may look for them there"
        assert not PREFECT_API_AUTH_STRING.value(), "a credential is shown to nobody else"
    with temporary_settings({PREFECT_API_URL: API, PREFECT_API_AUTH_STRING: "my:own"}), connection.connect():
        assert PREFECT_API_AUTH_STRING.value() == "my:own"


def test_an_address_of_another_machine_is_ignored_and_one_that_all_can_reach_is_not(
    alive: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(connection.make_service(API).model_copy(update={"host": "elsewhere"}))
    assert connection.find_service() is None
    assert "running on elsewhere" in capsys.readouterr().err
    remote = connection.make_service("https://prefect.example/api/", joined=True)
    alive(remote)
    assert connection.find_service() == remote
    assert remote.api_url == "https://prefect.example/api"


def test_what_nobody_can_be_told_hinders_no_promotion(
    alive: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TELLING_SECONDS", 0.5)

    def told() -> str:
        connection.send_model_event("gradmill.model.promoted", "x", {})
        return capsys.readouterr().err

    artifact_paths.service().write_text('{"api_url": 3}')
    with pytest.raises(DataError, match=r"service\.json"):
        connection.find_service()
    assert "gradmill.model.promoted was not sent" in told()
    alive(connection.make_service(API, own_credential=True))
    assert "the credential of gradmill up cannot be read" in told()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        alive(connection.make_service(f"http://127.0.0.1:{silent.getsockname()[1]}/api"))
        assert "gradmill.model.promoted was not sent" in told()


def test_a_credential_is_for_its_owner_alone_and_stays(artifacts: Path) -> None:
    artifact_paths.prefect_home().mkdir(parents=True)
    kept, before = artifact_paths.credential(), os.umask(0)
    try:
        made, new = connection.find_credential()
    finally:
        os.umask(before)
    assert (new, kept.stat().st_mode & 0o777, connection.find_credential()) == (True, 0o600, (made, False))
    kept.chmod(0o640)
    another, new = connection.find_credential()
    assert (new, another != made, kept.stat().st_mode & 0o777) == (True, True, 0o600), "others could have read it"
    kept.write_text("")
    assert connection.find_credential()[1], "an empty one is none"


def test_a_server_that_does_not_answer_keeps_no_child_of_up_from_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    ended = []
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), up.crash_runs_on_end():
        ended.append("worker")
    assert ended == ["worker"]
    assert "marked later: no Prefect server answers" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_server_a_promotion_says_that_nobody_was_told_and_status_asks_no_stranger(
    two_versions: None, artifacts: Path
) -> None:
    """A stranger has the port of an ``up`` that was killed; it is asked nothing."""
    artifact_paths.prefect_home().mkdir(parents=True)
    artifact_paths.up_lock().touch()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.setblocking(False)
        address = f"http://127.0.0.1:{stranger.getsockname()[1]}/api"
        connection.make_service(address, own_credential=True).write(artifact_paths.service())
        done = gradmill("promote", NAME, "1")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("of a gradmill up that was killed") == 1
        assert "gradmill.model.promoted was not sent (no Prefect server is running)" in done.stderr
        asked = gradmill("status")
        assert_clear(asked, 1, f"no gradmill up is running in {artifacts}")
        assert asked.stdout.splitlines()[1].split()[:2] == [NAME, "1"], "the champions are shown all the same"
        with locks.hold_lock(artifact_paths.up_lock(), "held"):
            artifact_paths.service().unlink(missing_ok=True)
            assert_clear(gradmill("status"), 1, f"the gradmill up of {artifacts} is starting, or ending")
        with pytest.raises(BlockingIOError):
            stranger.accept()


@pytest.mark.slow  # a running gradmill up
def test_no_process_of_up_is_counted_or_shows_the_credential_on_its_command_line(duty: Duty) -> None:
    family = duty.family().values()
    assert len(family) >= 4
    for command, environment in family:
        assert environment.items() >= {"DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}.items()
        assert duty.credential.partition(":")[2] not in command


@pytest.mark.slow  # a running gradmill up
def test_a_command_elsewhere_does_not_take_up_for_its_own(duty: Duty, tmp_path: Path) -> None:
    assert_clear(duty.gradmill("status", "--artifacts", str(tmp_path / "other")), 1, "no gradmill up is running")
    duty.does("status", "--artifacts", str(duty.artifacts), GRADMILL_ARTIFACTS="")
    refused = duty.gradmill("status", PREFECT_API_URL=f"{duty.ui}/api", PREFECT_API_AUTH_STRING="me:wrong")
    assert_clear(refused, 1, "wants credentials")


# A temporary server that hangs costs its run its deadline and others no more; children end with their parent


@pytest.fixture
def _hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers say nothing, do not end with the run, and have a second to start."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nprintf 12\nexec sleep 600\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    for module, name, seconds in (
        (prefect_server, "START", 1.0),
        (supervisor, "STOP", 0.2),
    ):
        monkeypatch.setattr(module, f"{name}_SECONDS", seconds)


@pytest.mark.slow
@pytest.mark.usefixtures("_hanging")
def test_a_server_that_hangs_is_ended_at_the_deadline(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}):
        begun = time.monotonic()
        for _ in range(2):
            with pytest.raises(EnvironmentProblem, match="no Prefect server answers"), temporary_server() as (_, wait):
                wait()
        assert time.monotonic() - begun < 60, "it sleeps for 600 s"
    assert not [each for each in psutil.Process().children() if each.name() == "sleep"]


@pytest.mark.slow
def test_a_temporary_server_migrates_the_database_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (None, "PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        database = tmp_path / f"{variable}.db"
        with monkeypatch.context() as patch:
            if variable:
                patch.setenv(variable, f"sqlite+aiosqlite:///{database}")
            with temporary_server() as (api_url, wait):
                wait()
                assert post(api_url, "flow_runs/filter", {}) == []
        assert database.exists() == bool(variable)


def test_a_large_log_of_a_child_is_rotated_while_the_child_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "LOG_BYTES", 10)
    (home := artifact_paths.prefect_home()).mkdir(parents=True)
    child = up.Child(
        "server",
        lambda log: subprocess.Popen(
            ["sh", "-c", "echo before-before; read x; echo x"], stdin=subprocess.PIPE, stdout=log
        ),
    )
    eventually(lambda: (home / "server.log").stat().st_size, 10)
    child.watch()
    child.process.communicate(b"go\n")
    texts = [(home / name).read_text() for name in ("server.log.1", "server.log")]
    assert texts == ["before-before\n", "x\n"]
    child.log.unlink()
    with pytest.raises(EnvironmentProblem, match="exited with code 0"):
        child.watch()


STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.mark.slow
def test_what_a_child_has_started_is_killed_when_it_does_not_end_in_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["sh", "-c", f'"{sys.executable}" -c "{STUBBORN}" & wait']
    with log.open("wb") as output:
        child = supervisor.start(command, {"PATH": "/usr/bin:/bin"}, output)
    eventually(lambda: "up" in log.read_text(), 30, "the grandchild ignores SIGTERM")
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) == 2
    supervisor.stop(child)
    gone, alive = psutil.wait_procs(family, timeout=60)  # it sleeps for 600 s
    assert (len(gone), alive) == (2, [])


@pytest.mark.parametrize(
    ("end", "told"),
    [("kill -9 $$", "was ended by SIGKILL"), ("exit 3", "exited with code 3")],
)
def test_how_a_child_has_ended_is_told_with_its_signal(end: str, told: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as output:
        child = supervisor.start(["sh", "-c", end], {"PATH": "/usr/bin:/bin"}, output)
    assert supervisor.describe_end(child.wait(60)) == told
    supervisor.stop(child)


# What commands make a person wait for is counted, not timed: requests, what waits for the disk, imports, settings


COUNTED = """
import atexit, json, os, sys
from collections import Counter
import httpx
from prefect.settings import Settings
from flows.cli import app

asked = Counter()
def counted(client):
    send = client.send
    def counting(self, request, **options):
        asked[f"{request.method} {request.url.path.split('/')[2]}"] += 1
        return send(self, request, **options)
    client.send = counting
for client in (httpx.Client, httpx.AsyncClient):
    counted(client)
copy = Settings.copy_with_update
def copying(self, *arguments, **options):
    asked["settings"] += 1
    return copy(self, *arguments, **options)
Settings.copy_with_update = copying
fsync = os.fsync
def forcing(descriptor):
    asked["disk"] += 1
    fsync(descriptor)
os.fsync = forcing
code = app.run(sys.argv[2:])
found = {"code": code, "asked": asked, "modules": [*sys.modules]}
open(sys.argv[1], "w").write(json.dumps(found))
"""


def counted(tmp_path: Path, *arguments: str, **environment: str) -> tuple[dict[str, int], set[str]]:
    file = tmp_path / "counted.json"
    command = [sys.executable, "-c", COUNTED, str(file), *arguments]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, env=os.environ | environment)
    found = json.loads(file.read_text())
    assert found["code"] == 0
    return found["asked"], set(found["modules"])


def test_a_retrain_that_changes_nothing_asks_little_and_imports_nothing_that_trains(
    on_server: None, artifacts: Path, tmp_path: Path
) -> None:
    assert gradmill("retrain", NAME).returncode == 0
    asked, modules = counted(tmp_path, "retrain", NAME)
    assert not asked.pop("settings", 0), "to make them anew takes a tenth of a second"
    assert asked.pop("disk") <= 12, "file and folder, for the run's first note, one of each of four stages and one more"
    assert sum(asked.values()) <= 32, asked
    assert asked["POST artifacts"] <= 8, asked
    assert not {"torch", "onnx", "scipy.stats"} & modules


@pytest.mark.slow  # a running gradmill up
def test_a_retrain_beside_up_is_seen_in_its_ui_sends_its_events_and_asks_for_its_version_once(
    duty: Duty, tmp_path: Path
) -> None:
    before = duty.triggered()
    environment = duty.environment | {"PREFECT_API_URL": ""}
    asked, _ = counted(tmp_path, "retrain", NAME, "--name", "beside", "--no-predict", **environment)
    assert asked["GET admin"] == 1 + 3, "the version, and three times where results are kept"
    (run,) = [duty.run(each) for each in duty.triggered() - before]
    assert (run["state_type"], "model:beside" in run["tags"]) == ("COMPLETED", True)
    logs = [*(duty.artifacts / ".prefect").glob("*.log"), duty.artifacts.parent / "up.log"]
    assert [duty.credential.partition(":")[2] in log.read_text() for log in logs] == [False] * 3
    published = {"filter": {"resource": {"id": ["gradmill.model.beside"]}}}
    eventually(lambda: duty.post("/events/filter", published)["events"], 60, "its event is there")
