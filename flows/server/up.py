"""Scheduled operation on one machine: server, work pool, deployments, automations and a worker, ended together.

``up`` reports what a dead process can no longer report itself. A run is dead when its process is gone, and is marked as
crashed. Prefect's worker detects this for its own runs within a second. If the worker ends too, one mechanism works on
every server, the automation that waits for heartbeats (automations.yaml), and it takes 75 seconds. ``up`` detects dead
runs earlier, and more of them (``crash_dead_runs``): when it ends, those that end with its worker; when it starts its
own server, those that an earlier one left, including runs that never began and so send no heartbeats; and while it
runs, runs of commands, which send none either.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, NamedTuple
from uuid import UUID

from prefect import settings
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

from flows.pages import overview
from flows.server import api, connection, deployments, prefect_server, session, status, supervisor
from flows.server.registration import POOL, find_home, register, worker_name
from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine import resources
from tasks.machine.words import escape_control_characters
from tasks.store import artifact_paths, identity, locks, state
from tasks.store.identity import STORE_TAG
from tasks.store.state import NameState

LOG_BYTES = 2**24  # of a log; a larger one is rotated
LASTING_SECONDS = 20.0  # a child that ends sooner is not restarted
ANSWER_SECONDS = 5.0  # for a server's answer during shutdown, which has ten seconds in all
LOOK_SECONDS = 15.0  # between two requests to the server
QUIET = timedelta(minutes=1)  # during which a run that has released its folder may still write its pages
AGO = timedelta(minutes=10)  # tolerance, since the clocks of server and runs differ
DIED = ("CRASHED", "CANCELLED")  # set by a worker, the automation for lost heartbeats, or a person
REASON = "gradmill up was stopped; Retry starts the run over"
JOIN_SERVER = ", or set PREFECT_API_URL to join a server that runs already"
SUPERSEDED = "left out: a newer run of its deployment is due"


class Operation(NamedTuple):
    """A running operation: its address, its credential if we made it and whether that is new, and the child processes.

    ``link`` opens our own page; it is None on a joined server.
    """

    service: connection.Service
    link: str | None
    credential: str | None
    new: bool
    children: "list[Child]"


@contextmanager
def operation(port: int, auth: bool, adopt: bool = False) -> Iterator[Operation]:
    """Start everything, or join the server that PREFECT_API_URL names; stop our own children at the end.

    Our own server requires a credential, the user's or one that we make, unless ``auth`` is false. A copied store and a
    server of another store are refused, unless this store may ``adopt`` its deployments.

    Raises:
        UsageError: the port is taken, another ``up`` has these artifacts, ``auth`` is false and a credential is set, or
            the deployments belong to another store.
        EnvironmentProblem: the server does not start, or a deployment is not accepted.
    """
    made, new, listener = None, False, None
    with ExitStack() as entered:
        entered.enter_context(_keep_others_out())
        identity.require(adopt)
        if joined := settings.PREFECT_API_URL.value():
            here, key = connection.make_service(joined, joined=True), settings.PREFECT_API_AUTH_STRING.value()
        else:
            key = settings.PREFECT_SERVER_API_AUTH_STRING.value()
            if key and not auth:
                raise UsageError("--no-auth, and PREFECT_SERVER_API_AUTH_STRING is set", "one of them", "leave one out")
            listener = entered.enter_context(prefect_server.listen(port, JOIN_SERVER))
            made, new = connection.find_credential() if auth and not key else (None, False)
            here, key = (
                connection.make_service(f"http://127.0.0.1:{port}/api", own_credential=made is not None),
                key or made,
            )
        entered.enter_context(connection.use_api(here.api_url, key))
        children: list[Child] = []
        try:
            if listener is not None:
                server = Child(
                    "server", lambda log: prefect_server.start(listener, key, _environment(), log, find_home())
                )
                children.append(server)
                prefect_server.require_answer(here.api_url, server.process, server.log)
            register(adopt=adopt)
            if listener is not None:
                with api.client() as client:
                    crash_dead_runs(client, list_begun(client), REASON)
            children.append(Child("worker", _start_worker))
            here.write(artifact_paths.service())  # so that commands on these artifacts find it
            ui = here.api_url.removesuffix("/api")
            yield Operation(here, session.make_link(ui, key is not None) if listener else None, made, new, children)
        finally:
            artifact_paths.service().unlink(missing_ok=True)
            for child in reversed(children):  # the worker first, while its runs can still be marked
                with crash_runs_on_end() if child.name == "worker" else nullcontext():
                    supervisor.stop(child.process)


@contextmanager
def _keep_others_out() -> Iterator[None]:
    """Hold the lock of ``up``; a command that uses its database for seconds is waited for.

    Raises:
        UsageError: another ``up`` is running.
    """
    with ExitStack() as holding:
        try:
            if connection.find_service(quietly=True):
                raise TimeoutError
            holding.enter_context(connection.hold_up_lock())
        except TimeoutError as error:
            another = f"another gradmill up is running in {artifact_paths.root()}"
            raise UsageError(another, "one for each folder", "end it, or use --artifacts for another folder") from error
        yield


def find_link() -> str | None:
    """A new link to the server of an ``up`` that is running on these artifacts already; None if there is none.

    Raises:
        DataError: its address cannot be read.
    """
    found = connection.find_service(quietly=True)
    return session.make_link(found.api_url.removesuffix("/api")) if found and not found.joined else None


def wait_for_the_end(running: Operation) -> None:
    """Return at SIGTERM; until then restart children that have ended, and run periodic checks.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        EnvironmentProblem: a child ended soon after its start.
    """
    ended, watch = threading.Event(), PeriodicChecks(is_joined=running.service.joined)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(0.5):
        for child in running.children:
            child.watch()
        watch.run_due_checks()


# The children, each with a log below artifacts/.prefect/


class Child:
    """The server or the worker, restarted when it ends by itself unless it ended too soon."""

    def __init__(self, name: str, start: Callable[[IO[bytes]], subprocess.Popen[bytes]]) -> None:
        self._start, self.name, self.log = start, name, artifact_paths.prefect_home() / f"{name}.log"
        self._begin()

    def _begin(self) -> None:
        with self.log.open("ab") as log:
            self.process, self._started = self._start(log), time.monotonic()

    def watch(self) -> None:
        """Restart the process if it has ended, and rotate its log if that is large.

        Raises:
            EnvironmentProblem: it ended soon after its start, so another would too.
        """
        self._rotate_log()
        if self.process.poll() is None:
            return
        found = f"the {self.name} {supervisor.describe_end(self.process.returncode)}"
        if time.monotonic() - self._started < LASTING_SECONDS:
            raise EnvironmentProblem(found, "a process that keeps running", f"see {self.log}")
        print(f"{found}; starting another, see {self.log}", file=sys.stderr)
        self._begin()

    def _rotate_log(self) -> None:
        """Copy a large log to ``.log.1``, which is replaced, and empty it: the process has it open, and appends."""
        with suppress(FileNotFoundError):  # a user may remove it
            if self.log.stat().st_size > LOG_BYTES:
                with suppress(OSError):  # a full disk must not end the operation
                    shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
                os.truncate(self.log, 0)


def _start_worker(log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker for our pool on the configured API, with as many parallel runs as cores.

    There are at least two, so that a search that takes a night delays no retrain.
    """
    most = str(max(2, resources.count_cores()))
    named = ["--pool", POOL, "--type", "process", "--name", worker_name(), "--limit", most]
    command = [sys.executable, "-m", "prefect", "worker", "start", *named]
    return supervisor.start(command, _environment() | {"PREFECT_WORKER_QUERY_SECONDS": "5"}, log, find_home())


