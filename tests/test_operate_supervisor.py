"""Children that end with their parent, whatever they have started."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.server import supervisor
from prefect_api import eventually

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
