"""Our Prefect server: ``python -m flows.server.prefect_server`` with HOST:PORT or the number of a listening socket.

It imports little, because commands start a server before their own slow imports.
"""

import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from flows.server import supervisor
from tasks.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

START_SECONDS = 180.0  # a first start migrates the database, which takes over a minute on a slow disk
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # its service causes "database is locked" at a first start
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # links of runs, alerts and Gradmill lead to the pages of V1
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # Without these, SQLite answers 503 in bursts and the client waits for seconds. (The recorder's FLUSH_INTERVAL would
    # help too, but below 1 it makes Prefect 3.9.1 use a whole core.)
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
}


# Pages load only from this server: those of V2 fetch settings from an analytics host even if analytics are off.
OURS_ALONE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
OUR_NAMES = ("127.0.0.1", "localhost")


def start(
    listener: socket.socket, key: str | None, environment: Mapping[str, str], log: IO[bytes], cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start a server on a listening socket; it ends with this process, and requires ``key``, if given."""
    own = {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address(listener)}
    secret = {"PREFECT_SERVER_API_AUTH_STRING": key} if key else {}
    command = [sys.executable, "-m", "flows.server.prefect_server", str(listener.fileno())]
    return supervisor.start(command, own | dict(environment) | secret, log, cwd, [listener.fileno()])


def listen(port: int, alternative: str = "") -> socket.socket:
    """Open a server's socket. It stays ours: while the server restarts, callers wait and nobody else can answer.

    ``alternative`` completes what to do if the port is taken.

    Raises:
        UsageError: the port is taken.
    """
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        found = f"port {port} of 127.0.0.1 is taken"
        raise UsageError(found, "a free port", f"choose another with --port{alternative}") from error


def address(listener: socket.socket) -> str:
    """The address of a server on this socket."""
    return "http://{}:{}".format(*listener.getsockname())


def require_answer(api_url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a starting server answers.

    Raises:
        EnvironmentProblem: it has ended, or does not answer within ``START_SECONDS``; ``log`` says why.
    """
    import httpx

    until = time.monotonic() + START_SECONDS
    while process.poll() is None and (left := until - time.monotonic()) > 0:
        with suppress(httpx.TransportError):
            if httpx.get(f"{api_url}/health", timeout=min(5, left), trust_env=False).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    to_do = f"see {log}, or set PREFECT_API_URL to a running server"
    raise EnvironmentProblem(f"no Prefect server answers at {api_url}", "an answer to /health", to_do)


def guard(app: "ASGIApp", origins: Collection[str] = (), policy: str = OURS_ALONE) -> "ASGIApp":
    """Reject requests whose Host is not the server's own (400) or whose Origin is foreign (403).

    Prefect's own ``server start`` answers to any host name (with a foreign one that resolves to this machine a web page
    evades the browser's rules), and opens its websockets to every page.

    The port is not checked: it may differ at the near end of a tunnel.

    Args:
        app: the server.
        origins: further pages, such as ``https://models.example``, whose hosts also name the server; ``*`` allows all.
        policy: what pages without a policy of their own may load.
    """
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse

    async def serve_own_pages(scope: "Scope", receive: "Receive", send: "Send") -> None:
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else {}
        allowed = {None, f"http://{headers.get('host')}", *origins}
        is_foreign = headers.get("origin") not in allowed and "*" not in origins
        answer = PlainTextResponse("pages of other origins are not let in", 403) if is_foreign else app

        async def send_with_policy(message: "Message") -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("content-security-policy", policy)
            await send(message)

        await answer(scope, receive, send_with_policy)

    names = [*OUR_NAMES, *(name for origin in origins if (name := urlsplit(origin).hostname))]
    return TrustedHostMiddleware(serve_own_pages, names, www_redirect=False)


def main(where: str) -> None:
    """Serve API, UI and background services until SIGTERM."""
    host, _, port = where.rpartition(":")
    listener = socket.create_server((host, int(port))) if host else socket.socket(fileno=int(port))
    if host:
        print(f"serving on {address(listener)}", flush=True)
    os.environ |= ENVIRONMENT | os.environ
    gc.disable()  # imported objects stay: collecting among them took a fifth of the start
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    from flows.server import session

    settings = get_current_settings().server
    key = settings.api.auth_string
    app = session.let_in(create_app(final=True), key.get_secret_value() if key else None)
    config = uvicorn.Config(
        guard(app, settings.api.cors_allowed_origins.split(",")),
        log_level=settings.logging_level.lower(),
        lifespan="on",
    )
    gc.freeze()
    gc.set_threshold(50_000)  # new objects, as in commands: collections took a tenth of each request
    gc.enable()
    server = uvicorn.Server(config)
    server.run([listener])
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
