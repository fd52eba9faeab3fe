"""The connection to a Prefect API: the user's, gradmill up's, or a temporary server's; and the events sent to it."""

import fcntl
import gc
import importlib.metadata
import logging
import os
import secrets
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from flows.server import environment, prefect_server, supervisor
from flows.server.environment import LOOPBACK
from tasks.errors import DataError, EnvironmentProblem, GradmillError, without_credentials
from tasks.store import artifact_paths, atomic, locks
from tasks.store.documents import Document

USER = "gradmill"
STARTING_SECONDS = 60.0  # a worker takes a few, and on a loaded machine many more
WHAT_TO_DO = "see server.log in artifacts/.prefect/, and whether PREFECT_API_AUTH_STRING is as gradmill up has it"
DRAIN_SECONDS = 5.0
TELLING_SECONDS = 5.0
SAID_AFTER_SECONDS = 3.0
WAIT_SECONDS = 30.0  # for a command that uses the server's database for seconds
NO_SERVER = ("a running server", "run gradmill up, name its folder with --artifacts, or set PREFECT_API_URL")
TO_HAVE_ONE = "run gradmill up, or set PREFECT_API_URL"
ONLY_LISTENERS = "only automations and services that wait for events miss it"
EPHEMERAL = {
    "PREFECT__SERVER_EPHEMERAL": "1",  # without the UI and most services
    # Our runs use no blocks; registering them would import every installed collection.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}
DATABASE_VARIABLES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")  # one setting
TEMPORARY = prefect_server.ENVIRONMENT | EPHEMERAL
SERVER_ENVIRONMENT = prefect_server.ENVIRONMENT | {
    "PREFECT_SERVER_UI_API_URL": "/api",  # independent of the port
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # flow runs include their logs and artifacts
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 24 * 3600),  # seconds
    # SQLite answers 503 while it writes: a due run retries for minutes instead of crashing after one.
    "PREFECT_CLIENT_MAX_RETRIES": "10",
}

Need = Literal["nothing", "server", "database"]


# The service of an artifacts folder: the address of its ``gradmill up``, and the required credential


class Service(Document):
    """The document that ``gradmill up`` writes for other commands and removes at its end; a lock shows whether it runs.

    Nobody else can answer at the address of its own server: ``up`` itself holds the socket, even while it restarts.
    """

    schema_version: int = 1
    api_url: str
    host: str | None = None  # the host, if the address would mean another machine elsewhere
    joined: bool = False  # the server is not ``up``'s own
    own_credential: bool = False  # the server requires the one in ``artifact_paths.credential()``


def make_service(api_url: str, **more: bool) -> Service:
    """The service at ``api_url``, as seen from this machine."""
    host = socket.gethostname() if urlsplit(api_url).hostname in LOOPBACK else None
    return Service(api_url=api_url.rstrip("/"), host=host, **more)


def find_credential() -> tuple[str, bool]:
    """The credential of these artifacts' server, as ``user:password``, and whether it was just created.

    It stays the same from one ``up`` to the next, so that browsers stay signed in; one that others could have read is
    replaced.
    """
    path = artifact_paths.credential()
    if path.is_file() and not path.stat().st_mode & 0o077 and ":" in (known := path.read_text().strip()):
        return known, False
    made = new_credential()
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:  # created with mode 0600
        file.write(made + "\n")
    Path(file.name).replace(path)
    return made, True


def new_credential() -> str:
    """A new credential, as ``user:password``, with a random password."""
    return f"{USER}:{secrets.token_hex(24)}"


