"""What our Prefect servers let in.

Prefect's own ``server start`` answers whatever name it is called by (a foreign one that resolves to this machine is how
a web page gets past a browser's rules), and opens its websockets to every page.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Pages load from this server alone: those of V2 ask their analytics' host for settings, whatever analytics are set to.
OURS_ALONE = (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:")
OUR_NAMES = {"127.0.0.1", "localhost"}


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
