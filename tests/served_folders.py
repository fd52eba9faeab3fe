"""A folder served by HTTP on loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class SilentHandler(SimpleHTTPRequestHandler):
    """Tells nobody what it was asked, and sends whole files only, whatever part is asked for."""

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serve(folder: Path, handler: type[SilentHandler] = SilentHandler) -> Iterator[str]:
    """The address of the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
