"""The facts of one name, from the store alone: what is live, what its runs came to, predictions, changes, disk.

What cannot be read is among the ``faults``; all else is told all the same.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from tasks.data.report import DataReport
from tasks.errors import DataError, TrainingDiverged
from tasks.parameters import ModelName
from tasks.records import GateVerdict
from tasks.store import artifact_paths, disk, evidence, history, mirroring, own_data, reading, room, schedules, tried
from tasks.store.evidence import Evidence, OfName
from tasks.store.history import Change
from tasks.store.predictions import Job
from tasks.store.room import Room
from tasks.store.schedules import Schedules
from tasks.store.tried import JUDGED, Tried
from tasks.store.versions import ChampionPointer, Manifest

T = TypeVar("T")
DIVERGED = TrainingDiverged.exit_code
SHOWN = 20  # of the versions, beside those that are marked


class Kept(NamedTuple):
    """A version, the bytes of its folder, and of one that is shown the manifest, which may be large."""

    number: int
    gates: tuple[GateVerdict, ...]
    bytes: int
    manifest: Manifest | None


class Disk(NamedTuple):
    """Bytes that a name takes, and the room that is left."""

    versions: int
    data: int
    runs: int
    predictions: int
    left: Room

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
    jobs: tuple[Job, ...]  # the last that are done
    changes: tuple[Change, ...]
    source: str | None  # of own data
    scheduled: bool  # a deployment retrains it
    mirror: str | None  # how far the store's mirror is behind, in words; None of a store that has none
    disk: Disk
    faults: tuple[str, ...]

    @property
    def live(self) -> Manifest | None:
        """That of the champion, unless it is damaged."""
        number = self.pointer and self.pointer.version
        return next((kept.manifest for kept in self.versions if kept.number == number), None)

    @property
    def last_judged(self) -> Tried | None:
        """The newest run that came to a verdict, whatever came after it; training that diverged is one."""
        return next((run for run in self.runs if run.outcome in JUDGED or run.exit_code == DIVERGED), None)


def gather(name: str, found: Evidence | None = None) -> Overview:
    """Read everything that is known of a name; one of which nothing is known has neither versions nor runs.

    Whoever gathers more than one name reads the evidence before.
    """
    found = found or evidence.read(name)
    faults, of_name = found.faults(name), found.of[name]

    def read(what: Callable[[], T]) -> T | None:
        try:
            return what()
        except (DataError, OSError, ValueError) as error:
            faults.append(error.found if isinstance(error, DataError) else str(error))
            return None

    pointer, numbers = read(lambda: reading.champion(name)), reading.versions(name)
    shown = {*numbers[-SHOWN:], *((pointer.version, *pointer.held) if pointer else ())}
    kept = (read(partial(_kept, name, number, number in shown)) for number in numbers)
    versions = tuple(each for each in kept if each)
    return Overview(
        name=name,
        pointer=pointer,
        versions=versions,
        runs=tuple(of_name.runs),
        jobs=tuple(of_name.jobs),
        changes=(read(lambda: history.changes(name)) or ())[::-1],
        source=read(lambda: _source(name)),
        mirror=read(lambda: mirroring.describe(name)),
        scheduled=name in set(ModelName) or name in (read(schedules.read) or Schedules()).of_flow("retrain"),
        disk=_disk(name, next((each.manifest.dataset.name for each in versions[::-1] if each.manifest), name), of_name),
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


def _kept(name: str, number: int, is_shown: bool) -> Kept:
    manifest = reading.manifest(name, number)
    size = disk.size(artifact_paths.version(name, number))
    return Kept(number, manifest.gates, size, manifest if is_shown else None)


def _source(name: str) -> str | None:
    path = artifact_paths.source(name)
    return own_data.Source.read(path).source if os.path.lexists(path) else None


def _disk(name: str, dataset: str, of_name: OfName) -> Disk:
    return Disk(
        versions=disk.size(artifact_paths.model(name)),
        data=disk.size(artifact_paths.dataset(dataset)),
        runs=of_name.run_bytes,
        predictions=of_name.job_bytes,
        left=room.left(),
    )
