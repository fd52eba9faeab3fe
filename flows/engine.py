"""A Prefect API to run on: the user's where one is configured, else a temporary server."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from flows.temporary_server import TemporaryServer

UP_API_URL = "http://127.0.0.1:4200/api"  # of ``gradmill up``, unless it was given another port
DRAIN_SECONDS = 5.0


@contextmanager
def prefect_api(*preload: str) -> Iterator[None]:
    """Make an API available; the modules ``preload`` are imported while a temporary server starts.

    Raises:
        EnvironmentProblem: the configured API does not answer, or the temporary server does not start.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    if PREFECT_API_URL.value():
        from flows.api import explained

        _require_answer()
        with explained():
            yield
        return
    server = TemporaryServer()
    try:
        for module in preload:
            importlib.import_module(module)
        # Joining the heartbeat's thread costs a second at the end, and nobody watches this server for heartbeats.
        with temporary_settings({PREFECT_API_URL: server.wait(), PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            try:
                yield
            finally:
                send_what_is_queued()
    finally:
        server.stop()


def send_what_is_queued() -> None:
    """Let Prefect's background threads deliver logs and events while there is a server to take them."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=DRAIN_SECONDS)
    EventsWorker.drain_all(timeout=DRAIN_SECONDS)


def _require_answer() -> None:
    """See that the API works before a run relies on it; how long a run then waits for it is Prefect's matter."""
    from flows import api

    with api.client() as client:
        client.read_work_pools(limit=1)  # needs the database, as a run does
