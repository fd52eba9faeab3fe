"""``/metrics`` for a Prometheus server that asks, and ``/health`` beside it."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app, start_http_server
from prometheus_client.registry import Collector

from flows.server import figures, healthcheck
from tasks.errors import UsageError
from tasks.store import artifact_paths

LOOK_SECONDS = 5.0
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Anew(Collector):
    """The figures of the moment at which somebody asks; what is newly found damaged is said on stderr."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        """As ``prometheus_client`` asks."""
        found = figures.gather()
        for damaged in set(found.damaged) - self._said:
            print(f"left out: {damaged}", file=sys.stderr, flush=True)
        self._said = set(found.damaged)
        return found.collect()


def serve(host: str, port: int, health_url: str, look: Callable[[], None]) -> None:
    """Answer until Ctrl-C; ``/health`` says what ``health_url`` does or, where that is empty, if artifacts/ is fit.

    ``look`` is called now and then.

    Raises:
        UsageError: the port is taken, or the address is none of this machine.
    """
    registry = CollectorRegistry()
    registry.register(Anew())
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        found = f"{host}:{port} cannot be listened at: {error.strerror or error}"
        raise UsageError(found, "a free port of this machine", "choose another --port or --host") from error
    server.set_app(_with_health(make_wsgi_app(registry), health_url))
    print(f"figures at http://{host}:{port}/metrics, until Ctrl-C", file=sys.stderr, flush=True)
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        look()


def _with_health(metrics: App, health_url: str) -> App:
    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/health":
            return metrics(environ, start_response)
        fault = healthcheck.fault(health_url, str(artifact_paths.root()))
        status = "503 Service Unavailable" if fault else "200 OK"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{fault or 'ok'}\n".encode()]

    return answer
