"""What people see of a job: lines in the log, a bar at the terminal, a progress artifact and an event in Prefect."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.events import emit_event
from rich.progress import ProgressColumn, Task
from rich.text import Text

from tasks import progress
from tasks.predict.jobs import Job

ARTIFACT_SECONDS = 2.0  # an update is a request to the server
DRIFT_EVENT = "gradmill.drift"


def started(folder: Path, job: Job) -> None:
    """Say what is about to be done."""
    print(
        f"{job.rows} rows in {job.input.files} files through {job.model.name} version {job.model.version} "
        f"on {job.provider}: {len(job.shards)} parts, {job.workers} workers"
    )


def finished(folder: Path, job: Job) -> None:
    """Say what came out, and emit an event where the input has drifted."""
    for note, times in (job.notes or {}).items():
        print(f"{times} of {job.rows} pictures {note}")
    print(f"{job.rows - (job.rejects or 0)} rows predicted, {job.rejects} rejected; predictions in {folder}")
    if job.drift is None or job.drift.verdict != "drift":
        return
    index = ", ".join(f"{name} {value:.3f}" for name, value in job.drift.index.items())
    print(f"the input has drifted from the test split: population stability index {index} (limit {job.drift.maximum})")
    if TaskRunContext.get() is not None:
        emit_event(
            event=DRIFT_EVENT,
            resource={
                "prefect.resource.id": f"gradmill.model.{job.model.name}",
                "prefect.resource.name": job.model.name,
            },
            payload={
                "name": job.model.name,
                "version": job.model.version,
                "sha256": job.model.sha256,
                "path": str(folder),
                "index": job.drift.index,
                "maximum": job.drift.maximum,
            },
        )


class RowsPerSecond(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """The mean speed so far."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rows/s")


class Progress:
    """Progress of a job's rows, at the terminal and (in a Prefect run) as an artifact."""

    def __init__(self, rows: int, done: int) -> None:
        self._bar = progress.bar(RowsPerSecond())
        self._bar_task = self._bar.add_task("predict", total=rows, completed=done)
        self._rows, self._done = rows, done
        self._artifact: UUID | None = None
        self._updated = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        if TaskRunContext.get() is not None:
            created = create_progress_artifact(self._percent(), description="rows predicted")
            self._artifact = created if isinstance(created, UUID) else None
            self._updated = time.monotonic()
        return self

    def advance(self, rows: int) -> None:
        """Count ``rows`` more."""
        self._done += rows
        self._bar.advance(self._bar_task, rows)
        if time.monotonic() - self._updated > ARTIFACT_SECONDS:
            self._update_artifact()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is None:
            self._update_artifact()

    def _percent(self) -> float:
        return 100 * self._done / self._rows

    def _update_artifact(self) -> None:
        if self._artifact is not None:
            update_progress_artifact(self._artifact, self._percent())
            self._updated = time.monotonic()
