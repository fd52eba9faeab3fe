"""A temporary server that hangs costs its run its deadline and others no more; children end with their parent."""

import os
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from flows.server import connection, prefect_server, supervisor
from flows.server.connection import temporary_server
from prefect_api import eventually
from tasks.errors import EnvironmentProblem


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
        (connection, "SAID_AFTER", 0.1),
    ):
        monkeypatch.setattr(module, f"{name}_SECONDS", seconds)


@pytest.mark.slow
@pytest.mark.usefixtures("_hanging")
def test_a_server_that_hangs_is_ended_at_the_deadline(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}):
        begun = time.monotonic()
        for _ in range(2):  # the second finds the lock free
            with pytest.raises(EnvironmentProblem, match="did not start"), temporary_server() as (_, wait):
                wait()
        assert time.monotonic() - begun < 60, "it sleeps for 600 s"
    assert not [each for each in psutil.Process().children() if each.name() == "sleep"]


@pytest.mark.usefixtures("_hanging")
def test_others_wait_for_it_no_longer_than_that_and_say_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with temporary_settings({PREFECT_HOME: tmp_path}), temporary_server():
        begun = time.monotonic()
        holder = f"process {os.getpid()} on "
        with pytest.raises(EnvironmentProblem, match=f"another run has been starting .*: {holder}"), temporary_server():
            pass
        assert time.monotonic() - begun < 60, "it sleeps for 600 s"
        assert f"waiting for another run's Prefect server to start: {holder}" in capfd.readouterr().err


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
    started = time.monotonic()
    supervisor.stop(child)
    assert time.monotonic() - started < supervisor.GRACE_SECONDS + 60, "it sleeps for 600 s"
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
