"""A Prefect server of ours: ``python -m flows.server.guarded DESCRIPTOR``, whose socket listens already.

Prefect's own ``server start`` answers whatever name it is called by (a foreign one that resolves to this machine is how
a web page gets past a browser's rules), and opens its websockets to every page.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.server import tethered

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
# Pages load from this server alone: those of V2 ask their analytics' host for settings, whatever analytics are set to.
OURS_ALONE = (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:")
OUR_NAMES = {"127.0.0.1", "localhost"}


def start(
    listener: socket.socket, key: str | None, environment: Mapping[str, str], log: IO[bytes], cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """A server that ends with this process, on a socket that listens already; it asks for ``key``, if given."""
    own = {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address(listener)}
    secret = {"PREFECT_SERVER_API_AUTH_STRING": key} if key else {}
    command = [sys.executable, "-m", "flows.server.guarded", str(listener.fileno())]
    return tethered.start(command, own | dict(environment) | secret, log, cwd, [listener.fileno()])


def address(listener: socket.socket) -> str:
    """Where a server on this socket is called."""
    return "http://{}:{}".format(*listener.getsockname())


def answers(api_url: str, ended: Callable[[], bool], until: float) -> bool:
    """Whether a server that is starting answers before it has ended, and before the monotonic clock says ``until``."""
    while not ended() and (left := until - time.monotonic()) > 0:
        with suppress(httpx.TransportError):
            if httpx.get(f"{api_url}/health", timeout=min(5, left), trust_env=False).status_code == httpx.codes.OK:
                return True
        time.sleep(0.1)
    return False


class Guard:
    """Lets only those in that call the server by its own name, and of web pages only its own.

    The port is not looked at: it may be another one at the near end of a tunnel.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str] = ()) -> None:
        self._app, self._origins = app, origins
        self._names = OUR_NAMES | {name for origin in origins if (name := urlsplit(origin).hostname)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it with 400 or 403."""
        fault = self._fault(Headers(scope=scope)) if scope["type"] in ("http", "websocket") else None
        app = self._app if fault is None else PlainTextResponse(fault[1], fault[0])

        async def send_ours(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), OURS_ALONE]
            await send(message)

        await app(scope, receive, send_ours)

    def _fault(self, headers: Headers) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if _name(host) not in self._names:
            return 400, "this server is not known by that name"
        if origin in (None, f"http://{host}") or origin in self._origins or "*" in self._origins:
            return None
        return 403, "pages of other origins are not let in"


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # no name at all
        return None


def main(descriptor: int) -> None:
    """Serve API, UI and background services until SIGTERM."""
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    config = uvicorn.Config(
        Guard(create_app(final=True), settings.api.cors_allowed_origins.split(",")),
        log_level=settings.logging_level.lower(),
        lifespan="on",
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
    )
    server = uvicorn.Server(config)
    server.run([socket.socket(fileno=descriptor)])
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
