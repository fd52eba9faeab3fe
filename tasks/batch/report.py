"""What people see of a job: lines in the log, a bar at the terminal, a progress artifact and an event in Prefect."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import ProgressColumn, Task
from rich.text import Text

from tasks.batch.jobs import Job
from tasks.machine import progress
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.stage import events, live


def started(folder: Path, job: Job) -> None:
    """Say what is about to be done."""
    tell(
        f"{counted(job.rows, 'row')} in {counted(job.input.files, 'file')} through {job.model.name} version "
        f"{job.model.version} on {job.provider}: {counted(len(job.shards), 'part')}, {counted(job.workers, 'worker')}"
    )


def finished(folder: Path, job: Job) -> None:
    """Say what came out; an event tells that the files are there."""
    for note, times in (job.notes or {}).items():
        tell(f"{times} of {counted(job.rows, 'picture')} {note}")
    rejects = job.rejects or 0
    tell(f"{counted(job.rows - rejects, 'row')} predicted, {rejects} rejected; predictions in {folder}")
    if live.in_a_run():
        counts = {"rows": job.rows - rejects, "rejects": rejects}
        events.emit(events.PREDICTIONS_WRITTEN, job.model.name, _payload(folder, job) | counts)
    drift(folder, job)


def drift(folder: Path, job: Job) -> None:
    """Say and, by an event, tell that the input has drifted, where it has."""
    if job.drift is None or job.drift.verdict != "drift":
        return
    index = ", ".join(f"{name} {value:.3f}" for name, value in job.drift.index.items())
    tell(f"the input has drifted from the test split: population stability index {index} (limit {job.drift.maximum})")
    if live.in_a_run():
        events.emit(
            events.DRIFT,
            job.model.name,
            _payload(folder, job) | {"index": job.drift.index, "maximum": job.drift.maximum},
        )


def _payload(folder: Path, job: Job) -> dict[str, Any]:
    return {"version": job.model.version, "sha256": job.model.sha256, "path": str(folder), "job": job.job}


class RowsPerSecond(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """The mean speed so far."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rows/s")


class Progress:
    """Progress of a job's rows, at the terminal and in the Prefect UI."""

    def __init__(self, rows: int, done: int) -> None:
        self._bar = progress.bar(RowsPerSecond())
        self._bar_task = self._bar.add_task("predict", total=rows, completed=done)
        self._rows, self._done = rows, done

    def __enter__(self) -> Self:
        self._bar.start()
        self._artifact = live.Progress(self._rows, "rows predicted", self._done)
        return self

    def advance(self, rows: int) -> None:
        """Count ``rows`` more."""
        self._done += rows
        self._bar.advance(self._bar_task, rows)
        self._artifact.update(self._done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is None:
            self._artifact.show()
