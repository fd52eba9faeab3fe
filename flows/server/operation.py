"""Scheduled operation on one machine: server, work pool, deployments, automations and a worker, ended together."""

import math
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_SERVER_API_AUTH_STRING

from flows.server import guarded, service
from flows.server.children import Child, log, start_server, start_worker
from flows.server.deployments import give_up_what_never_began
from flows.server.registration import POOL, register
from tasks.errors import EnvironmentProblem, UsageError
from tasks.store import artifact_paths, locks


class Operation(NamedTuple):
    """What is up: where it answers, the credential if it is of our making and whether it is new, children to watch."""

    service: service.Service
    credential: str | None
    new: bool
    children: list[Child]


@contextmanager
def operation(port: int, auth: bool = True) -> Iterator[Operation]:
    """Bring everything up, or join the server that PREFECT_API_URL names; take our own children down at the end.

    A server of our own asks for a credential: the user's, or one of our making; with ``auth`` false for none.

    Raises:
        UsageError: the port is taken, another ``up`` has these artifacts, or ``auth`` is false and a credential is set.
        EnvironmentProblem: the server does not start, or a deployment is not accepted.
    """
    with _alone():
        joined = PREFECT_API_URL.value()
        if joined:
            with _up(service.at(joined, joined=True), PREFECT_API_AUTH_STRING.value()) as running:
                yield running
            return
        given = PREFECT_SERVER_API_AUTH_STRING.value()
        if given and not auth:
            raise UsageError("--no-auth, and PREFECT_SERVER_API_AUTH_STRING is set", "one of them", "leave one out")
        with _listening(port) as listener:
            made, new = service.credential() if auth and not given else (None, False)
            here = service.at(f"http://127.0.0.1:{port}/api", own_credential=made is not None)
            with _up(here, given or made, new, listener) as running:
                yield running


@contextmanager
def _up(
    here: service.Service, key: str | None, new: bool = False, listener: socket.socket | None = None
) -> Iterator[Operation]:
    children: list[Child] = []
    with service.reached(here.api_url, key):
        try:
            if listener is not None:
                children.append(Child("server", lambda: start_server(listener, key)))
                if not guarded.answers(here.api_url, children[0].ended, time.monotonic() + guarded.START_SECONDS):
                    found = f"no Prefect server answers at {here.api_url}"
                    raise EnvironmentProblem(found, "an answer to /health", f"see {log('server')}")
            register()
            if listener is not None:
                give_up_what_never_began(POOL)
            children.append(Child("worker", start_worker))
            here.write(artifact_paths.service())  # so that the commands on these artifacts find it
            yield Operation(here, key if here.own_credential else None, new, children)
        finally:
            artifact_paths.service().unlink(missing_ok=True)
            for child in reversed(children):
                child.stop()


@contextmanager
def _alone() -> Iterator[None]:
    """Keep a second ``up`` off these artifacts: two servers on one SQLite file would both schedule."""
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


def _listening(port: int) -> socket.socket:
    """The server's socket. It is ours: between two servers nobody else can answer there, callers wait."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(
            f"port {port} of 127.0.0.1 is taken",
            "a free port for the Prefect server",
            "choose another with --port, or set PREFECT_API_URL to join a server that runs already",
        ) from error


def wait_for_the_end(running: Operation) -> None:
    """Return at SIGTERM; until then, start children anew that have ended.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        EnvironmentProblem: a child does not last.
    """
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(0.5):
        for child in running.children:
            child.watch()
