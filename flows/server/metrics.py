"""Figures for a Prometheus server: their names, their text, and ``/metrics``."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tasks.errors import GradmillError

MOST_CLASSES = 100  # of a model whose labels are counted one by one: each is a time series
KEPT = "; housekeeping removes old ones"

HELP = {
    "build_info": "The version of Gradmill that tells these figures.",
    "damaged_documents": "Documents that cannot be read, and whose figures are missing here; stderr names them.",
    "disk_free_bytes": "Free for Gradmill on the file system of the artifacts folder.",
    "disk_size_bytes": "All of that file system.",
    "folder_bytes": "Files below a folder in the artifacts folder.",
    "model_bytes": "Files of a name in models/, all kept versions.",
    "champion_info": "What the champion of a name is; always 1.",
    "champion_version": "The version that consumers should use.",
    "champion_promoted_timestamp_seconds": "Since when it is the champion.",
    "champion_data_timestamp_seconds": "When the champion was made, of data of then: time() less it is their age.",
    "champion_rows": "Rows that the champion was trained on and tested on.",
    "champion_metric": "Figures of the champion from its own run, in the units of its target.",
    "frozen": "1 where no retrain may change the champion.",
    "held_versions": "Versions that were rolled back from.",
    "mirror_behind": "1 where the mirror has not followed the champion; missing of a store that has no mirror.",
    "kept_versions": "Versions that are kept.",
    "versions_published_total": "Versions ever published: numbers are never used twice.",
    "runs": f"Retrains whose folder is kept, by what became of them{KEPT}.",
    "last_run_outcome": "1 at what became of the last retrain that has ended, 0 at all else that could have.",
    "last_run_timestamp_seconds": "When the last retrain that has ended was to start.",
    "last_success_timestamp_seconds": "The same of the last one that published, was judged, or found nothing changed.",
    "last_run_metric": "Figures of the last retrain that has ended, refused or not.",
    "last_run_stage_duration_seconds": "How long each of its stages took.",
    "last_run_data_findings": "What validation said of its data, by severity and rule: error, warning or note.",
    "prediction_jobs": f"Prediction jobs in artifacts/predictions/{KEPT}.",
    "last_prediction_timestamp_seconds": "When the last finished prediction job of a name ended.",
    "last_prediction_duration_seconds": "How long it took.",
    "last_prediction_rows": "Rows that it read.",
    "last_prediction_rejected_rows": "Rows of these that could not be predicted.",
    "last_prediction_drift": "1 where a drift index was above its bound, 0 where none was; missing if not judged.",
    "last_prediction_drift_index": "Population stability index of its answers against those on the test split.",
    "last_prediction_drift_bound": "The index above which it is called drift.",
    "last_prediction_label_ratio": f"Share of each label; of models of up to {MOST_CLASSES} classes.",
    "last_prediction_expected_label_ratio": "The same on the test split of the version that predicted.",
}  # fmt: skip


class Figures(Collector):
    """Families of samples under the names of ``HELP``, and what could not be read."""

    def __init__(self) -> None:
        self.families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        self.damaged: list[str] = []

    def collect(self) -> Iterable[Metric]:
        """As ``prometheus_client`` asks."""
        return self.families.values()

    def text(self) -> str:
        """The exposition format of Prometheus."""
        return generate_latest(self).decode()

    def add(self, name: str, value: float, /, **labels: str) -> None:
        """A sample."""
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        if name not in self.families:
            self.families[name] = kind(f"gradmill_{name}", HELP[name], labels=list(labels))
        self.families[name].add_metric(list(labels.values()), float(value))

    def leave(self, path: Path, reason: str | Exception) -> None:
        """Take note of something that cannot be read, once."""
        found = reason.found if isinstance(reason, GradmillError) else f"{path} ({reason})"
        self.damaged += [found] if found not in self.damaged else []

    @contextmanager
    def sparing(self, path: Path) -> Iterator[None]:
        """Go on after the block if a document in it, below ``path``, cannot be read."""
        try:
            yield
        except (GradmillError, OSError, ValueError) as error:
            self.leave(path, error)
