"""How a browser signs in: by a link that works once or by the credential, and then by two keys.

Both keys are derived from the credential, which stays in the server's process. One is a cookie that no script can read;
the other is stored where Prefect's UI keeps its sign-in, readable only by scripts of this address. Prefect's API
requires both, because cookies ignore ports: a browser also sends them to other servers of this machine, and with
requests that pages of those servers make here. The cookie alone only shows our own pages, which change nothing.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse

from tasks.store import artifact_paths
from tasks.store.page_rendering import Code, Page, Section, render_html

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PLACE = "/gradmill"  # the path of our pages
TICKET = "ticket"  # the query parameter of a link
SIGN_IN = "sign-in"  # the query parameter that makes the browser ask for the credential
TICKET_SECONDS = 600
ONCE = "works once, within ten minutes"
COOKIE_SECONDS = 30 * 24 * 3600
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
# A redirecting page: a plain redirect would still count as following a foreign link, which sends no cookie. Prefect's
# sign-in page advertises Prefect Cloud unless the browser remembers not to; it asks for the server's setting too late.
WELCOME = """\
<!doctype html>
<html lang="en">
<title>Gradmill</title>
<meta http-equiv="refresh" content="0; url={place}">
<script>
localStorage.setItem("prefect-password", "{key}")
localStorage.setItem("prefect-show-promotional-content", "false")
</script>
<p>You are signed in. <a href="{place}">Go on</a>
"""


def make_link(ui: str, asks: bool = True) -> str:
    """The address of our pages on a server of ``gradmill up``, with a ticket if the server ``asks`` for one."""
    if not asks:
        return f"{ui}{PLACE}"
    folder = artifact_paths.tickets()
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # it has just been used
            if not _is_fresh(path.stat().st_mtime):
                path.unlink()
    ticket = secrets.token_hex(16)
    (folder / _digest(ticket)).touch(mode=0o600)
    return f"{ui}{PLACE}?{TICKET}={ticket}"


def use_ticket(ticket: str) -> bool:
    """Whether a ticket is valid, which it is once: of concurrent requests only one removes its file."""
    path = artifact_paths.tickets() / _digest(ticket)
    try:
        created_at = path.stat().st_mtime
        path.unlink()
    except OSError:
        return False
    return _is_fresh(created_at)


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def _is_fresh(created_at: float) -> bool:
    return 0 <= time.time() - created_at < TICKET_SECONDS


def let_in(app: "ASGIApp", credential: str | None) -> "ASGIApp":
    """Add our pages to Prefect's ``app``, and let browsers with both keys use its API as if they had signed in.

    Without a ``credential`` everybody sees the pages.
    """
    known = (credential or "").encode()
    authorization = f"Basic {base64.b64encode(known).decode()}"
    cookie, stored = (hmac.digest(known, use, "sha256").hex() for use in (b"cookie", b"storage"))
    name = f"gradmill-{cookie[:8]}"  # other servers of this machine have their own

    async def serve(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = Request(scope)
        is_sign_in = credential is not None and SIGN_IN in request.query_params
        has_cookie = credential is None or _is_equal(request.cookies.get(name), cookie)
        answer: ASGIApp = app
        if not f"{scope['path']}/".startswith(f"{PLACE}/"):
            if credential and has_cookie and _is_equal(request.headers.get("Authorization"), f"Basic {stored}"):
                scope = {**scope, "headers": [*scope["headers"]]}
                MutableHeaders(scope=scope)["Authorization"] = authorization
        elif (
            credential
            and request.method == "GET"
            and (
                use_ticket(request.query_params.get(TICKET, ""))
                or (is_sign_in and _is_equal(request.headers.get("Authorization"), authorization))
            )
        ):
            answer = welcome = HTMLResponse(WELCOME.format(place=PLACE, key=stored), headers=HEADERS)
            welcome.set_cookie(
                name, cookie, COOKIE_SECONDS, secure=request.url.is_secure, httponly=True, samesite="strict"
            )
        elif has_cookie and not is_sign_in:
            landing = await asyncio.to_thread(
                import_module, "flows.server.landing_page"
            )  # not at the top, because it imports much, and imports this module
            answer = landing.PAGES
        else:
            answer = refusal = respond(_refuse(TICKET in request.query_params), 401)
            if is_sign_in:
                refusal.headers["WWW-Authenticate"] = 'Basic realm="Gradmill"'
        await answer(scope, receive, send)

    return serve


def _is_equal(given: str | None, key: str) -> bool:
    return hmac.compare_digest((given or "").encode(), key.encode())


def respond(page: Page, status: int = 200) -> HTMLResponse:
    """One of our pages as a response."""
    return HTMLResponse(render_html(page), status, HEADERS)


def _refuse(has_ticket: bool) -> Page:
    """The page for a browser that is not signed in."""
    found = f"This link does not work any more: it {ONCE}" if has_ticket else "This browser is not signed in"
    ways = (
        (
            Code("gradmill up"),
            " prints a link. For a new one, run it again on the same artifacts folder while it runs.",
        ),
        "Otherwise sign in with user and password, which are the two parts of the server's credential.",
        "If this browser is signed in, and you have followed a link on another page, try again.",
    )
    links = (("Try again", PLACE), ("Sign in with user and password", f"{PLACE}?{SIGN_IN}"))
    return Page("Gradmill", f"{found}.", (Section("", ways),), links)
