"""Scheduled operation on one machine: server, work pool, deployments, automations and a worker, ended together."""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import IO, NamedTuple
from uuid import UUID

from prefect import settings

from flows.server import ending, guarded, service, tethered
from flows.server.deployments import give_up_what_never_began
from flows.server.registration import POOL, home, register, worker
from tasks.errors import EnvironmentProblem, UsageError
from tasks.store import artifact_paths, locks

SERVER_ENVIRONMENT = guarded.ENVIRONMENT | {
    "PREFECT_SERVER_UI_API_URL": "/api",  # whatever the port
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 24 * 3600),  # seconds
}
WORKER = "worker"
Rewrite = Callable[[Iterable[UUID]], None]  # the pages of runs that have died
LASTING_SECONDS = 20.0  # a child that ends sooner is not started again


class Operation(NamedTuple):
    """What is up: where it answers, the credential if it is of our making and whether it is new, children to watch."""

    service: service.Service
    credential: str | None
    new: bool
    children: "list[Child]"


@contextmanager
def operation(port: int, auth: bool, rewrite: Rewrite) -> Iterator[Operation]:
    """Bring everything up, or join the server that PREFECT_API_URL names; take our own children down at the end.

    A server of our own asks for a credential: the user's, or one of our making; with ``auth`` false for none.
    ``rewrite`` is called with the runs that end with it.

    Raises:
        UsageError: the port is taken, another ``up`` has these artifacts, or ``auth`` is false and a credential is set.
        EnvironmentProblem: the server does not start, or a deployment is not accepted.
    """
    with _alone():
        joined = settings.PREFECT_API_URL.value()
        if joined:
            with _up(service.at(joined, joined=True), settings.PREFECT_API_AUTH_STRING.value(), rewrite) as running:
                yield running
            return
        given = settings.PREFECT_SERVER_API_AUTH_STRING.value()
        if given and not auth:
            raise UsageError("--no-auth, and PREFECT_SERVER_API_AUTH_STRING is set", "one of them", "leave one out")
        with guarded.listening(port) as listener:
            made, new = service.credential() if auth and not given else (None, False)
            here = service.at(f"http://127.0.0.1:{port}/api", own_credential=made is not None)
            with _up(here, given or made, rewrite, new, listener) as running:
                yield running


@contextmanager
def _up(
    here: service.Service, key: str | None, rewrite: Rewrite, new: bool = False, listener: socket.socket | None = None
) -> Iterator[Operation]:
    children: list[Child] = []
    with service.reached(here.api_url, key):
        try:
            if listener is not None:
                server = Child("server", lambda log: guarded.start(listener, key, _environment(), log, home()))
                children.append(server)
                if not guarded.answers(here.api_url, server.ended, time.monotonic() + guarded.START_SECONDS):
                    found = f"no Prefect server answers at {here.api_url}"
                    raise EnvironmentProblem(found, "an answer to /health", f"see {server.log}")
            register()
            if listener is not None:
                give_up_what_never_began(POOL)
            children.append(Child(WORKER, _worker))
            here.write(artifact_paths.service())  # so that the commands on these artifacts find it
            yield Operation(here, key if here.own_credential else None, new, children)
        finally:
            artifact_paths.service().unlink(missing_ok=True)
            _end(children, rewrite)


def _end(children: "list[Child]", rewrite: Rewrite) -> None:
    """The worker first, while its runs can still be marked."""
    for child in reversed(children):
        with ending.told(rewrite) if child.name == WORKER else nullcontext():
            child.stop()


@contextmanager
def _alone() -> Iterator[None]:
    """Keep a second ``up`` off these artifacts: two servers on one SQLite file would both schedule."""
    locks.refuse_half_restored()  # the database among the rest
    artifact_paths.make_root()
    artifact_paths.prefect_home().mkdir(exist_ok=True)
    artifact_paths.prefect_home().chmod(0o700)  # saved blocks hold secrets, and so does the credential
    another = f"another gradmill up is at work in {artifact_paths.root()}"
    with ExitStack() as holding:
        try:  # for a second: whoever looks for the service has the lock for a moment
            holding.enter_context(locks.locked(artifact_paths.up_lock(), another, told_after=math.inf, within=1))
        except TimeoutError as error:
            raise UsageError(another, "one for each folder", "use --artifacts") from error
        artifact_paths.service().unlink(missing_ok=True)  # of one that was killed
        yield


def wait_for_the_end(running: Operation, *looks: Callable[[], None]) -> None:
    """Return at SIGTERM; until then, start children anew that have ended, and look around now and then.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        EnvironmentProblem: a child does not last.
    """
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(0.5):
        for child in running.children:
            child.watch()
        for look in looks:
            look()


# The children, each with its log below artifacts/.prefect/


class Child:
    """The server or the worker: started anew when it ends by itself, unless it did not last."""

    def __init__(self, name: str, start: Callable[[IO[bytes]], subprocess.Popen[bytes]]) -> None:
        self._start, self.name, self.log = start, name, artifact_paths.prefect_home() / f"{name}.log"
        self._begin()

    def _begin(self) -> None:
        with self.log.open("ab") as log:
            self._process, self._started = self._start(log), time.monotonic()

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
        found = f"the {self.name} has ended with {self._process.returncode}"
        if time.monotonic() - self._started < LASTING_SECONDS:
            raise EnvironmentProblem(found, "that it goes on", f"see {self.log}")
        print(f"{found}; starting another, see {self.log}", file=sys.stderr)
        self._begin()

    def stop(self) -> None:
        """End the process and all that it has started."""
        tethered.stop(self._process)


def _worker(log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A worker for our pool, on the configured API."""
    named = ["--pool", POOL, "--type", "process", "--name", worker()]
    command = [sys.executable, "-m", "prefect", "worker", "start", *named]
    return tethered.start(command, _environment() | {"PREFECT_WORKER_QUERY_SECONDS": "5"}, log, home())


def _environment() -> dict[str, str]:
    """Of the children: a Prefect of their own below artifacts/, and what the server needs to run well."""
    profile = settings.get_current_settings().to_environment_variables(exclude_unset=True, include_secrets=True)
    ours = {
        "PREFECT_HOME": str(artifact_paths.prefect_home()),
        "GRADMILL_ARTIFACTS": str(artifact_paths.make_root()),
        "GRADMILL_HOME": str(home()),
    }
    return SERVER_ENVIRONMENT | dict(os.environ) | profile | ours