def find_service(quietly: bool = False) -> Service | None:
    """The service that is running on these artifacts; prints why an address that was found is not usable.

    With ``quietly`` it prints nothing, because the user has configured another API.

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
            reason = f"gradmill up is running on {found.host}, not on this machine"
        else:
            reason = f"the address in {path} is that of a gradmill up that was killed"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        reason = f"{error.filename} is another user's"
    if not quietly:
        print(f"{reason}; going on without it", file=sys.stderr)
    return None


def _is_of_the_dead() -> bool:
    """Whether nobody holds the lock; the address, which nobody can have rewritten meanwhile, is then removed."""
    with artifact_paths.up_lock().open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two processes may check at once
        except BlockingIOError:
            return False
        with suppress(OSError):
            artifact_paths.service().unlink()
    return True


def find_configured_service() -> Service | None:
    """The running service of these artifacts, if Prefect's settings point to it."""
    from prefect.settings import PREFECT_API_URL

    with suppress(DataError):
        service = find_service(quietly=True)
        if service and service.api_url == (PREFECT_API_URL.value() or "").rstrip("/"):
            return service
    return None


def is_starting() -> bool:
    """Whether the service started so recently that its worker may not have registered yet."""
    if find_configured_service() is None:
        return False
    with suppress(OSError):
        return time.time() - artifact_paths.service().stat().st_mtime < STARTING_SECONDS
    return False


@contextmanager
def connect(need: Need = "nothing") -> Iterator[bool]:
    """Point Prefect's settings to an API for the block; yield whether its server outlasts the block.

    The API is the user's, if one is configured, or that of ``gradmill up`` on these artifacts. Without either,
    ``database`` starts the server of ``up`` for the block, and ``nothing`` leaves the settings without an API.

    Raises:
        EnvironmentProblem: there is no server, or it does not start.
        DataError: the address or the credential of ``gradmill up`` cannot be read.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    configured = (PREFECT_API_URL.value() or "").rstrip("/")
    found = None if configured and PREFECT_API_AUTH_STRING.value() else find_service(quietly=bool(configured))
    with ExitStack() as entered:
        if found and configured in ("", found.api_url):
            entered.enter_context(use_api(found.api_url, _find_credential_to_send(found)))
        is_lasting = bool(PREFECT_API_URL.value())
        if not is_lasting and need == "database":
            entered.enter_context(_own_server())
        elif not is_lasting and need == "server":
            if locks.is_held(artifact_paths.up_lock()):
                raise _busy()
            found_none = f"no gradmill up is running in {artifact_paths.root()}, and PREFECT_API_URL is not set"
            raise EnvironmentProblem(found_none, *NO_SERVER)
        yield is_lasting


def _busy() -> EnvironmentProblem:
    found = f"the gradmill up of {artifact_paths.root()} is starting, or ending"
    return EnvironmentProblem(found, "a running server", "try again when it has printed the address of its UI")


# The server of ``gradmill up``, which one process at a time may run


def has_database() -> bool:
    """Whether a server of ``gradmill up`` may ever have run on these artifacts."""
    return artifact_paths.database().exists() or _environment_names_database()


def _environment_names_database() -> bool:
    return any(os.environ.get(variable) for variable in DATABASE_VARIABLES)


def _make_prefect_home() -> Path:
    artifact_paths.make_root()
    home = artifact_paths.prefect_home()
    home.mkdir(exist_ok=True)
    home.chmod(0o700)  # saved blocks and the credential are secret
    return home


@contextmanager
def hold_up_lock() -> Iterator[None]:
    """Keep other servers off these artifacts: two on one SQLite file would both schedule runs.

    Raises:
        TimeoutError: another process has been running a server here for ``WAIT_SECONDS``.
    """
    _make_prefect_home()
    busy = "another command is using the server's database; waiting for it"
    with locks.hold_lock(artifact_paths.up_lock(), busy, SAID_AFTER_SECONDS, WAIT_SECONDS):
        artifact_paths.service().unlink(missing_ok=True)  # left by a killed process
        yield


def server_environment() -> dict[str, str]:
    """The environment of ``up``'s server and worker: their own Prefect folder below artifacts/, and settings."""
    from prefect.settings import get_current_settings

    profile = get_current_settings().to_environment_variables(exclude_unset=True, include_secrets=True)
    ours = {
        "PREFECT_HOME": str(artifact_paths.prefect_home()),
        "GRADMILL_ARTIFACTS": str(artifact_paths.make_root()),
    }
    return SERVER_ENVIRONMENT | dict(os.environ) | profile | ours


