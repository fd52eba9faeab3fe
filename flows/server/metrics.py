"""The state of the store as figures for a Prometheus server, printed or served at ``/metrics``."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from importlib import metadata
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Metric, make_wsgi_app, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from flows.server import healthcheck
from tasks.errors import UsageError
from tasks.store import artifact_paths, folders, model_folder, state
from tasks.store.artifact_paths import DIGEST_CHARACTERS
from tasks.store.regular_files import format_path
from tasks.store.run_folder import Outcome
from tasks.store.state import Fault, NameState, StoreState

MOST_CLASSES = 100  # limit for counting each label, since each becomes a time series
RUNS = 100  # runs of a name that are counted
LOOK_SECONDS = 5.0
MEASURE_SECONDS = 300.0  # between two measurements of disk usage
MEASURED = "; gradmill metrics --port counts them every five minutes"
REMOVED = "; housekeeping removes old ones"

HELP = {
    "build_info": "The version of Gradmill that reports these figures.",
    "damaged_documents": "Documents that cannot be read, and whose figures are missing here; stderr names them.",
    "disk_free_bytes": "Free for Gradmill on the file system of the artifacts folder.",
    "disk_size_bytes": "The size of the file system of the artifacts folder.",
    "folder_bytes": f"Files below a folder in the artifacts folder{MEASURED}.",
    "model_bytes": f"Files of a name in models/, all kept versions{MEASURED}.",
    "champion_info": "What the champion of a name is; always 1.",
    "champion_version": "The version that consumers should use.",
    "champion_promoted_timestamp_seconds": "Since when it is the champion.",
    "champion_data_timestamp_seconds": "When the champion was trained: time() minus it is the age of its data.",
    "champion_rows": "Rows that the champion was trained on and tested on.",
    "champion_metric": "Figures of the champion from its own run, in the units of its target.",
    "frozen": "1 where no retrain may change the champion.",
    "held_versions": "Versions that were rolled back from.",
    "mirror_behind": "1 if the mirror lacks the champion; absent if the store has no mirror.",
    "kept_versions": "Versions that are kept.",
    "versions_published_total": "Versions ever published: numbers are never used twice.",
    "runs": f"The newest {RUNS} retrains of a name at most, by outcome{REMOVED}.",
    "last_run_outcome": "1 for the outcome of the last finished retrain, 0 for all other outcomes.",
    "last_run_timestamp_seconds": "When the last retrain that has ended was scheduled to start.",
    "last_success_timestamp_seconds": "When the last retrain that published, was judged or found no change was due.",
    "last_run_metric": "Figures of the last retrain that has ended, refused or not.",
    "last_run_stage_duration_seconds": "How long each stage of the last finished retrain took.",
    "last_run_data_findings": "What validation said of the last finished retrain's data, by severity and rule.",
    "prediction_jobs": f"Prediction jobs in artifacts/predictions/{REMOVED}.",
    "last_prediction_timestamp_seconds": "When the last job on somebody's input, or on the test split, ended.",
    "last_prediction_duration_seconds": "How long the last job took.",
    "last_prediction_rows": "Rows that the last job read.",
    "last_prediction_rejected_rows": "Rows of the last job that could not be predicted.",
    "last_prediction_drift": "1 where a drift index was above its bound, 0 where none was; missing if not judged.",
    "last_prediction_drift_index": "Population stability index of the last job's answers against the test split's.",
    "last_prediction_drift_bound": "The index above which it is called drift.",
    "last_prediction_worse": "1 where the last job was worse than at publication, by the truth in its input, else 0.",
    "last_prediction_moved_info": "What moved most in the last job, or is worse than at publication; always 1.",
    "last_prediction_label_ratio": f"Share of each label in the last job; for models of up to {MOST_CLASSES} classes.",
    "last_prediction_expected_label_ratio": "Share of each label on the test split of the version that predicted.",
}  # fmt: skip

Sample = tuple[str, float | None, dict[str, str]]  # a name in HELP, the value (None: omitted), labels
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class StoreCollector(Collector):
    """Figures of the given state or, without one, of the state at each request."""

    def __init__(self, store_state: StoreState | None = None) -> None:
        self._store_state = store_state
        self._faults = set[Fault]()
        self._sizes: list[Sample] = []

    def measure(self) -> None:
        """Measure disk usage, which takes long in a large store; requests are answered with the last measurement."""
        places = (*artifact_paths.FOLDERS, artifact_paths.prefect_home().name)
        sizes: list[Sample] = [
            ("folder_bytes", folders.size(artifact_paths.root() / each), {"folder": each}) for each in places
        ]
        sizes += [
            ("model_bytes", folders.size(artifact_paths.model(each)), {"name": format_path(each)})
            for each in model_folder.list_names()
        ]
        self._sizes = sizes

    def collect(self) -> Iterable[Metric]:
        """Return the families of samples; newly damaged documents are reported on stderr."""
        store_state = self._store_state or state.read(newest=RUNS)
        for fault in {*store_state.faults} - self._faults if self._store_state is None else ():
            print(f"left out: {fault.found}", file=sys.stderr, flush=True)
        self._faults = {*store_state.faults}
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, value, labels in (*_list_samples(store_state), *self._sizes):
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            if name not in families:
                families[name] = kind(f"gradmill_{name}", HELP[name], labels=[*labels])
            families[name].add_metric([*labels.values()], float(value or 0))
        return families.values()


def serve(host: str, port: int, health_url: str) -> None:
    """Serve until Ctrl-C; ``/health`` relays ``health_url`` or, if that is empty, checks that artifacts/ is writable.

    ``health_url`` belongs to a worker: the overviews of its dead runs are rewritten, but no run is marked as crashed.

    Raises:
        UsageError: the port is taken, or the address does not belong to this machine.
    """
    registry, collector, watch = CollectorRegistry(), StoreCollector(), None
    registry.register(collector)
    metrics: App = make_wsgi_app(registry)
    if health_url:
        from flows.server.up import PeriodicChecks

        watch = PeriodicChecks(is_up=False)

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
    measured = -MEASURE_SECONDS
    while thread.is_alive():
        if time.monotonic() - measured >= MEASURE_SECONDS:
            collector.measure()
            measured = time.monotonic()
        thread.join(LOOK_SECONDS)
        if watch:
            watch.run_due_checks()


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
    yield "kept_versions", len(name_state.numbers), {}
    yield "versions_published_total", name_state.highest, {}
    if pointer := name_state.pointer:
        if name_state.mirror or any(fault.kind == "mirror" for fault in name_state.faults):
            yield "mirror_behind", name_state.behind is not None or name_state.mirror is None, {}
        yield "champion_version", pointer.version, {}
        yield "champion_promoted_timestamp_seconds", _seconds(pointer.promoted_at), {}
        yield "frozen", pointer.frozen, {}
        yield "held_versions", len(pointer.held), {}
    if live := name_state.live:
        training, data = live.parameters.training, live.dataset
        about = {"version": str(live.version), "model": training.model, "implementation": training.implementation}
        about |= {"dataset": data.name, "dataset_digest": data.digest[:DIGEST_CHARACTERS]}
        yield "champion_info", 1, about
        yield "champion_data_timestamp_seconds", _seconds(live.created_at), {}
        yield "champion_rows", data.num_train, {"split": "train"}
        yield "champion_rows", data.num_test, {"split": "test"}
        for metric, value in live.metrics:
            if isinstance(value, int | float):
                yield "champion_metric", value, {"metric": metric}


def _measure_runs(name_state: NameState) -> Iterator[Sample]:
    last, outcomes = name_state.last_ended, Counter(run.outcome for run in name_state.runs[:RUNS])
    succeeded = [run.date for run in name_state.runs if run.ended_well]
    succeeded += [each.manifest.created_at for each in name_state.versions[-1:]]  # its run may not be among the newest
    yield "last_success_timestamp_seconds", _seconds(next(iter(succeeded), None)), {}
    for outcome in get_args(Outcome):
        yield "runs", outcomes[outcome], {"outcome": outcome}
        yield "last_run_outcome", None if last is None else last.outcome == outcome, {"outcome": outcome}
    if last is None:
        return
    yield "last_run_timestamp_seconds", _seconds(last.date), {}
    for metric in ("test_accuracy", "test_loss", "validation_loss"):
        yield "last_run_metric", getattr(last, metric), {"metric": metric}
    for stage, seconds in last.stage_seconds.items():
        yield "last_run_stage_duration_seconds", seconds, {"stage": stage}
    findings = name_state.report.findings if name_state.report else ()
    for (severity, rule), count in Counter((each.severity, each.rule) for each in findings).items():
        yield "last_run_data_findings", count, {"severity": severity, "rule": rule}


def _measure_jobs(name_state: NameState) -> Iterator[Sample]:
    from flows.pages.run_pages import describe_last_drift  # it imports libraries for tables

    for status in ("running", "done"):
        yield "prediction_jobs", name_state.num_jobs.get(status, 0), {"status": status}
    last = name_state.last_job or next(iter(name_state.jobs), None)
    if last is None:
        return
    yield "last_prediction_rows", last.rows, {}
    yield "last_prediction_rejected_rows", last.rejects or 0, {}
    yield "last_prediction_duration_seconds", last.seconds, {}
    yield "last_prediction_timestamp_seconds", _seconds(last.finished_at), {}
    if last.drift and last.drift.index:
        yield "last_prediction_drift", last.drift.verdict == "drift", {}
        yield "last_prediction_drift_bound", last.drift.maximum, {}
        for watched, index in last.drift.index.items():
            yield "last_prediction_drift_index", index, {"watched": watched}
    yield "last_prediction_worse", last.worse is not None, {}
    if words := describe_last_drift(name_state):
        yield "last_prediction_moved_info", 1, {"moved": words}
    for manifest in (each.manifest for each in name_state.versions if each.number == last.model.version):
        classes = manifest.dataset.class_names if len(manifest.dataset.class_names) <= MOST_CLASSES else ()
        given, expected = (last.profile or {}).get("label"), manifest.profile.get("label")
        if given and expected:
            for family, histogram in {"label_ratio": given, "expected_label_ratio": expected}.items():
                for label, count in zip(classes, histogram.counts, strict=False):
                    yield f"last_prediction_{family}", count / max(1, sum(histogram.counts)), {"label": label}


def _seconds(moment: str | None) -> float | None:
    """The Unix time of a timestamp with its zone."""
    return datetime.fromisoformat(moment).timestamp() if moment else None
