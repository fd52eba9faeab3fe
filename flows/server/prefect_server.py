"""A Prefect server of ours: ``python -m flows.server.prefect_server HOST:PORT``, or the number of a listening socket.

Imports little: commands start a server before they import anything that takes long.
"""

import gc
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from flows.server import supervisor
from tasks.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
OURS_ALONE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
# The page of V1 that asks for the password advertises Prefect Cloud unless the browser remembers that it should not:
# what the server is set to, PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT, it asks only for those who have signed in.
NO_ADVERTISEMENT = b"<script>localStorage.setItem('prefect-show-promotional-content', 'false')</script>"
OUR_NAMES = ("127.0.0.1", "localhost")


def start(
    listener: socket.socket, key: str | None, environment: Mapping[str, str], log: IO[bytes], cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """A server that ends with this process, on a socket that listens already; it asks for ``key``, if given."""
    own = {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address(listener)}
    secret = {"PREFECT_SERVER_API_AUTH_STRING": key} if key else {}
    command = [sys.executable, "-m", "flows.server.prefect_server", str(listener.fileno())]
    return supervisor.start(command, own | dict(environment) | secret, log, cwd, [listener.fileno()])


def listen(port: int) -> socket.socket:
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


def guard(
    app: "ASGIApp", origins: Collection[str] = (), policy: str = OURS_ALONE, script: bytes = NO_ADVERTISEMENT
) -> "ASGIApp":
    """Reject requests whose Host is not the server's own (400) or whose Origin is foreign (403).

    Prefect's own ``server start`` answers whatever name it is called by (a foreign one that resolves to this machine is
    how a web page gets past a browser's rules), and opens its websockets to every page.

    The port is not looked at: it may be another one at the near end of a tunnel. Pages of HTML that have no policy of
    their own get a script that keeps advertisements away.

    Args:
        app: the server.
        origins: further pages, as ``https://models.example``, whose hosts are names of the server, too; ``*`` are all.
        policy: what its pages may load.
        script: what is added to pages of HTML.
    """
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse

    async def own_pages(scope: "Scope", receive: "Receive", send: "Send") -> None:
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else {}
        allowed = {None, f"http://{headers.get('host')}", *origins}
        is_foreign = headers.get("origin") not in allowed and "*" not in origins
        answer = PlainTextResponse("pages of other origins are not let in", 403) if is_foreign else app

        is_page = False
        if "text/html" in headers.get("accept", ""):  # a page is sent as it is, so that something can be added
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0] != b"accept-encoding"]}

        async def send_ours(message: "Message") -> None:
            nonlocal is_page
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                is_ours = "content-security-policy" in sent
                sent.setdefault("content-security-policy", policy)
                is_html = sent.get("content-type", "").startswith("text/html") and "content-encoding" not in sent
                is_page = is_html and message["status"] == 200 and scope["method"] == "GET" and not is_ours
                if is_page and "content-length" in sent:
                    sent["content-length"] = str(int(sent["content-length"]) + len(script))
            elif is_page and not message.get("more_body"):
                message["body"] = message.get("body", b"") + script
            await send(message)

        await answer(scope, receive, send_ours)

    names = [*OUR_NAMES, *(name for origin in origins if (name := urlsplit(origin).hostname))]
    return TrustedHostMiddleware(own_pages, names, www_redirect=False)


def main(where: str) -> None:
    """Serve API, UI and background services until SIGTERM."""
    host, _, port = where.rpartition(":")
    listener = socket.create_server((host, int(port))) if host else socket.socket(fileno=int(port))
    if host:
        print(f"serving on {address(listener)}", flush=True)
    os.environ |= ENVIRONMENT | os.environ
    gc.disable()  # what is imported stays: to look through it time and again took a fifth of the start
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
    gc.set_threshold(50_000)  # new objects, as in commands: the looks took a tenth of each request
    gc.enable()
    server = uvicorn.Server(config)
    server.run([listener])
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