@contextmanager
def _own_server() -> Iterator[None]:
    """The server of ``up`` for one command: the same database, credential and settings, but no UI and no services.

    Raises:
        EnvironmentProblem: another process runs a server on these artifacts, or this one does not start.
    """
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

    with ExitStack() as entered:
        try:
            entered.enter_context(hold_up_lock())
        except TimeoutError as error:
            raise _busy() from error
        key = PREFECT_SERVER_API_AUTH_STRING.value() or find_credential()[0]
        log_path = artifact_paths.prefect_home() / "server.log"
        log = entered.enter_context(log_path.open("ab"))
        with prefect_server.listen(0) as listener:
            process = prefect_server.start(listener, key, server_environment() | EPHEMERAL, log)
            api_url = f"{prefect_server.address(listener)}/api"
        entered.callback(supervisor.stop, process)  # the lock is held until the database is closed
        prefect_server.require_answer(api_url, process, log_path)
        entered.enter_context(use_api(api_url, key))
        yield


def _find_credential_to_send(service: Service) -> str | None:
    """The credential to send: the one that ``up`` made, or the user's.

    Raises:
        DataError: the former was removed.
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
def use_api(api_url: str, key: str | None) -> Iterator[None]:
    """Point Prefect's settings to an API, with its credential if there is one.

    All settings are rebuilt, which takes a tenth of a second.
    """
    from prefect import settings

    known: dict[Any, Any] = {
        settings.PREFECT_API_URL: api_url,
        settings.PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True,
        settings.PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,  # we check once ourselves (api.py)
        # At its end a run waits up to a second for its heartbeat thread. For runs of commands ``up`` watches the lock
        # on their folder instead; runs of the worker have their own settings.
        settings.PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with settings.temporary_settings(known | ({settings.PREFECT_API_AUTH_STRING: key} if key else {})):
        yield


# The API of a run or a command


@contextmanager
def temporary_server(credential: str | None = None) -> Iterator[tuple[str, Callable[[], None]]]:
    """A Prefect server for one run, if the user has none; yields its API's address and a function that waits for it.

    It requires ``credential``, if given. A server that Prefect starts itself outlives a killed run; this one ends with
    the run, and so does its database, unless the environment names another. Nothing of Prefect is imported here, so
    that the server starts during that import.

    Raises:
        EnvironmentProblem: from the function: the server ended, or did not answer in time.
    """
    home = _make_prefect_home()
    log_path = home / "temporary-server.log"
    with _own_database(home) as (own, keep_if_new):
        with prefect_server.listen(0) as listener, log_path.open("wb") as log:
            process = prefect_server.start(listener, credential, TEMPORARY | own | dict(os.environ), log)
            api_url = f"{prefect_server.address(listener)}/api"
        has_answered = False

        def wait() -> None:
            nonlocal has_answered
            prefect_server.require_answer(api_url, process, log_path)
            has_answered = True
            keep_if_new()

        try:
            yield api_url, wait
        finally:
            supervisor.stop(process, wait=not has_answered)


@contextmanager
def _own_database(home: Path) -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """A SQLite file for one server: a copy of the empty database that the first one here migrated.

    Yields the settings that name it, and a function that keeps this one as the empty database, if there was none. If
    the environment names a database, there is no such file.
    """
    if _environment_names_database():
        yield {}, lambda: None
        return
    empty = home / f"empty-{importlib.metadata.version('prefect')}.db"
    for path in home.glob(".gradmill-*.partial-*"):  # SQLite's own, left beside the file of a killed server
        if not path.with_name(path.name.rpartition("-")[0]).exists():
            path.unlink(missing_ok=True)
    with atomic.temporary_in(home) as path:
        settings = {DATABASE_VARIABLES[0]: f"sqlite+aiosqlite:///{path}"}
        if is_migrated := empty.exists():
            shutil.copyfile(empty, path)
            settings["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"

        def keep_if_new() -> None:
            if not is_migrated:
                with atomic.replace_file(empty) as copy, closing(sqlite3.connect(path)) as source:
                    source.execute("VACUUM INTO ?", (str(copy),))

        yield settings, keep_if_new
        for path_of_log in home.glob(f"{path.name}-*"):
            path_of_log.unlink(missing_ok=True)


@contextmanager
def prefect_api(*modules: str) -> Iterator[bool]:
    """Provide an API, and yield whether its server stays; import ``modules`` while a temporary one starts.

    It is the user's if one is configured, else that of ``gradmill up`` on these artifacts, else a temporary one.

    Raises:
        EnvironmentProblem: the API does not answer, or the temporary server does not start.
        UsageError: a setting of Prefect's cannot be used.
    """
    with ExitStack() as entered:
        gc.disable()  # imported objects stay, so collecting among them again and again only costs time
        entered.callback(gc.enable)
        key, server, ahead = new_credential(), None, entered.enter_context(ExitStack())
        if not os.environ.get("PREFECT_API_URL") and not artifact_paths.service().exists():
            server = ahead.enter_context(temporary_server(key))  # during Prefect's own import
        environment.require_prefect()
        if is_lasting := entered.enter_context(connect()):
            from flows.server.api import explain_faults

            ahead.close()  # not needed if a profile names another
            try:
                _require_answer()
            except EnvironmentProblem as error:
                if find_configured_service() is None:
                    raise
                problem = (error.found, "an answer of gradmill up's server", WHAT_TO_DO)
                raise EnvironmentProblem(*problem) from error
            entered.enter_context(explain_faults())
        else:
            api_url, wait = server or entered.enter_context(temporary_server(key))
            entered.enter_context(use_api(api_url, key))
            for module in modules:
                importlib.import_module(module)
            wait()
        entered.callback(send_what_is_queued)
        gc.enable()
        yield is_lasting


def send_model_event(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model ``name`` to the configured server or that of ``gradmill up``; report a failure.

    An event may get lost: the pointer is the truth, so no failure here is an error of the
    command.
    """
    with report_failure(f"note: the change is made, but its event {event} was not sent (", f"): {ONLY_LISTENERS}"):
        environment.hush_prefect()
        environment.require_prefect()
        with connect() as is_there:
            from tasks.stage import live_progress

            if not is_there:
                raise EnvironmentProblem("no Prefect server is running", "one that stays", TO_HAVE_ONE)
            _require_answer(TELLING_SECONDS)  # sending without an answer would be retried silently for a long time
            live_progress.emit_model_event(event, name, payload)
            send_what_is_queued()


@contextmanager
def report_failure(before: str, after: str = "") -> Iterator[None]:
    """Report on stderr what fails in the block, between these words: it is not an error of the command."""
    try:
        yield
    except Exception as error:
        reason = error.found if isinstance(error, GradmillError) else f"{type(error).__name__}: {error}"
        print(f"{before}{without_credentials(' '.join(reason.split()))}{after}", file=sys.stderr)


def send_what_is_queued() -> None:
    """Let Prefect's background threads deliver logs and events while a server can take them."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    workers = APILogWorker, EventsWorker
    for worker in workers:  # before any is drained, since draining one may drain the other
        logging.getLogger(worker.__name__).setLevel(logging.ERROR)  # it would print how many items it still has
    for worker in workers:
        worker.drain_all(timeout=DRAIN_SECONDS)


def _require_answer(seconds: float | None = None) -> None:
    """Check that the API works before a run relies on it; later waits are left to Prefect."""
    from flows.server import api

    with api.client(seconds) as client:
        client.read_work_pools(limit=1)  # requires the database, as a run does