def _environment() -> dict[str, str]:
    return connection.server_environment() | {"GRADMILL_HOME": str(find_home())}


# Runs whose processes are gone (see the module's docstring)


def list_begun(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs of our deployments that a worker has taken and that have not ended."""
    return deployments.list_runs(client, "PENDING", "RUNNING", "CANCELLING")


def crash_dead_runs(client: SyncPrefectClient, suspects: Iterable[FlowRun], reason: str) -> list[FlowRun]:
    """Mark runs as crashed if no process of this machine executes them; print which can be retried, and return them."""
    dead = [run for run in suspects if not _has_process(run)]
    for run in dead:
        ended_in = client.read_flow_run(run.id).state
        if ended_in is None or not ended_in.is_final() or ended_in.is_crashed():  # replaces Prefect's message
            client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
            if run.deployment_id:
                print(f"ended       {run.name}: Retry in the UI starts it over", file=sys.stderr)
    return dead


def _has_process(run: FlowRun) -> bool:
    """Whether a process of this machine executes a run; a worker's process id alone may belong to another machine."""
    with suppress(OSError):
        return str(run.id).encode() in Path(f"/proc/{run.infrastructure_pid}/environ").read_bytes()
    return any(locks.is_held(artifact_paths.lock(folder)) for folder in _find_folders(run.id))


@contextmanager
def crash_runs_on_end() -> Iterator[None]:
    """Mark the runs that end with the worker, which the block stops.

    A server that does not answer detects them itself later. Failures are reported: other children must still be
    stopped.
    """
    begun, marked_later = list[FlowRun](), "runs that were stopped will be marked later: "
    with connection.report_failure(marked_later), api.client(ANSWER_SECONDS) as client:
        begun = [run for run in list_begun(client) if _has_process(run)]
    yield
    if begun:
        with connection.report_failure(marked_later), api.client(ANSWER_SECONDS) as client:
            crash_dead_runs(client, begun, REASON)


class PeriodicChecks:
    """Periodic checks: runs that have ended or died, and due runs.

    A server that was joined has no pages of ours, and others' runs: ``is_joined`` writes the report of each name beside
    the models, and prints only the ends of this store's runs.
    """

    def __init__(self, is_joined: bool = False) -> None:
        self._is_joined, self._begun, self._next = is_joined, datetime.now(UTC), 0.0
        self._known = set[UUID | None]()  # ids of states, since a retry may die too
        self._reported = dict[str, NameState]()

    def run_due_checks(self) -> None:
        """Do the checks that are due; failures are reported, and retried later."""
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + LOOK_SECONDS
        with connection.report_failure("runs that have ended could not be looked up: "), suppress(EnvironmentProblem):
            self._check_runs()
        if self._is_joined:
            with connection.report_failure("the reports could not be written: "):
                self._write_reports()

    def _check_runs(self) -> None:
        with api.client(ANSWER_SECONDS) as client:
            commands = deployments.list_runs(client, "RUNNING", tags=None, deployment_id={"is_null_": True})
            crash_dead_runs(client, filter(_is_left, commands), "the run's process is gone")
            leave_out_superseded(client)
            lately = {"after_": max(self._begun, datetime.now(UTC) - AGO)}
            ended = deployments.list_runs(
                client, "COMPLETED", "FAILED", *DIED, tags=None, end_time=lately, parent_task_run_id={"is_null_": True}
            )
        new = [run for run in ended if run.state_id not in self._known]
        self._known |= {run.state_id for run in new}
        for run in new:
            if self._is_joined and not _is_of_this_store(run):
                continue
            message = status.explain_failure(run)
            reason = f": {message.splitlines()[0]}" if message else ""
            told = f"ended       {run.name}: {(run.state_name or 'unknown').lower()}{reason}"
            print(escape_control_characters(told), file=sys.stderr)

    def _write_reports(self) -> None:
        """Write the reports of the names whose state has changed, and remove those of removed names."""
        names = {name: name_state for name, name_state in state.read().names.items() if name_state.is_known}
        for name, name_state in names.items():
            if self._reported.get(name) != name_state:
                overview.write_report(name_state, artifact_paths.report(name))
        for path in artifact_paths.reports().glob("*.html"):
            if path.stem not in names:
                path.unlink()
        self._reported = names


def leave_out_superseded(client: SyncPrefectClient) -> None:
    """Keep only the newest of several due scheduled runs of a deployment; print the others."""
    due = deployments.list_runs(client, "SCHEDULED", expected_start_time={"before_": datetime.now(UTC)})
    newest = set[UUID | None]()
    for run in reversed(due):
        if not run.auto_scheduled:  # somebody started it
            continue
        if run.deployment_id in newest and deployments.leave_out(client, run, SUPERSEDED):
            print(f"skipped     {run.name} of {run.expected_start_time:%H:%M} UTC: {SUPERSEDED}", file=sys.stderr)
        newest.add(run.deployment_id)


def _find_folders(run: UUID) -> list[Path]:
    """The folder of a run, if it is in these artifacts."""
    return [notes.parent for notes in artifact_paths.runs().glob(f"*-{str(run)[:8]}/{artifact_paths.RUN}")]


def _is_of_this_store(run: FlowRun) -> bool:
    """Whether a deployment of this store started a run, or a command whose run has its folder here."""
    return f"{STORE_TAG}{identity.find_id()}" in run.tags or bool(_find_folders(run.id))


def _is_left(run: FlowRun) -> bool:
    """Whether a command's run has a folder here and was last recorded so long ago that it must have been killed."""
    notes = [(folder / artifact_paths.RUN).stat().st_mtime for folder in _find_folders(run.id)]
    limit = datetime.now(UTC) - QUIET
    return bool(notes and run.state and run.state.timestamp < limit and max(notes) < limit.timestamp())
