"""The connection to a Prefect API: the user's, that of gradmill up, or a temporary server's; and what is told to it."""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

from flows.server import service, temporary
from flows.server.temporary import TemporaryServer
from tasks.errors import EnvironmentProblem, GradmillError, without_credentials
from tasks.store import artifact_paths

DRAIN_SECONDS = 5.0
TELLING_SECONDS = 5.0
TO_HAVE_ONE = "run gradmill up, or set PREFECT_API_URL"
ONLY_LISTENERS = "only automations and services that wait for events miss it"
FlowCall = TypeVar("FlowCall", bound=Callable[[Any], Any])

_is_temporary = ContextVar("_is_temporary", default=False)
_begun: ContextVar[TemporaryServer | None] = ContextVar("_begun", default=None)


@contextmanager
def ahead() -> Iterator[None]:
    """Let a temporary server start beside the imports of the block, if ``prefect_api`` in it will want one.

    Whether it will is only guessed, since Prefect's own settings take as long to import as half a server.
    """
    with ExitStack() as entered:
        with suppress(OSError, RuntimeError, EnvironmentProblem):  # prefect_api meets it again, and says so
            if _no_api_is_named():
                server = TemporaryServer(service.new_credential(), within=-1)
                entered.callback(server.leave)
                entered.callback(_begun.reset, _begun.set(server))
        yield


def _no_api_is_named() -> bool:
    if os.environ.get("PREFECT_API_URL") or artifact_paths.service().exists():
        return False
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or temporary.prefect_home() / "profiles.toml")
    return not profiles.is_file() or "PREFECT_API_URL" not in profiles.read_text(errors="replace")


@contextmanager
def prefect_api(*preload: str) -> Iterator[None]:
    """Make an API available; modules of ``preload`` are imported in their order while a temporary server starts.

    It is the user's where one is configured, else that of ``gradmill up`` on these artifacts, else a temporary one.

    Raises:
        EnvironmentProblem: the API does not answer, or the temporary server does not start.
    """
    from prefect.settings import PREFECT_API_URL

    with service.in_use() as found, ExitStack() as entered:
        if PREFECT_API_URL.value():
            from flows.server.api import explained

            if begun := _begun.get():  # of no use, after all
                begun.leave()
            try:
                _require_answer()
            except EnvironmentProblem as error:
                if found is None:
                    raise
                raise EnvironmentProblem(
                    error.found, "an answer of gradmill up's server", service.WHAT_TO_DO
                ) from error
            entered.enter_context(explained())
        else:
            entered.enter_context(_temporary_api(*preload))
        try:
            yield
        finally:
            send_what_is_queued()


@contextmanager
def _temporary_api(*preload: str) -> Iterator[None]:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_HOME

    from flows.cli import display

    if display.is_in_lines():
        print(f"events     reach nobody from a run's own temporary Prefect server: {TO_HAVE_ONE}", file=sys.stderr)
    server = _begun.get() or TemporaryServer(service.new_credential(), home=PREFECT_HOME.value())
    # Joining the heartbeat's thread costs a second at the end, and nobody watches this server for heartbeats.
    unwatched = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    try:
        with service.reached(server.api_url, server.credential, unwatched):  # a tenth of a second, before the wait
            for module in preload:
                if not server.is_up():
                    importlib.import_module(module)
            server.wait()
            mark = _is_temporary.set(True)
            try:
                yield
            finally:
                _is_temporary.reset(mark)
    finally:
        if server.has_answered:
            server.leave()
        else:
            server.stop()  # it may be migrating a database that the next command's server would migrate, too


def is_temporary() -> bool:
    """Whether the API is a temporary server's, whose pages nobody sees."""
    return _is_temporary.get()


def announce(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model ``name`` to the configured server or that of ``gradmill up``; say if it cannot be.

    Its page there is written anew. An event may get lost: the pointer is the truth, so nothing that goes wrong here is
    a fault of the command.
    """
    from flows.cli import display

    try:
        with display.compact(verbose=False, stages=False), service.in_use():
            from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings

            from tasks.stage import live

            if not PREFECT_API_URL.value():
                raise EnvironmentProblem("no Prefect server is running", "one that stays", TO_HAVE_ONE)
            with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: TELLING_SECONDS}):
                _require_answer()  # to send without would be tried for long, and in silence
            live.emit_model_event(event, name, payload)
            send_what_is_queued()
            from flows.server import overviews  # after the event: it imports more

            overviews.publish(name)
    except Exception as error:
        reason = error.found if isinstance(error, GradmillError) else f"{type(error).__name__}: {error}"
        why = without_credentials(" ".join(reason.split()))
        print(
            f"note: the change is made, but its event {event} was not sent ({why}): {ONLY_LISTENERS}", file=sys.stderr
        )


def encoding(flow: FlowCall) -> FlowCall:
    """The flow, its parameters told to the API as pydantic encodes them.

    So does Prefect, but through FastAPI, whose import takes 0.15 s and which nothing else in a run needs.
    """
    vars(flow)["serialize_parameters"] = to_jsonable_python
    return flow


def send_what_is_queued() -> None:
    """Let Prefect's background threads deliver logs and events while there is a server to take them."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    workers = APILogWorker, EventsWorker
    for worker in workers:  # before any is drained, since that of one may drain the other
        logging.getLogger(worker.__name__).setLevel(logging.ERROR)  # it would print how many items it still has
    for worker in workers:
        worker.drain_all(timeout=DRAIN_SECONDS)


def _require_answer() -> None:
    """See that the API works before a run relies on it; how long a run then waits for it is Prefect's matter."""
    from flows.server import api

    with api.client() as client:
        client.read_work_pools(limit=1)  # needs the database, as a run does
