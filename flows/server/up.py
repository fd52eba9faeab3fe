"""Scheduled operation on one machine: server, work pool, deployments, automations and a worker, ended together."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple
from uuid import UUID

from prefect import settings
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

from flows.server import api, deployments, prefect_server, service, supervisor
from flows.server.registration import POOL, home, register, worker
from tasks.errors import EnvironmentProblem, UsageError, without_credentials
from tasks.store import artifact_paths, locks

SERVER_ENVIRONMENT = prefect_server.ENVIRONMENT | {
    "PREFECT_SERVER_UI_API_URL": "/api",  # whatever the port
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 24 * 3600),  # seconds
}
Rewrite = Callable[[Iterable[UUID]], None]  # the pages of runs that have died
LASTING_SECONDS = 20.0  # a child that ends sooner is not started again
ANSWER_SECONDS = 5.0  # that a server may take to answer while everything ends, which has ten in all
REASON = "gradmill up was ended; Retry goes on where the run was"


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
    made, new, listener = None, False, None
    with ExitStack() as entered:
        entered.enter_context(_alone())
        if joined := settings.PREFECT_API_URL.value():
            here, key = service.at(joined, joined=True), settings.PREFECT_API_AUTH_STRING.value()
        else:
            key = settings.PREFECT_SERVER_API_AUTH_STRING.value()
            if key and not auth:
                raise UsageError("--no-auth, and PREFECT_SERVER_API_AUTH_STRING is set", "one of them", "leave one out")
            listener = entered.enter_context(prefect_server.listening(port))
            made, new = service.credential() if auth and not key else (None, False)
            here, key = service.at(f"http://127.0.0.1:{port}/api", own_credential=made is not None), key or made
        entered.enter_context(service.reached(here.api_url, key))
        children: list[Child] = []
        try:
            if listener is not None:
                server = Child("server", lambda log: prefect_server.start(listener, key, _environment(), log, home()))
                children.append(server)
                until = time.monotonic() + prefect_server.START_SECONDS
                if not prefect_server.wait_for_answer(here.api_url, server.has_ended, until):
                    found = f"no Prefect server answers at {here.api_url}"
                    raise EnvironmentProblem(found, "an answer to /health", f"see {server.log}")
            register()
            if listener is not None:
                deployments.give_up_what_never_began(POOL)
            children.append(Child("worker", _start_worker))
            here.write(artifact_paths.service())  # so that the commands on these artifacts find it
            yield Operation(here, made, new, children)
        finally:
            artifact_paths.service().unlink(missing_ok=True)
            for child in reversed(children):  # the worker first, while its runs can still be marked
                with crash_runs_on_end(rewrite) if child.name == "worker" else nullcontext():
                    supervisor.stop(child.process)


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
            self.process, self._started = self._start(log), time.monotonic()

    def has_ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self.process.poll() is not None

    def watch(self) -> None:
        """Start another process if this one has ended.

        Raises:
            EnvironmentProblem: it ended soon after its start, so another would, too.
        """
        if not self.has_ended():
            return
        found = f"the {self.name} has ended with {self.process.returncode}"
        if time.monotonic() - self._started < LASTING_SECONDS:
            raise EnvironmentProblem(found, "that it goes on", f"see {self.log}")
        print(f"{found}; starting another, see {self.log}", file=sys.stderr)
        self._begin()


def _start_worker(log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A worker for our pool, on the configured API."""
    named = ["--pool", POOL, "--type", "process", "--name", worker()]
    command = [sys.executable, "-m", "prefect", "worker", "start", *named]
    return supervisor.start(command, _environment() | {"PREFECT_WORKER_QUERY_SECONDS": "5"}, log, home())


def _environment() -> dict[str, str]:
    """Of the children: a Prefect of their own below artifacts/, and what the server needs to run well."""
    profile = settings.get_current_settings().to_environment_variables(exclude_unset=True, include_secrets=True)
    ours = {
        "PREFECT_HOME": str(artifact_paths.prefect_home()),
        "GRADMILL_ARTIFACTS": str(artifact_paths.make_root()),
        "GRADMILL_HOME": str(home()),
    }
    return SERVER_ENVIRONMENT | dict(os.environ) | profile | ours


# The runs that end with the worker


@contextmanager
def crash_runs_on_end(rewrite: Rewrite) -> Iterator[None]:
    """While the block ends the worker: runs that end with it are marked, and named on stderr; then ``rewrite`` pages.

    A server that does not answer then finds out by itself, by the heartbeats that are missing.
    """
    begun: list[FlowRun] = []
    with settings.temporary_settings({settings.PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}):
        with _said_if_it_fails(), api.client() as client:
            runs = deployments.runs(client, "PENDING", "RUNNING", "CANCELLING")
            begun = [run for run in runs if _has_process(run)]
        yield
        with _said_if_it_fails():
            ended = [run for run in begun if not _has_process(run)]
            if ended:
                with api.client() as client:
                    for run in ended:
                        state = client.read_flow_run(run.id).state
                        if state is None or not state.is_final() or state.is_crashed():  # in words of Prefect's own
                            client.set_flow_run_state(run.id, Crashed(message=REASON), force=True)
                            print(f"ended       {run.name}: Retry in the UI goes on where it was", file=sys.stderr)
            rewrite(run.id for run in ended)


@contextmanager
def _said_if_it_fails() -> Iterator[None]:
    """Whatever goes wrong is said: children are still to be ended."""
    try:
        yield
    except Exception as error:
        reason = error.found if isinstance(error, EnvironmentProblem) else f"{type(error).__name__}: {error}"
        print(f"runs that have ended are marked later: {without_credentials(reason)}", file=sys.stderr)


def _has_process(run: FlowRun) -> bool:
    """Whether a process of this machine executes it: a number alone may be another machine's."""
    try:
        environment = Path(f"/proc/{run.infrastructure_pid}/environ").read_bytes()
    except OSError:
        return False
    return str(run.id).encode() in environment
