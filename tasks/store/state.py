"""The facts of the store, read once: what every listing, page and figure shows.

A document that cannot be read is a ``Fault`` among them, which hides nothing else.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks.data.recipe import Columns
from tasks.data.report import DataReport
from tasks.errors import DataError
from tasks.parameters import ModelName, is_name
from tasks.store import (
    artifact_paths,
    disk,
    history,
    mirroring,
    own_data,
    predictions,
    reading,
    schedules,
    verified,
)
from tasks.store import runs as run_folders
from tasks.store.artifact_paths import MANIFEST, ONNX, RUN
from tasks.store.disk import Room
from tasks.store.history import Change
from tasks.store.mirroring import Behind
from tasks.store.predictions import Job
from tasks.store.runs import RunSummary
from tasks.store.verified import RESTORE, WRITTEN
from tasks.store.versions import ChampionPointer, Manifest

REMEMBERED = 10_000  # versions, by a process that reads the store again and again
NEWEST = 30  # runs of a name that are read
MOST = 1000  # that are, where none of the newest was judged
Kind = Literal["champion", "version", "history", "run", "job", "schedules", "source", "mirror"]


class Fault(NamedTuple):
    """A document that cannot be read; ``name`` is empty where it may be of any name."""

    kind: Kind
    name: str
    found: str
    expected: str
    action: str


class Version(NamedTuple):
    """A kept version; its manifest is without columns of the recipe and their profiles, which may be many."""

    number: int
    model_bytes: int
    bytes: int  # of its folder
    manifest: Manifest


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


@dataclass
class NameState:
    """All facts of a name; versions ascending, of everything else the newest first."""

    name: str
    pointer: ChampionPointer | None = None
    numbers: Sequence[int] = ()  # of all kept versions
    versions: list[Version] = field(default_factory=list)  # those whose manifest can be read
    highest: int | None = None  # number ever given; None: it cannot be read
    changes: Sequence[Change] = ()
    runs: list[RunSummary] = field(default_factory=list)  # that retrained it
    report: DataReport | None = None  # on the data of the last run that has ended
    jobs: list[Job] = field(default_factory=list)  # the last that are done
    last_job: Job | None = None  # the last of somebody's input: each retrain predicts its own test split, too
    num_jobs: Counter[str] = field(default_factory=Counter)  # by status
    source: str | None = None  # of own data
    is_scheduled: bool = False  # a deployment retrains it
    mirror: str | None = None  # what it has, in words; None of a store that has no mirror
    behind: Behind | None = None  # what the mirror has not got
    run_folders: list[Path] = field(default_factory=list)  # of runs of every kind
    job_folders: list[Path] = field(default_factory=list)
    faults: Sequence[Fault] = ()

    @property
    def is_known(self) -> bool:
        """Whether there is a version or a run."""
        return bool(self.numbers or self.runs)

    @property
    def live(self) -> Manifest | None:
        """That of the champion, unless it is damaged."""
        number = self.pointer and self.pointer.version
        return next((version.manifest for version in self.versions if version.number == number), None)

    @property
    def last_ended(self) -> RunSummary | None:
        """The newest run that is not going on."""
        return next((run for run in self.runs if run.outcome != "running"), None)

    @property
    def last_judged(self) -> RunSummary | None:
        """The newest run that came to a verdict, whatever came after it."""
        return next((run for run in self.runs if run.is_judged), None)

    @property
    def errors_in_data(self) -> tuple[str, ...]:
        """What validation stopped the newest run for, a sentence each."""
        is_of_newest = self.report and self.runs[0] == self.last_ended
        return tuple(finding.sentence for finding in self.report.errors) if self.report and is_of_newest else ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a version, as ``gradmill models --json`` prints it."""
        rows = []
        for number, model_bytes, _, manifest in self.versions:
            is_champion = self.pointer is not None and self.pointer.version == number
            row = {
                "version": number,
                "champion": is_champion,
                "frozen": is_champion and self.pointer is not None and self.pointer.frozen,
                "held": self.pointer is not None and number in self.pointer.held,
                "test_accuracy": manifest.metrics.test_accuracy,
                "test_loss": manifest.metrics.test_loss,
                "parity": next((gate.value for gate in manifest.gates if gate.name == "parity"), None),
                "bytes": model_bytes,
                "created_at": manifest.created_at,
                "dataset": manifest.dataset.name,
                "dataset_digest": manifest.dataset.digest,
                "implementation": manifest.parameters.training.implementation,
                "model_sha256": manifest.files[ONNX],
                "path": str(artifact_paths.version(self.name, number) / ONNX),
            }
            rows.append(row)
        return rows

    @cached_property
    def disk(self) -> Disk:
        """What the name takes, measured when it is asked for."""
        dataset = self.versions[-1].manifest.dataset.name if self.versions else self.name
        return Disk(
            versions=disk.size(artifact_paths.model(self.name)),
            data=disk.size(artifact_paths.dataset(dataset)),
            runs=sum(map(disk.size, self.run_folders)),
            predictions=sum(map(disk.size, self.job_folders)),
            left=disk.read_room(),
        )


