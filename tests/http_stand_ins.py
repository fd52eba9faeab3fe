"""Stand-ins on this machine for what takes notifications: an HTTP endpoint, and a mail server that speaks SMTP."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What was sent, and where to."""

    path: str
    headers: dict[str, str]
    document: Any


class Endpoint(NamedTuple):
    """A web service: ``received`` is what it has been sent; it answers with ``status[0]``."""

    url: str
    received: list[Request]
    status: list[int]


@contextmanager
def endpoint(body: bytes = b"ok") -> Iterator[Endpoint]:
    """A web service that takes JSON; ``ok`` is Slack's answer."""
    received: list[Request] = []
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(Request(self.path, dict(self.headers), json.loads(content)))
            self.send_response(status[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Endpoint(f"http://127.0.0.1:{server.server_port}", received, status)
        server.shutdown()


class MailServer(NamedTuple):
    """A mail server: what it has taken, by recipient; it takes nothing for those in ``unknown``."""

    port: int
    delivered: list[tuple[str, EmailMessage]]
    unknown: set[str]


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """The commands of RFC 5321 that every sender needs; no extensions."""
    delivered: list[tuple[str, EmailMessage]] = []
    unknown: set[str] = set()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 stand-in\r\n")
            recipients: list[str] = []
            while line := self.rfile.readline().decode().strip():
                verb, address = line.partition(" ")[0].upper(), line.partition("<")[2].partition(">")[0]
                self.wfile.write(self.answer(verb, address, recipients))
                if verb == "QUIT":
                    return

        def answer(self, verb: str, address: str, recipients: list[str]) -> bytes:
            if verb == "RCPT" and address in unknown:
                return b"550 no such mailbox\r\n"
            if verb == "RCPT":
                recipients.append(address)
            if verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                text = "".join(iter(lambda: self.rfile.readline().decode(), ".\r\n"))
                delivered.extend((to, message_from_string(text, policy=policy.default)) for to in recipients)
            return b"250 ok\r\n" if verb in ("EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP") else b"221 bye\r\n"

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield MailServer(server.server_address[1], delivered, unknown)
        server.shutdown()
