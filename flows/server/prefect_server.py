"""A Prefect server of ours: ``python -m flows.server.prefect_server HOST:PORT``, or the number of a listening socket.

Imports little: commands start a server before they import anything that takes long.
"""

import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from flows.server import supervisor
from tasks.errors import UsageError

START_SECONDS = 180.0  # a first start migrates the database: over a minute on a slow disk
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # its service is what meets "database is locked" at a first start
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # the addresses that runs, alerts and we give lead to the pages of V1
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # Without these, SQLite answers 503 in bursts and the client waits for seconds. (The recorder's FLUSH_INTERVAL would
    # help too, but below 1 it makes Prefect 3.9.1 spin on a whole core.)
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
}


def start(
    listener: socket.socket, key: str | None, environment: Mapping[str, str], log: IO[bytes], cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """A server that ends with this process, on a socket that listens already; it asks for ``key``, if given."""
    own = {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address(listener)}
    secret = {"PREFECT_SERVER_API_AUTH_STRING": key} if key else {}
    command = [sys.executable, "-m", "flows.server.prefect_server", str(listener.fileno())]
    return supervisor.start(command, own | dict(environment) | secret, log, cwd, [listener.fileno()])


def listening(port: int) -> socket.socket:
    """The server's socket. It is ours: between two servers nobody else can answer there, callers wait.

    Raises:
        UsageError: the port is taken.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise UsageError(
            f"port {port} of 127.0.0.1 is taken",
            "a free port for the Prefect server",
            "choose another with --port, or set PREFECT_API_URL to join a server that runs already",
        ) from error


def address(listener: socket.socket) -> str:
    """Where a server on this socket is called."""
    return "http://{}:{}".format(*listener.getsockname())


def wait_for_answer(api_url: str, ended: Callable[[], bool], until: float) -> bool:
    """Whether a server that is starting answers before it has ended, and before the monotonic clock says ``until``."""
    import httpx

    while not ended() and (left := until - time.monotonic()) > 0:
        with suppress(httpx.TransportError):
            if httpx.get(f"{api_url}/health", timeout=min(5, left), trust_env=False).status_code == httpx.codes.OK:
                return True
        time.sleep(0.1)
    return False


def main(where: str) -> None:
    """Serve API, UI and background services until SIGTERM."""
    host, _, port = where.rpartition(":")
    listener = socket.create_server((host, int(port))) if host else socket.socket(fileno=int(port))
    if host:
        print(f"serving on {address(listener)}", flush=True)
    os.environ |= ENVIRONMENT | os.environ
    gc.disable()  # a sixth of the start went by in looks for garbage among what has just been imported
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    from flows.server.guard import guard

    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000)  # new objects, as in commands: the looks took a tenth of each request
    settings = get_current_settings().server
    config = uvicorn.Config(
        guard(create_app(final=True), settings.api.cors_allowed_origins.split(",")),
        log_level=settings.logging_level.lower(),
        lifespan="on",
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
    )
    server = uvicorn.Server(config)
    server.run([listener])
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
