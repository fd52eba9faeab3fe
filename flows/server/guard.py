"""What our Prefect servers let in.

Prefect's own ``server start`` answers whatever name it is called by (a foreign one that resolves to this machine is how
a web page gets past a browser's rules), and opens its websockets to every page.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Pages load from this server alone: those of V2 ask their analytics' host for settings, whatever analytics are set to.
OURS_ALONE = (b"content-security-policy", b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:")
OUR_NAMES = ("127.0.0.1", "localhost")


def guard(app: ASGIApp, origins: Collection[str] = ()) -> ASGIApp:
    """Let only those in that call the server by its own name (else 400), and of web pages only its own (else 403).

    The port is not looked at: it may be another one at the near end of a tunnel.

    Args:
        app: the server.
        origins: further pages, as ``https://models.example``, whose hosts are names of the server, too; ``*`` are all.
    """

    async def own_pages(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else {}
        allowed = {None, f"http://{headers.get('host')}", *origins}
        is_foreign = headers.get("origin") not in allowed and "*" not in origins
        answer = PlainTextResponse("pages of other origins are not let in", 403) if is_foreign else app

        async def send_ours(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), OURS_ALONE]
            await send(message)

        await answer(scope, receive, send_ours)

    names = [*OUR_NAMES, *(name for origin in origins if (name := urlsplit(origin).hostname))]
    return TrustedHostMiddleware(own_pages, names, www_redirect=False)
