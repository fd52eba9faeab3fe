"""The state of the store as figures for a Prometheus server, printed or served at ``/metrics``."""

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from importlib import metadata
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flows.server import healthcheck
from tasks.errors import UsageError
from tasks.store import artifact_paths, folders, state
from tasks.store.regular_files import format_path
from tasks.store.run_folder import Outcome
from tasks.store.state import Fault, NameState, StoreState

RUNS = 100  # runs of a name that are read
HELP = {
    "build_info": "The version of Gradmill that reports these figures.",
    "damaged_documents": "Documents that cannot be read, and whose figures are missing here; stderr names them.",
    "disk_free_bytes": "Free for Gradmill on the file system of the artifacts folder.",
    "disk_size_bytes": "The size of the file system of the artifacts folder.",
    "champion_version": "The version that consumers should use.",
    "champion_promoted_timestamp_seconds": "Since when it is the champion.",
    "champion_metric": "Figures of the champion from its own run, in the units of its target.",
    "frozen": "1 where no retrain may change the champion.",
    "mirror_behind": "1 if the mirror lacks the champion; absent if the store has no mirror.",
    "last_run_outcome": "1 for the outcome of the last finished retrain, 0 for all other outcomes.",
    "last_run_metric": "Figures of the last retrain that has ended, refused or not.",
    "last_success_timestamp_seconds": "When the last retrain that published, was judged or found no change was due.",
    "last_prediction_rows": "Rows that the last job on somebody's input, or on the test split, read.",
    "last_prediction_rejected_rows": "Rows of the last job that could not be predicted.",
    "last_prediction_drift": "1 where a drift index was above its bound, 0 where none was; missing if not judged.",
    "last_prediction_drift_index": "Population stability index of the last job's answers against the test split's.",
    "last_prediction_drift_bound": "The index above which it is called drift.",
    "last_prediction_worse": "1 where the last job was worse than at publication, by the truth in its input, else 0.",
}

Sample = tuple[str, float | None, dict[str, str]]  # a name in HELP, the value (None: omitted), labels
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class StoreCollector(Collector):
    """Figures of the given state or, without one, of the state at each request."""

    def __init__(self, store_state: StoreState | None = None) -> None:
        self._store_state = store_state
        self._faults = set[Fault]()

    def collect(self) -> Iterable[Metric]:
        """Return the families of samples; newly damaged documents are reported on stderr."""
        store_state = self._store_state or state.read(newest=RUNS)
        for fault in {*store_state.faults} - self._faults if self._store_state is None else ():
            print(f"left out: {fault.found}", file=sys.stderr, flush=True)
        self._faults = {*store_state.faults}
        families: dict[str, GaugeMetricFamily] = {}
        for name, value, labels in _list_samples(store_state):
            if name not in families:
                families[name] = GaugeMetricFamily(f"gradmill_{name}", HELP[name], labels=[*labels])
            families[name].add_metric([*labels.values()], float(value or 0))
        return families.values()


def serve(host: str, port: int, health_url: str) -> None:
    """Serve until Ctrl-C; ``/health`` relays ``health_url`` or, if that is empty, checks that artifacts/ is writable.

    Raises:
        UsageError: the port is taken, or the address does not belong to this machine.
    """
    registry = CollectorRegistry()
    registry.register(StoreCollector())
    metrics: App = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/health":
            return metrics(environ, start_response)
        fault = healthcheck.find_fault(health_url, str(artifact_paths.root()))
        status = "503 Service Unavailable" if fault else "200 OK"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{fault or 'ok'}\n".encode()]

    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        found = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise UsageError(found, "a free port of this machine", "choose another --port or --host") from error
    server.set_app(answer)
    print(f"figures at http://{host}:{port}/metrics, until Ctrl-C", file=sys.stderr, flush=True)
    thread.join()


def _list_samples(store_state: StoreState) -> Iterator[Sample]:
    yield "build_info", 1, {"version": metadata.version("gradmill")}
    for name, of_name in store_state.names.items():
        for figures in (_measure_champion(of_name), _measure_runs(of_name), _measure_jobs(of_name)):
            for figure, value, labels in figures:
                if value is not None:
                    yield figure, value, {"name": format_path(name), **labels}
    left = folders.read_disk_space()
    yield "disk_size_bytes", left.total, {}
    yield "disk_free_bytes", left.free, {}
    yield "damaged_documents", len(store_state.faults), {}


def _measure_champion(name_state: NameState) -> Iterator[Sample]:
    if pointer := name_state.pointer:
        if name_state.mirror or any(fault.kind == "mirror" for fault in name_state.faults):
            yield "mirror_behind", name_state.behind is not None or name_state.mirror is None, {}
        yield "champion_version", pointer.version, {}
        yield "champion_promoted_timestamp_seconds", _seconds(pointer.promoted_at), {}
        yield "frozen", pointer.frozen, {}
    for metric, value in name_state.live.metrics if name_state.live else ():
        if isinstance(value, int | float):
            yield "champion_metric", value, {"metric": metric}


def _measure_runs(name_state: NameState) -> Iterator[Sample]:
    succeeded = [run.date for run in name_state.runs if run.ended_well]
    succeeded += [each.manifest.created_at for each in name_state.versions[-1:]]  # its run may not be among the newest
    yield "last_success_timestamp_seconds", _seconds(next(iter(succeeded), None)), {}
    if last := name_state.last_ended:
        for outcome in get_args(Outcome):
            yield "last_run_outcome", last.outcome == outcome, {"outcome": outcome}
        for metric in ("test_accuracy", "test_loss", "validation_loss"):
            yield "last_run_metric", getattr(last, metric), {"metric": metric}


def _measure_jobs(name_state: NameState) -> Iterator[Sample]:
    last = name_state.last_job or next(iter(name_state.jobs), None)
    if last is None:
        return
    yield "last_prediction_rows", last.rows, {}
    yield "last_prediction_rejected_rows", last.rejects or 0, {}
    if last.drift and last.drift.index:
        yield "last_prediction_drift", last.drift.verdict == "drift", {}
        yield "last_prediction_drift_bound", last.drift.maximum, {}
        for watched, index in last.drift.index.items():
            yield "last_prediction_drift_index", index, {"watched": watched}
    yield "last_prediction_worse", last.worse is not None, {}


def _seconds(moment: str | None) -> float | None:
    """The Unix time of a timestamp with its zone."""
    return datetime.fromisoformat(moment).timestamp() if moment else None
