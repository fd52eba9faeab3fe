"""The processes that ``gradmill up`` keeps: a server and a worker, each with its log below artifacts/.prefect/."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prefect.settings import get_current_settings

from flows.server import guarded, tethered
from flows.server.registration import POOL, home
from tasks.errors import EnvironmentProblem
from tasks.store import artifact_paths

SERVER_ENVIRONMENT = guarded.ENVIRONMENT | {
    "PREFECT_SERVER_UI_API_URL": "/api",  # whatever the port
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 24 * 3600),  # seconds
}
LASTING_SECONDS = 20.0  # a child that ends sooner is not started again


class Child:
    """The server or the worker: started anew when it ends by itself, unless it did not last."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._name, self._start = name, start
        self._begin()

    def _begin(self) -> None:
        self._process, self._started = self._start(), time.monotonic()

    def ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process.poll() is not None

    def watch(self) -> None:
        """Start another process if this one has ended.

        Raises:
            EnvironmentProblem: it ended soon after its start, so another would, too.
        """
        if not self.ended():
            return
        found = f"the {self._name} has ended with {self._process.returncode}"
        if time.monotonic() - self._started < LASTING_SECONDS:
            raise EnvironmentProblem(found, "that it goes on", f"see {log(self._name)}")
        print(f"{found}; starting another, see {log(self._name)}", file=sys.stderr)
        self._begin()

    def stop(self) -> None:
        """End the process and all that it has started."""
        tethered.stop(self._process)


def start_server(listener: socket.socket, key: str | None) -> subprocess.Popen[bytes]:
    """The server, on a socket that listens already; it asks for ``key``, if given."""
    with log("server").open("ab") as output:
        return guarded.start(listener, key, _environment(), output, home())


def start_worker() -> subprocess.Popen[bytes]:
    """A worker for our pool, on the configured API."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    with log("worker").open("ab") as output:
        return tethered.start(command, _environment() | {"PREFECT_WORKER_QUERY_SECONDS": "5"}, output, home())


def _environment() -> dict[str, str]:
    """Of the children: a Prefect of their own below artifacts/, and what the server needs to run well."""
    profile = get_current_settings().to_environment_variables(exclude_unset=True, include_secrets=True)
    ours = {
        "PREFECT_HOME": str(artifact_paths.prefect_home()),
        "GRADMILL_ARTIFACTS": str(artifact_paths.make_root()),
        "GRADMILL_HOME": str(home()),
    }
    return SERVER_ENVIRONMENT | dict(os.environ) | profile | ours


def log(name: str) -> Path:
    """Where a child writes what it has to say."""
    return artifact_paths.prefect_home() / f"{name}.log"
