"""The facts of one name, from the store alone: what is live, what its runs came to, predictions, changes, disk.

What cannot be read is among the ``faults``; all else is told all the same.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from tasks.data.report import DataReport
from tasks.errors import DataError, TrainingDiverged
from tasks.store import artifact_paths, disk, history, own_data, predictions, reading, tried
from tasks.store.changed import Change
from tasks.store.predictions import Job
from tasks.store.tried import JUDGED, Tried
from tasks.store.versions import ChampionPointer, Manifest

T = TypeVar("T")
DIVERGED = TrainingDiverged.exit_code


class Kept(NamedTuple):
    """A version: its manifest, and the bytes of its folder."""

    manifest: Manifest
    bytes: int


class Disk(NamedTuple):
    """Bytes that a name takes, and those of the file system that the artifacts folder lies on."""

    versions: int
    data: int
    runs: int
    predictions: int
    free: int
    total: int

    @property
    def of_name(self) -> int:
        """All that the name takes."""
        return self.versions + self.data + self.runs + self.predictions


@dataclass(frozen=True)
class Overview:
    """All facts of a name; versions ascending, of everything else the newest first."""

    name: str
    pointer: ChampionPointer | None
    versions: tuple[Kept, ...]
    runs: tuple[Tried, ...]
    jobs: tuple[Job, ...]  # that are done
    changes: tuple[Change, ...]
    source: str | None  # of own data
    disk: Disk
    faults: tuple[str, ...]

    @property
    def live(self) -> Kept | None:
        """The champion, unless its manifest is damaged."""
        number = self.pointer and self.pointer.version
        return next((kept for kept in self.versions if kept.manifest.version == number), None)

    @property
    def last_judged(self) -> Tried | None:
        """The newest run that came to a verdict, whatever came after it; training that diverged is one."""
        return next((run for run in self.runs if run.outcome in JUDGED or run.exit_code == DIVERGED), None)


def gather(name: str) -> Overview:
    """Read everything that is known of a name; one of which nothing is known has neither versions nor runs."""
    faults: list[str] = []

    def left(path: Path, reason: str | Exception) -> None:
        faults.append(f"{path}: {reason.found if isinstance(reason, DataError) else reason}")

    def read(what: Callable[[], T]) -> T | None:
        try:
            return what()
        except (DataError, OSError, ValueError) as error:
            faults.append(error.found if isinstance(error, DataError) else str(error))
            return None

    kept = (read(partial(_kept, name, number)) for number in reading.versions(name))
    found = tuple(each for each in kept if each)
    runs = tuple(tried.runs(name, left))
    jobs = [(folder, job) for folder, _, job in predictions.below_artifacts(left) if job and job.model.name == name]
    done = sorted((job for _, job in jobs if job.status == "done"), key=lambda job: job.finished_at or "")
    return Overview(
        name=name,
        pointer=read(lambda: reading.champion(name)),
        versions=found,
        runs=runs,
        jobs=tuple(done[::-1]),
        changes=(read(lambda: history.changes(name)) or ())[::-1],
        source=read(lambda: _source(name)),
        disk=_disk(name, found[-1].manifest.dataset.name if found else name, runs, [folder for folder, _ in jobs]),
        faults=tuple(faults),
    )


def is_known(name: str) -> bool:
    """Whether there is anything to tell of a name."""
    return bool(reading.versions(name)) or bool(tried.runs(name))


def errors_in_data(run: Tried) -> tuple[str, ...]:
    """What validation stopped a run for, a sentence each; none where it did not, or its report is not there."""
    path = Path(run.path) / artifact_paths.DATA_REPORT
    try:
        return tuple(finding.sentence for finding in DataReport.read(path).errors)
    except DataError:
        return ()


def _kept(name: str, number: int) -> Kept:
    return Kept(reading.manifest(name, number), disk.size(artifact_paths.version(name, number)))


def _source(name: str) -> str | None:
    path = artifact_paths.source(name)
    return own_data.Source.read(path).source if os.path.lexists(path) else None


def _disk(name: str, dataset: str, runs: Iterable[Tried], jobs: Iterable[Path]) -> Disk:
    total, free = disk.room(artifact_paths.root())
    return Disk(
        versions=disk.size(artifact_paths.model(name)),
        data=disk.size(artifact_paths.dataset(dataset)),
        runs=sum(disk.size(Path(run.path)) for run in runs),
        predictions=sum(map(disk.size, jobs)),
        free=free,
        total=total,
    )
