"""What our Prefect servers let in.

Prefect's own ``server start`` answers whatever name it is called by (a foreign one that resolves to this machine is how
a web page gets past a browser's rules), and opens its websockets to every page.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Pages load from this server alone: those of V2 ask their analytics' host for settings, whatever analytics are set to.
OURS_ALONE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
# The page of V1 that asks for the password advertises Prefect Cloud unless the browser remembers that it should not:
# what the server is set to, PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT, it asks only for those who have signed in.
NO_ADVERTISEMENT = b"<script>localStorage.setItem('prefect-show-promotional-content', 'false')</script>"
OUR_NAMES = ("127.0.0.1", "localhost")


def guard(app: ASGIApp, origins: Collection[str] = ()) -> ASGIApp:
    """Let only those in that call the server by its own name (else 400), and of web pages only its own (else 403).

    The port is not looked at: it may be another one at the near end of a tunnel. Pages of HTML get a script that keeps
    advertisements away.

    Args:
        app: the server.
        origins: further pages, as ``https://models.example``, whose hosts are names of the server, too; ``*`` are all.
    """

    async def own_pages(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else {}
        allowed = {None, f"http://{headers.get('host')}", *origins}
        is_foreign = headers.get("origin") not in allowed and "*" not in origins
        answer = PlainTextResponse("pages of other origins are not let in", 403) if is_foreign else app

        is_page = False
        if "text/html" in headers.get("accept", ""):  # a page is sent as it is, so that something can be added
            scope = {**scope, "headers": [each for each in scope["headers"] if each[0] != b"accept-encoding"]}

        async def send_ours(message: Message) -> None:
            nonlocal is_page
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                sent["content-security-policy"] = OURS_ALONE
                is_html = sent.get("content-type", "").startswith("text/html") and "content-encoding" not in sent
                is_page = is_html and message["status"] == 200 and scope["method"] == "GET"
                if is_page and "content-length" in sent:
                    sent["content-length"] = str(int(sent["content-length"]) + len(NO_ADVERTISEMENT))
            elif is_page and not message.get("more_body"):
                message["body"] = message.get("body", b"") + NO_ADVERTISEMENT
            await send(message)

        await answer(scope, receive, send_ours)

    names = [*OUR_NAMES, *(name for origin in origins if (name := urlsplit(origin).hostname))]
    return TrustedHostMiddleware(own_pages, names, www_redirect=False)