@dataclass
class StoreState:
    """All facts of the store, by name, and all faults."""

    names: dict[str, NameState] = field(default_factory=dict)
    mirror: str | None = None  # URL
    faults: list[Fault] = field(default_factory=list)

    def add(self, name: str) -> NameState:
        """The name, of which nothing may be known yet."""
        return self.names.setdefault(name, NameState(name))

    def leave(self, kind: Kind, path: Path, error: str | Exception, name: str = "") -> None:
        """Note what cannot be read, unless somebody has removed it meanwhile."""
        if os.path.lexists(path):
            known = error if isinstance(error, DataError) else DataError(str(error), WRITTEN, RESTORE)
            found = known.found if str(path) in known.found else f"{path}: {known.found}"
            self.faults.append(Fault(kind, name, found, known.expected, known.action))

    @contextmanager
    def sparing(self, kind: Kind, path: Path, name: str = "") -> Iterator[None]:
        """Go on after the block if a document at ``path`` cannot be read."""
        try:
            yield
        except (DataError, OSError, ValueError) as error:
            self.leave(kind, path, error, name)


def read(name: str | None = None, newest: int = NEWEST) -> StoreState:
    """The state of all names or, faster, of one, which is there whether anything is known of it or not.

    Of each name's runs the ``newest`` are read, and older ones where none of these was judged. No lock is taken.
    """
    found = StoreState()
    for each in [name] if name else reading.names():
        found.add(each)
    _read_runs(found, name, newest)
    for folder, job in predictions.list_jobs(lambda path, error: found.leave("job", path, error)):
        if job and is_name(job.model.name) and name in (None, job.model.name):
            of_name = found.add(job.model.name)
            of_name.jobs = predictions.list_newest([*of_name.jobs, job])
            if not job.is_of_own_test_split:
                known = [of_name.last_job] if of_name.last_job else []
                of_name.last_job = next(iter(predictions.list_newest([*known, job], most=1)), None)
            of_name.num_jobs[job.status] += 1
            of_name.job_folders.append(folder)
    scheduled, behind = {*map(str, ModelName)}, dict[str, Behind]()
    with found.sparing("schedules", artifact_paths.schedules().parent):
        scheduled |= schedules.read().of_flow("retrain").keys()
    with found.sparing("mirror", artifact_paths.mirror()):
        if mirror := mirroring.read():
            found.mirror, behind = mirror.url, {each.name: each for each in mirroring.list_behind()}
    found.names = dict(sorted(found.names.items()))
    for each, of_name in found.names.items():
        of_name.is_scheduled, of_name.behind = each in scheduled, behind.get(each)
        _read_documents(found, of_name)
        if of_name.behind:
            of_name.mirror = of_name.behind.sentence
        elif found.mirror and of_name.pointer:
            of_name.mirror = f"{found.mirror} has this champion"
        of_name.faults = [
            fault
            for fault in found.faults
            if fault.name in ("", each) or (fault.kind == "run" and fault.name.endswith(f"-{each}"))
        ]
    return found


def read_name(name: str) -> NameState:
    """The state of one name."""
    return read(name).names[name]


def _read_runs(found: StoreState, name: str | None, newest: int) -> None:
    """Those of each name by themselves: however many there are of others, none is missing."""
    for subject, folders in run_folders.list_folders(name).items():
        owner, retrains = subject if subject in found.names else "", list[RunSummary]()  # it may begin with a flow's
        for at, folder in enumerate(folders[: max(newest, MOST)]):
            if at >= newest and (not retrains or any(run.is_judged for run in retrains)):
                break
            with found.sparing("run", folder / RUN, subject):
                owner, retrain = run_folders.read_folder(folder)
                retrains += [retrain] if retrain else []
        for run in retrains:  # a name may begin as the runs of another flow do
            if name in (None, run.name):
                found.add(run.name).runs.append(run)
        if is_name(owner) and name in (None, owner):
            found.add(owner).run_folders += folders
    for of_name in found.names.values():
        of_name.runs.sort(key=lambda run: run.run, reverse=True)


def _read_documents(found: StoreState, of_name: NameState) -> None:
    """Those that are of one name alone."""
    name = of_name.name
    with found.sparing("champion", artifact_paths.champion(name), name):
        of_name.pointer = reading.champion(name)
    with found.sparing("version", artifact_paths.model(name), name):
        of_name.numbers = reading.versions(name)
    for number in of_name.numbers:
        with found.sparing("version", folder := artifact_paths.version(name, number), name):
            path = folder / MANIFEST
            of_name.versions.append(_read_version(folder, path.stat().st_mtime_ns if path.exists() else 0))
    with found.sparing("history", artifact_paths.model(name), name):
        of_name.highest = history.highest_number(name)
        of_name.changes = history.changes(name)[::-1]
    with found.sparing("source", path := artifact_paths.source(name), name):
        of_name.source = own_data.Source.read(path).source if os.path.lexists(path) else None
    if (last := of_name.last_ended) and (path := Path(last.path) / artifact_paths.DATA_REPORT).exists():
        with found.sparing("run", path, name):
            of_name.report = DataReport.read(path)


@lru_cache(REMEMBERED)
def _read_version(folder: Path, mtime_ns: int) -> Version:
    """A version never changes; one whose manifest is of another time is read anew."""
    manifest = reading.read_manifest(folder)
    dataset = manifest.dataset.model_copy(update={"profiles": ()})
    slim = manifest.model_copy(update={"dataset": dataset, "recipe": Columns(columns=())})
    return Version(int(folder.name), verified.size(folder / ONNX, reading.advise(folder)), disk.size(folder), slim)
