"""Stand-ins on this machine for web services: they answer as a function says, or take notifications."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def played(answer: Answer, path: str = "") -> Iterator[str]:
    """An address below which every request is answered so."""
    silent = {"do_GET": answer, "do_HEAD": answer, "do_POST": answer, "log_message": lambda *_: None}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (BaseHTTPRequestHandler,), silent)) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{path}"
        server.shutdown()
        server.block_on_close = False


def answered(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class Endpoint(NamedTuple):
    """A web service: ``received`` is what it has been sent; it answers with ``status[0]``."""

    url: str
    received: list[Any]
    status: list[int]


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """A web service that takes JSON."""
    received, status = list[Any](), [200]

    def take(handler: BaseHTTPRequestHandler) -> None:
        content = handler.rfile.read(int(handler.headers["Content-Length"]))
        received.append(json.loads(content))
        answered(status[0])(handler)

    with played(take) as url:
        yield Endpoint(url, received, status)
