"""A page on which a person tries a model: this process serves it, and the browser computes by the published file.

Only to this machine, and to whoever calls it by its own name: a foreign one that resolves to this machine is how a web
page gets past a browser's rules. Paths are looked up among the few things that there are; none leads to a file.
"""

import json
import math
import sys
import threading
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.server.demo_model import Tried
from tasks.errors import DataError, GradmillError, UsageError
from tasks.parameters import Device
from tasks.store.artifact_paths import ONNX

PAGE = Path(__file__).with_name("demo_page")
OUR_NAMES = {"127.0.0.1", "localhost"}
TYPES = {
    ".html": "text/html; charset=utf-8", ".txt": "text/plain; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".json": "application/json", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}  # fmt: skip
MOST_BYTES = 2**26  # of a picture
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Demo(ThreadingHTTPServer):
    """Serves the page of one version; ``runtime`` has onnxruntime's files for the browser, if there are any."""

    daemon_threads = True

    def __init__(self, tried: Tried, runtime: dict[str, bytes], because: str = "", port: int = 0) -> None:
        """Listen at ``port``, or at a free one; without ``runtime`` the page says ``because`` of what it has none.

        Raises:
            UsageError: the port is taken.
        """
        described = {"name": tried.name, "version": tried.version, "server_because": because} | tried.described
        self.served = {f"/{path.name}": path.read_bytes() for path in PAGE.iterdir() if path.suffix in TYPES}
        self.served |= {f"/{name}": content for name, content in runtime.items()}
        self.served |= {f"/{ONNX}": tried.model, "/model.json": json.dumps(described).encode()}
        self.served["/"] = self.served.pop("/index.html")
        self._tried, self._lock = tried, threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            found = f"127.0.0.1:{port} cannot be listened at: {error.strerror or error}"
            raise UsageError(found, "a free port", "choose another --port, or give none") from error

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no news; all else is, as Python has it."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def pixels(self, content: bytes) -> bytes:
        """A picture file as ``gradmill predict`` reads it: the bytes of a row of the model's input.

        Raises:
            DataError: it cannot be decoded, or the model takes no pictures.
        """
        from tasks.data.io import pictures

        if "columns" in self._tried.described:
            raise DataError("the model is of a table", "a row of it", "fill in the form")
        row, _ = pictures.decode(content, tuple(self._tried.described["shape"]), "the file")
        return row.tobytes()

    @cached_property
    def _session(self) -> Any:
        from tasks.serving import runtime

        return runtime.open_session(self._tried.model, Device.CPU)

    @cached_property
    def row_bytes(self) -> int:
        """Of one row of the model's input."""
        import numpy as np

        return int(np.dtype(self._tried.described["dtype"]).itemsize * math.prod(self._tried.described["shape"]))

    def answer(self, row: bytes) -> dict[str, list[float | str]]:
        """What the model says of one row, the ``row_bytes`` of its input: every output as a list.

        What JSON has no number for is the text that JavaScript makes one of: NaN, Infinity, -Infinity.

        Raises:
            UsageError: it has another length.
        """
        import numpy as np

        from tasks.serving import runtime

        shape, dtype = self._tried.described["shape"], self._tried.described["dtype"]
        if len(row) != self.row_bytes:
            raise UsageError(f"{len(row)} bytes", f"one row of {dtype} {shape}", "send one row")
        with self._lock:
            session = self._session
        answers = runtime.run_model(session, np.frombuffer(row, dtype).reshape(1, *shape))
        lists = {name: found.reshape(-1).tolist() for name, found in answers.items()}
        return {name: [each if math.isfinite(each) else json.dumps(each) for each in lists[name]] for name in lists}


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Demo
    server_version, sys_version = "gradmill", ""
    timeout = 30

    def do_GET(self) -> None:
        """Send one of the few things that there are."""
        path = urlsplit(self.path).path
        if not self._is_ours():
            self._send(403, b"this server is not known by that name", ".txt")
        elif path in self.server.served:
            self._send(200, self.server.served[path], Path(path).suffix or ".html")
        else:
            self._send(404, b"there is nothing of that name", ".txt")

    def do_POST(self) -> None:
        """Answer of one row, or read one picture."""
        length = self.headers.get("Content-Length", "")
        most = {"/predict": self.server.row_bytes, "/pixels": MOST_BYTES}.get(self.path, -1)
        if not self._is_ours():
            self._send(403, b"pages of other origins are not let in", ".txt")
        elif not length.isdecimal() or len(length) > len(str(most)) or int(length) > most:
            self._send(400, b"one row for /predict or one picture for /pixels is expected", ".txt")
        else:
            content = self.rfile.read(int(length))
            try:
                if self.path == "/pixels":
                    self._send(200, self.server.pixels(content), ".bin")
                else:
                    self._send(200, json.dumps(self.server.answer(content)).encode(), ".json")
            except (GradmillError, ImportError) as error:
                self._send(400, str(getattr(error, "found", error)).encode(), ".txt")

    def _is_ours(self) -> bool:
        """Whether we are called by our own name and, if by a page, by our own."""
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        name = host.rpartition(":")[0] or host  # a browser leaves port 80 out
        return name in OUR_NAMES and origin in (None, f"http://{host}")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (HEADERS | {"Content-Type": TYPES.get(kind, "application/octet-stream")}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the signature of http.server)
        """Nothing: a line a request is no news."""
