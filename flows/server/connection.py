"""The connection to a Prefect API: the user's, that of gradmill up, or a temporary server's; and what is told to it."""

import ast
import fcntl
import gc
import hashlib
import importlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.server import environment, prefect_server, supervisor
from flows.server.environment import LOOPBACK
from tasks.errors import DataError, EnvironmentProblem, GradmillError, without_credentials
from tasks.store import artifact_paths, locks
from tasks.store.documents import Document

USER = "gradmill"
STARTING_SECONDS = 60.0  # a worker takes a few, and on a loaded machine many
WHAT_TO_DO = "see server.log in artifacts/.prefect/, and whether PREFECT_API_AUTH_STRING is as gradmill up has it"
DRAIN_SECONDS = 5.0
TELLING_SECONDS = 5.0
SAID_AFTER_SECONDS = 3.0
TO_HAVE_ONE = "run gradmill up, or set PREFECT_API_URL"
ONLY_LISTENERS = "only automations and services that wait for events miss it"
TEMPORARY = prefect_server.ENVIRONMENT | {
    "PREFECT__SERVER_EPHEMERAL": "1",  # without the UI and most services
    # Runs of ours use no blocks; to see which there are, every collection that is installed would be imported.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}

_is_temporary = ContextVar("_is_temporary", default=False)


# The service of an artifacts folder: where its ``gradmill up`` answers, and the credential that it asks for


class Service(Document):
    """What ``gradmill up`` writes for the commands beside it, and removes at its end; a lock tells whether it lives.

    Nobody else can answer at a server of its own: ``up`` itself holds the socket, also while it starts another server.
    """

    schema_version: int = 1
    api_url: str
    host: str | None = None  # of an address that means another machine elsewhere
    joined: bool = False  # the server is not of ``up``'s own
    own_credential: bool = False  # the server asks for the one in ``artifact_paths.credential()``
    code: str | None = None  # the digest of our own Python files at its start


def make_service(api_url: str, **more: bool) -> Service:
    """The service that answers at ``api_url``, as seen from this machine."""
    host = socket.gethostname() if urlsplit(api_url).hostname in LOOPBACK else None
    return Service(api_url=api_url.rstrip("/"), host=host, code=digest_code(), **more)


def digest_code() -> str:
    """SHA-256 of our own Python files, as runs import them that start now."""
    return hashlib.sha256(b"".join(content for _, content in _read_code())).hexdigest()


def describe_code(before: str | None) -> str | None:
    """What is to be said where the code is not that of this digest any more, with the first error in its syntax."""
    if before in (None, digest_code()):
        return None
    for path, content in _read_code():
        try:
            ast.parse(content)
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            return f"no run can start: {path}{line}: {error.args[0]}"
    return "the code has changed since gradmill up started: runs take the new one, up itself when it is started again"


def _read_code() -> Iterator[tuple[Path, bytes]]:
    root = Path(__file__).parents[2]
    for path in sorted(each for package in ("flows", "gradmill", "tasks") for each in (root / package).rglob("*.py")):
        with suppress(OSError):  # an editor is replacing it
            yield path, path.read_bytes()


def find_credential() -> tuple[str, bool]:
    """The credential of these artifacts' server, as ``user:password``, and whether it has just been made.

    It stays the same from one ``up`` to the next, so that browsers stay signed in; one that others could have read is
    made anew.
    """
    path = artifact_paths.credential()
    if path.is_file() and not path.stat().st_mode & 0o077 and ":" in (known := path.read_text().strip()):
        return known, False
    made = new_credential()
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:  # of mode 0600 from the beginning
        file.write(made + "\n")
    Path(file.name).replace(path)
    return made, True


def new_credential() -> str:
    """As ``user:password``, which nobody can guess."""
    return f"{USER}:{secrets.token_hex(24)}"


def find_service(quietly: bool = False) -> Service | None:
    """The service that is at work in these artifacts; says why an address that stands there is not one.

    That is no news, so ``quietly``, where somebody has named an API of their own.

    Raises:
        DataError: the address cannot be read.
    """
    path = artifact_paths.service()
    try:
        content = path.read_bytes()
        if not _is_of_the_dead():
            found = Service.parse(content, path, "start gradmill up again")
            if found.host in (None, socket.gethostname()):
                return found
            reason = f"gradmill up is at work on {found.host}, not on this machine"
        else:
            reason = f"the address in {path} is of a gradmill up that was killed"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        reason = f"{error.filename} is another user's"
    if not quietly:
        print(f"{reason}; going on without it", file=sys.stderr)
    return None


def _is_of_the_dead() -> bool:
    """Whether nobody has the lock; the address is then removed, which nobody can have written anew in the meantime."""
    with artifact_paths.up_lock().open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two who ask do not meet
        except BlockingIOError:
            return False
        with suppress(OSError):
            artifact_paths.service().unlink()
    return True


def is_configured() -> bool:
    """Whether Prefect's settings point at the service of these artifacts, and it is at work."""
    from prefect.settings import PREFECT_API_URL

    with suppress(DataError):
        found = find_service(quietly=True)
        return found is not None and found.api_url == (PREFECT_API_URL.value() or "").rstrip("/")
    return False


def is_starting() -> bool:
    """Whether the service began so lately that its worker may not have told the server of itself yet."""
    with suppress(OSError):
        return is_configured() and time.time() - artifact_paths.service().stat().st_mtime < STARTING_SECONDS
    return False


@contextmanager
def use_service() -> Iterator[Service | None]:
    """Point Prefect's settings at the service of these artifacts, if one is at work and nobody has named another API.

    Raises:
        DataError: the address of the service, or its credential, cannot be read.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY

    configured = (PREFECT_API_URL.value() or "").rstrip("/")
    found = None if configured and PREFECT_API_AUTH_STRING.value() else find_service(quietly=bool(configured))
    if found is None or configured not in ("", found.api_url):
        yield None
        return
    # A run waits up to a second for the thread of its heartbeats to end. Of a command's run ``up`` looks at the lock on
    # its folder instead; runs of the worker have settings of their own.
    with use_api(found.api_url, _find_credential_to_send(found), {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield found


def _find_credential_to_send(service: Service) -> str | None:
    """The credential to send: of ``up``'s own making, or as the user has set it.

    Raises:
        DataError: somebody has removed the former.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_SERVER_API_AUTH_STRING

    if service.own_credential:
        try:
            return artifact_paths.credential().read_text().strip()
        except OSError as error:
            found = f"the credential of gradmill up cannot be read: {error}"
            raise DataError(found, "the file that it has made", "start gradmill up again") from error
    given_to_up: str | None = None if service.joined else PREFECT_SERVER_API_AUTH_STRING.value()
    return given_to_up or PREFECT_API_AUTH_STRING.value() or None


@contextmanager
def use_api(api_url: str, key: str | None, more: dict[Any, Any] | None = None) -> Iterator[None]:
    """Point Prefect's settings at an API, with the credential that it asks for if there is one, and ``more`` settings.

    They are all made anew, which takes a tenth of a second.
    """
    from prefect import settings

    known = {settings.PREFECT_API_URL: api_url, settings.PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True}
    known[settings.PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED] = False  # we do so ourselves (api.py), and once
    with settings.temporary_settings(known | ({settings.PREFECT_API_AUTH_STRING: key} if key else {}) | (more or {})):
        yield


# What a run or a command uses


@contextmanager
def temporary_server(credential: str | None = None) -> Iterator[tuple[str, Callable[[], None]]]:
    """A Prefect server for one run, for those who have none; yields its API's address and what waits for an answer.

    It asks for ``credential``, if given. Prefect starts such a server by itself, but it outlives a run that is killed.
    This one ends with the run. Nothing of Prefect's is imported, so that it starts beside that import. At the end it is
    waited for only where it may be migrating a database, as the next one would, too.

    Raises:
        EnvironmentProblem: another run's server has been starting for too long; or, of what is yielded, this one ended,
            or did not answer in time.
    """
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as starting, tempfile.TemporaryFile() as log:
        # Servers share the database below PREFECT_HOME, and two that migrate a fresh one at once break each other. By
        # default so long that the other one has started or is ended.
        lock, said = home / "gradmill-server-start.lock", "waiting for another run's Prefect server to start"
        within = SAID_AFTER_SECONDS + prefect_server.START_SECONDS + supervisor.STOP_SECONDS
        try:
            starting.enter_context(locks.hold_lock(lock, said, SAID_AFTER_SECONDS, within))
        except TimeoutError as error:
            holder = locks.read_holder(lock)
            raise EnvironmentProblem(
                f"another run has been starting a Prefect server for over {prefect_server.START_SECONDS:.0f} s"
                + (f": {holder}" if holder else ""),
                f"that it lets go of {lock}",
                "end that run, or set PREFECT_API_URL to a running server",
            ) from error
        with prefect_server.listen(0) as listener:
            process = prefect_server.start(listener, credential, TEMPORARY | dict(os.environ), log)
            api_url = f"{prefect_server.address(listener)}/api"
        until, has_answered = time.monotonic() + prefect_server.START_SECONDS, False

        def wait() -> None:
            nonlocal has_answered
            has_answered = prefect_server.wait_for_answer(api_url, lambda: process.poll() is not None, until)
            if has_answered:
                starting.close()
                return
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise EnvironmentProblem(
                f"Prefect's temporary server did not start: {lines[-1] if lines else 'it said nothing'}",
                f"an answer within {prefect_server.START_SECONDS:.0f} s",
                "see that PREFECT_HOME is writable, or set PREFECT_API_URL to a running server",
            )

        try:
            yield api_url, wait
        finally:
            supervisor.stop(process, wait=not has_answered)


@contextmanager
def prefect_api(meanwhile: Callable[[], Iterable[str]] = tuple) -> Iterator[None]:
    """Make an API available; modules that ``meanwhile`` lists are imported while a temporary server starts.

    It is the user's where one is configured, else that of ``gradmill up`` on these artifacts, else a temporary one.

    Raises:
        EnvironmentProblem: the API does not answer, or the temporary server does not start.
        UsageError: a setting of Prefect's cannot be used.
    """
    with ExitStack() as entered:
        gc.disable()  # what is imported stays: to look through it time and again takes longer than to let it be
        entered.callback(gc.enable)
        key, server, ahead = new_credential(), None, entered.enter_context(ExitStack())
        if not os.environ.get("PREFECT_API_URL") and not artifact_paths.service().exists():
            server = ahead.enter_context(temporary_server(key))  # beside Prefect's own import
        environment.require_prefect()
        from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY

        found = entered.enter_context(use_service())
        if PREFECT_API_URL.value():
            from flows.server.api import explain_faults

            ahead.close()  # if it was for nothing: a profile names another
            try:
                _require_answer()
            except EnvironmentProblem as error:
                if found is None:
                    raise
                problem = (error.found, "an answer of gradmill up's server", WHAT_TO_DO)
                raise EnvironmentProblem(*problem) from error
            entered.enter_context(explain_faults())
        else:
            api_url, wait = server or entered.enter_context(temporary_server(key))
            # Joining the heartbeat's thread costs a second at the end, and nobody watches this server for heartbeats.
            entered.enter_context(use_api(api_url, key, {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
            for module in meanwhile():
                importlib.import_module(module)
            wait()
            entered.callback(_is_temporary.reset, _is_temporary.set(True))
        entered.callback(send_what_is_queued)
        gc.enable()
        yield


def is_temporary() -> bool:
    """Whether the API is a temporary server's, whose pages nobody sees."""
    return _is_temporary.get()


def announce(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model ``name`` to the configured server or that of ``gradmill up``; say if it cannot be.

    Its page there is written anew. An event may get lost: the pointer is the truth, so nothing that goes wrong here is
    a fault of the command.
    """
    with report_failure(f"note: the change is made, but its event {event} was not sent (", f"): {ONLY_LISTENERS}"):
        environment.hush_prefect()
        environment.require_prefect()
        with use_service():
            from prefect.settings import PREFECT_API_URL

            from tasks.stage import live_progress

            if not PREFECT_API_URL.value():
                raise EnvironmentProblem("no Prefect server is running", "one that stays", TO_HAVE_ONE)
            _require_answer(TELLING_SECONDS)  # to send without would be tried for long, and in silence
            live_progress.emit_model_event(event, name, payload)
            send_what_is_queued()
            from flows.server import overviews  # after the event: it imports more

            overviews.publish(name)


@contextmanager
def report_failure(before: str, after: str = "") -> Iterator[None]:
    """Say on stderr what goes wrong in the block, between these words: it is no fault of the command."""
    try:
        yield
    except Exception as error:
        reason = error.found if isinstance(error, GradmillError) else f"{type(error).__name__}: {error}"
        print(f"{before}{without_credentials(' '.join(reason.split()))}{after}", file=sys.stderr)


def send_what_is_queued() -> None:
    """Let Prefect's background threads deliver logs and events while there is a server to take them."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    workers = APILogWorker, EventsWorker
    for worker in workers:  # before any is drained, since that of one may drain the other
        logging.getLogger(worker.__name__).setLevel(logging.ERROR)  # it would print how many items it still has
    for worker in workers:
        worker.drain_all(timeout=DRAIN_SECONDS)


def _require_answer(seconds: float | None = None) -> None:
    """See that the API works before a run relies on it; how long a run then waits for it is Prefect's matter."""
    from flows.server import api

    with api.client(seconds) as client:
        client.read_work_pools(limit=1)  # needs the database, as a run does
