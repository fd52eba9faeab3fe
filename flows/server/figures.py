"""What a Prometheus server may know of the store, of runs and of prediction jobs, read from artifacts/ alone.

What cannot be read costs its own figures only, and is told.
"""

from collections import Counter, defaultdict
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import get_args

from flows.server.metrics import MOST_CLASSES, Figures
from tasks.data.report import DataReport
from tasks.store import artifact_paths, disk, history, mirroring, predictions, reading, room, tried
from tasks.store.predictions import Job
from tasks.store.tried import Tried

SUCCESSFUL = ("published", "unchanged", "judged")


def gather() -> Figures:
    """All that can be read now; it takes no lock."""
    figures = Figures()
    runs, jobs = defaultdict[str, list[Tried]](list), defaultdict[str, list[Job]](list)
    figures.add("build_info", 1, version=metadata.version("gradmill"))
    for run in tried.runs(left=figures.leave):
        runs[run.name].append(run)
    for _, _, job in predictions.below_artifacts(left=figures.leave):
        if job:
            jobs[job.model.name].append(job)
    kept = reading.names()
    for name in sorted({*kept, *runs, *jobs}):
        if name in kept:
            _of_store(figures, name)
        _of_runs(figures, name, runs[name])
        with figures.sparing(artifact_paths.all_predictions()):
            _of_jobs(figures, name, jobs[name])
    with figures.sparing(artifact_paths.mirror()):
        if mirroring.read():
            behind = {each.name for each in mirroring.list_behind()}
            for name in kept:
                figures.add("mirror_behind", name in behind, name=name)
    for folder in (*artifact_paths.FOLDERS, artifact_paths.prefect_home().name):
        figures.add("folder_bytes", disk.size(artifact_paths.root() / folder), folder=folder)
    left = room.left()
    figures.add("disk_size_bytes", left.total)
    figures.add("disk_free_bytes", left.free)
    figures.add("damaged_documents", len(figures.damaged))
    return figures


def _of_store(figures: Figures, name: str) -> None:
    folder = artifact_paths.model(name)
    figures.add("model_bytes", disk.size(folder), name=name)
    figures.add("kept_versions", len(reading.versions(name)), name=name)
    with figures.sparing(folder):
        figures.add("versions_published_total", history.highest_number(name), name=name)
    with figures.sparing(folder):
        _of_champion(figures, name)


def _of_champion(figures: Figures, name: str) -> None:
    """What its pointer says, then what its manifest does: if only that is damaged, the pointer's figures are there."""
    pointer = reading.champion(name)
    if pointer is None:
        return
    figures.add("champion_version", pointer.version, name=name)
    figures.add("champion_promoted_timestamp_seconds", _seconds(pointer.promoted_at), name=name)
    figures.add("frozen", pointer.frozen, name=name)
    figures.add("held_versions", len(pointer.held), name=name)
    found = reading.with_version(name, None, lambda number: reading.manifest(name, number))
    training, data = found.parameters.training, found.dataset
    about = {"version": str(found.version), "model": training.model, "implementation": training.implementation}
    digest = data.digest[: artifact_paths.DIGEST_CHARACTERS]
    figures.add("champion_info", 1, name=name, **about, dataset=data.name, dataset_digest=digest)
    figures.add("champion_data_timestamp_seconds", _seconds(found.created_at), name=name)
    for split, rows in {"train": data.num_train, "test": data.num_test}.items():
        figures.add("champion_rows", rows, name=name, split=split)
    for metric, value in found.metrics.model_dump().items():
        if isinstance(value, int | float):
            figures.add("champion_metric", value, name=name, metric=metric)


def _of_runs(figures: Figures, name: str, runs: list[Tried]) -> None:
    """``runs`` are those of a name, the newest first."""
    outcomes = get_args(tried.Outcome)
    for outcome in outcomes:
        figures.add("runs", sum(run.outcome == outcome for run in runs), name=name, outcome=outcome)
    ended = [run for run in runs if run.outcome != "running"]
    if not ended:
        return
    last = ended[0]
    figures.add("last_run_timestamp_seconds", _seconds(last.date), name=name)
    for run in [run for run in ended if run.outcome in SUCCESSFUL][:1]:
        figures.add("last_success_timestamp_seconds", _seconds(run.date), name=name)
    for outcome in outcomes:
        figures.add("last_run_outcome", last.outcome == outcome, name=name, outcome=outcome)
    for metric in ("test_accuracy", "test_loss", "validation_loss"):
        if (value := getattr(last, metric)) is not None:
            figures.add("last_run_metric", value, name=name, metric=metric)
    for stage, seconds in last.stage_seconds.items():
        figures.add("last_run_stage_duration_seconds", seconds, name=name, stage=stage)
    report = Path(last.path) / artifact_paths.DATA_REPORT
    if report.exists():
        with figures.sparing(report):
            found = Counter((each.severity, each.rule) for each in DataReport.read(report).findings)
            for (severity, rule), count in found.items():
                figures.add("last_run_data_findings", count, name=name, severity=severity, rule=rule)


def _of_jobs(figures: Figures, name: str, jobs: list[Job]) -> None:
    for status in ("running", "done"):
        figures.add("prediction_jobs", sum(job.status == status for job in jobs), name=name, status=status)
    ended = [job for job in jobs if job.status == "done"]
    if not ended:
        return
    last = max(ended, key=lambda job: job.finished_at or "")
    figures.add("last_prediction_rows", last.rows, name=name)
    figures.add("last_prediction_rejected_rows", last.rejects or 0, name=name)
    if last.finished_at:
        figures.add("last_prediction_timestamp_seconds", _seconds(last.finished_at), name=name)
    if last.seconds is not None:
        figures.add("last_prediction_duration_seconds", last.seconds, name=name)
    if last.drift and last.drift.index:
        figures.add("last_prediction_drift", last.drift.verdict == "drift", name=name)
        figures.add("last_prediction_drift_bound", last.drift.maximum, name=name)
        for watched, index in last.drift.index.items():
            figures.add("last_prediction_drift_index", index, name=name, watched=watched)
    if last.model.version in reading.versions(name):
        with figures.sparing(artifact_paths.version(name, last.model.version)):
            _of_labels(figures, name, last)


def _of_labels(figures: Figures, name: str, job: Job) -> None:
    """How often a classifier gave each label, and how often on the test split of its version."""
    version = reading.manifest(name, job.model.version)
    found, expected = (each.get("label") for each in (job.profile or {}, version.profile))
    classes = version.dataset.class_names
    if not found or not expected or len(classes) > MOST_CLASSES:
        return
    for family, counts in {"label_ratio": found.counts, "expected_label_ratio": expected.counts}.items():
        for label, count in zip(classes, counts, strict=False):
            figures.add(f"last_prediction_{family}", count / max(1, sum(counts)), name=name, label=label)


def _seconds(moment: str) -> float:
    """Since 1970, of a time with its zone."""
    return datetime.fromisoformat(moment).timestamp()
