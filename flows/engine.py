"""A Prefect API to run on: the user's where one is configured, else a temporary server."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from flows.temporary_server import TemporaryServer
from tasks.errors import EnvironmentProblem

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

    configured = PREFECT_API_URL.value()
    if configured:
        _require_answer(configured)
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


def _require_answer(api_url: str) -> None:
    from prefect.client.orchestration import get_client

    try:
        httpx.get(f"{api_url.rstrip('/')}/health", timeout=10).raise_for_status()
        with get_client(sync_client=True) as client:
            client.request("GET", "/admin/version")  # unlike /health, it asks for credentials
    except httpx.HTTPError as error:
        response = getattr(error, "response", None)
        if response is not None and response.status_code == httpx.codes.UNAUTHORIZED:
            raise EnvironmentProblem(
                f"the Prefect API at {api_url} wants credentials",
                "user:password in PREFECT_API_AUTH_STRING",
                "set it, or unset PREFECT_API_URL to use a temporary server",
            ) from error
        raise EnvironmentProblem(
            f"the Prefect API at {api_url} does not answer: {str(error) or type(error).__name__}",
            "a running Prefect server, since PREFECT_API_URL (or your Prefect profile) names it",
            "start it, or unset PREFECT_API_URL to use a temporary server",
        ) from error
