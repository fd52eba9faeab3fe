"""The state of the store, read once for every listing, page and figure.

A document that cannot be read becomes a ``Fault``, which hides nothing else.
"""

import heapq
import math
import os
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tasks.data.recipe import Columns
from tasks.data.report import DataReport
from tasks.errors import DataError, GradmillError
from tasks.parameters import ModelName, is_name
from tasks.records import GateVerdict
from tasks.store import (
    artifact_paths,
    folders,
    history,
    locks,
    mirror_sync,
    model_folder,
    own_data,
    predictions,
    run_folder,
    tuning_result,
    verification,
    verified_files,
)
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST, ONNX, RUN
from tasks.store.history import Change
from tasks.store.model_folder import ChampionPointer, Manifest
from tasks.store.predictions import Job
from tasks.store.run_folder import Outcome, RunSummary
from tasks.store.verified_files import RESTORE, WRITTEN

REMEMBERED = 10_000  # versions, in a process that reads the store repeatedly
NEWEST = 30  # number of newest runs that are read for each name
MOST = 1000  # the maximum, if none of the newest was judged
LISTED_JOBS = 10  # number of newest jobs that are listed for each name
Kind = Literal["champion", "version", "history", "run", "job", "source", "mirror", "tuned"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Fault(NamedTuple):
    """A document that cannot be read; ``name`` is empty if it may belong to any name."""

    kind: Kind
    name: str
    found: str
    expected: str
    action: str


class KeptVersion(NamedTuple):
    """A kept version; its manifest lacks the recipe's columns and their profiles, which may be many."""

    number: int
    model_bytes: int
    bytes: int  # total size of its folder
    manifest: Manifest


@dataclass
class NameState:
    """The state of a name; versions are ascending, everything else begins with the newest."""

    name: str
    pointer: ChampionPointer | None = None
    numbers: Sequence[int] = ()  # of all kept versions
    versions: list[KeptVersion] = field(default_factory=list)  # those whose manifest can be read
    changes: Sequence[Change] = ()
    runs: list[RunSummary] = field(default_factory=list)  # its retrains
    report: DataReport | None = None  # on the data of the last finished run
    jobs: list[Job] = field(default_factory=list)  # the newest finished ones
    last_job: Job | None = None  # the last on a user's input: each retrain also predicts its own test split
    source: str | None = None  # of own data
    files: dict[int, Sequence[str]] = field(default_factory=dict)  # of own data, that each version was trained on
    is_scheduled: bool = False  # whether a deployment retrains it
    mirror: str | None = None  # the state of its mirror, in words; None if the store has no mirror
    behind: str | None = None  # what the mirror lacks, in words
    run_folders: list[Path] = field(default_factory=list)  # of runs of every kind
    job_folders: list[Path] = field(default_factory=list)
    faults: Sequence[Fault] = ()

    @property
    def is_known(self) -> bool:
        """Whether the name has a version or a run."""
        return bool(self.numbers or self.runs)

    @property
    def live(self) -> Manifest | None:
        """The champion's manifest, unless it is damaged."""
        number = self.pointer and self.pointer.version
        return next((version.manifest for version in self.versions if version.number == number), None)

    @property
    def last_ended(self) -> RunSummary | None:
        """The newest run that has ended."""
        return next((run for run in self.runs if run.outcome != "running"), None)

    @property
    def last_judged(self) -> RunSummary | None:
        """The newest run that came to a verdict, whatever followed it."""
        return next((run for run in self.runs if run.is_judged), None)

    @property
    def errors_in_data(self) -> tuple[str, ...]:
        """The errors for which validation stopped the newest run, one sentence each."""
        if self.report is None or self.runs[0] != self.last_ended:
            return ()
        return tuple(finding.sentence for finding in self.report.errors)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per version, as ``gradmill models --json`` prints them."""
        current, held = (self.pointer.version, self.pointer.held) if self.pointer else (None, ())
        return [
            {
                "version": number,
                "champion": number == current,
                "frozen": number == current and self.pointer is not None and self.pointer.frozen,
                "held": number in held,
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
                "accepted": [
                    finding.in_words
                    for finding in manifest.dataset.accepted
                    if finding.column and not history.is_forgotten(self.changes, number)
                ],
            }
            for number, model_bytes, _, manifest in self.versions
        ]

    @cached_property
    def disk(self) -> dict[str, int]:
        """The disk usage of the name in bytes, by kind, measured on access."""
        dataset = self.versions[-1].manifest.dataset.name if self.versions else self.name
        return {
            "versions": folders.size(artifact_paths.model(self.name)),
            "data": folders.size(artifact_paths.dataset(dataset)),
            "runs": sum(map(folders.size, self.run_folders)),
            "predictions": sum(map(folders.size, self.job_folders)),
        }


@dataclass
class StoreState:
    """The state of the store, by name, and all faults."""

    names: dict[str, NameState] = field(default_factory=dict)
    mirror: str | None = None  # URL
    faults: list[Fault] = field(default_factory=list)

    def add(self, name: str) -> NameState:
        """The state of a name, which is added if it is unknown."""
        return self.names.setdefault(name, NameState(name))

    def leave(self, kind: Kind, path: Path, error: Exception, name: str = "") -> None:
        """Record a document that cannot be read, unless it has been removed meanwhile."""
        if os.path.lexists(path):
            known = error if isinstance(error, GradmillError) else DataError(str(error), WRITTEN, RESTORE)
            found = known.found if str(path) in known.found else f"{path}: {known.found}"
            fault = Fault(kind, name, found, known.expected, known.action)
            self.faults += [] if fault in self.faults else [fault]  # several versions may share a document

    def collect_faults(self, kind: Kind, path: Path, name: str = "") -> AbstractContextManager[None]:
        """Continue after the block if a document at ``path`` cannot be read."""
        return folders.skip_unreadable(path, partial(self.leave, kind, name=name))


def read(name: str | None = None, newest: int = NEWEST, only: Collection[Kind] = KINDS) -> StoreState:
    """Read the state of all names or, faster, of one, which is included even if nothing is known of it.

    Of each name's runs the ``newest`` are read, and older ones if none of these was judged; of documents the kinds in
    ``only``. No lock is taken.
    """
    state = StoreState()
    for each in [name] if name else model_folder.list_names():
        state.add(each)
    if "run" in only:
        _read_runs(state, name, newest)
    if "job" in only:
        _read_jobs(state, name)
    if "tuned" in only:
        for path in sorted(artifact_paths.all_tuned().glob(f"{name or '*'}.json")):
            with state.collect_faults("tuned", path, path.stem):
                tuning_result.read(path.stem)
    if "mirror" in only:
        with state.collect_faults("mirror", artifact_paths.mirror()):
            if mirror := mirror_sync.read():
                state.mirror = mirror.url
                for each, behind in mirror.list_behind().items():
                    if each in state.names:
                        state.names[each].behind = behind
    state.names = dict(sorted(state.names.items()))
    for each, of_name in state.names.items():
        _read_documents(state, of_name, only)
        of_name.is_scheduled = each in list(ModelName) or artifact_paths.retention(each).exists()
        if state.mirror and of_name.pointer:
            of_name.mirror = of_name.behind or f"{state.mirror} has this champion"
        of_name.faults = [
            fault
            for fault in state.faults
            if fault.name in ("", each) or (fault.kind == "run" and fault.name.endswith(f"-{each}"))
        ]
    return state


def read_name(name: str) -> NameState:
    """The state of one name."""
    return read(name).names[name]


def _read_runs(state: StoreState, name: str | None, newest: int) -> None:
    """Read the runs of each name separately, so that runs of one never displace those of another."""
    for subject, of_subject in run_folder.list_folders(name).items():
        owner, judged = subject if subject in state.names else "", list[bool]()  # it may begin with a flow's name
        for at, folder in enumerate(of_subject[: max(newest, MOST)]):
            if at >= newest and (not judged or any(judged)):
                break
            with state.collect_faults("run", folder / RUN, subject):
                owner, retrain = run_folder.read_folder(folder)
                if retrain and name in (None, retrain.name):  # a name may begin like another flow's subjects
                    state.add(retrain.name).runs.append(retrain)
                    judged.append(retrain.is_judged)
        if is_name(owner) and name in (None, owner):
            state.add(owner).run_folders += of_subject
    for of_name in state.names.values():
        of_name.runs.sort(key=lambda run: run.run, reverse=True)
        if last := of_name.last_ended:
            with state.collect_faults("run", path := Path(last.path) / artifact_paths.DATA_REPORT, of_name.name):
                of_name.report = DataReport.find(path)


def _read_jobs(state: StoreState, name: str | None) -> None:
    jobs = list(predictions.list_jobs(partial(state.leave, "job")))
    for path in sorted(artifact_paths.done_elsewhere().glob(f"{name or '*'}.*.json")):
        with state.collect_faults("job", path, path.name.partition(".")[0]):
            jobs.append((path, Job.read(path, "remove it: the next job writes it again")))
    for folder, job in jobs:
        if job and is_name(job.model.name) and name in (None, job.model.name):
            of_name = state.add(job.model.name)
            if job.status == "done":
                of_name.jobs = heapq.nlargest(LISTED_JOBS, [*of_name.jobs, job], key=_finished_at)
                if not job.is_of_own_test_split:
                    of_name.last_job = max(of_name.last_job or job, job, key=_finished_at)
            of_name.job_folders.append(folder)


def _finished_at(job: Job) -> str:
    return job.finished_at or ""


def _read_documents(state: StoreState, of_name: NameState, only: Collection[Kind]) -> None:
    """Read the documents that belong to one name."""
    name, model = of_name.name, artifact_paths.model(of_name.name)
    with state.collect_faults("version", model, name):
        of_name.numbers = model_folder.list_versions(name)
    if "champion" in only:
        with state.collect_faults("champion", model, name):
            of_name.pointer = model_folder.find_champion(name)
            if of_name.numbers and not of_name.pointer and not locks.is_held(artifact_paths.lock(model)):
                raise model_folder.lost_pointer_error(name)
    for number in of_name.numbers if "version" in only else ():
        with state.collect_faults("version", folder := artifact_paths.version(name, number), name):
            of_name.versions.append(_read_version(folder, _fingerprint_files(folder)))
    if "history" in only:
        with state.collect_faults("history", model, name):
            of_name.changes = history.list_changes(name)[::-1]
    if "source" in only:
        with state.collect_faults("source", path := artifact_paths.source(name), name):
            of_name.source = source.source if (source := own_data.Source.find(path)) else None
        for version in of_name.versions:
            path = artifact_paths.trained_files(name, version.manifest.dataset.digest)
            with state.collect_faults("source", path, name):
                if trained := own_data.TrainedFiles.find(path):
                    of_name.files[version.number] = trained.files


def _fingerprint_files(folder: Path) -> tuple[int, ...]:
    """Values that change when a file of a version is rewritten, replaced or removed."""
    fingerprint = list[int]()
    for filename in (MANIFEST, CHECKSUMS, ONNX):
        with suppress(OSError):
            facts = (folder / filename).stat()
            fingerprint += facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
    return tuple(fingerprint)


@lru_cache(REMEMBERED)
def _read_version(folder: Path, _fingerprint: tuple[int, ...]) -> KeptVersion:
    """A version never changes; it is read again if its files look different."""
    manifest = model_folder.read_manifest(folder)
    dataset = manifest.dataset.model_copy(update={"profiles": ()})
    slim = manifest.model_copy(update={"dataset": dataset, "recipe": Columns(columns=())})
    with verified_files.open_verified(folder / ONNX, model_folder.advise_on_damage(folder)) as model:
        return KeptVersion(int(folder.name), os.fstat(model.fileno()).st_size, folders.size(folder), slim)


# Verification of everything


def verify() -> tuple[list[tuple[str, int]], list[Fault]]:
    """Check every version, pointer, history and other document, and that finished jobs have their parts.

    Returns the name and number of every whole version, and what is damaged or missing, with what mends it.
    """
    store, whole = read(newest=MOST), list[tuple[str, int]]()
    for name, of_name in store.names.items():
        if of_name.numbers:
            with store.collect_faults("champion", artifact_paths.model(name), name):
                verification.verify_name(name)
        for number in of_name.numbers:
            with store.collect_faults("version", artifact_paths.version(name, number), name):
                verification.verify_thoroughly(name, number, needs_rows=True)
                whole.append((name, number))
    for folder, job in predictions.list_jobs(lambda *_: None):
        if job and job.status == "done":
            with store.collect_faults("job", folder, job.model.name):
                predictions.require_parts(folder, job)
    return whole, [*{fault.found: fault for fault in store.faults}.values()]


# The history of the figure that a gate judges

DRAWN_RUNS = 30
# The first of these gates that a model has is drawn, with its value and its bound.
DRAWN = {"test_accuracy": "test accuracy", "test_loss": "test loss", "reference": "test loss"}
AGAINST_CHAMPION = {"test_accuracy": "champion_accuracy", "test_loss": "champion_loss", "reference": "champion_loss"}


class Point(NamedTuple):
    """One run: its judged figure (None: it did not get that far), its bound, and the live version after it."""

    date: str
    outcome: Outcome
    value: float | None
    bound: float | None
    live: int | None
    live_value: float | None


class Trend(NamedTuple):
    """The newest runs, the oldest first; ``figure`` is in words, and with ``is_loss`` less is better."""

    figure: str
    is_loss: bool
    points: tuple[Point, ...]


def find_trend(facts: NameState) -> Trend | None:
    """The trend of a name with the version that was live; None if no run or version has such a gate."""
    of_versions = {run.version or 0: run.gates for run in facts.runs if run.outcome == "published"}
    of_versions |= {version.number: version.manifest.gates for version in facts.versions}
    judged = (*(run.gates for run in facts.runs), *of_versions.values())
    name = next((gate.name for gates in judged for gate in gates if gate.name in DRAWN), None)
    if name is None:
        return None
    points = []
    for run in facts.runs[:DRAWN_RUNS][::-1]:
        own, ended = {gate.name: gate for gate in run.gates}, datetime.fromisoformat(run.ended)
        live = next(
            (
                change.champion
                for change in facts.changes
                if not change.interrupted and (change.by == run.run or datetime.fromisoformat(change.at) <= ended)
            ),
            None,
        )
        value, bound = own[name].value if name in own else None, _find_bound(own, name)
        live_value = next((gate.value for gate in of_versions.get(live or 0, ()) if gate.name == name), None)
        points.append(Point(run.date, run.outcome, value, bound, live, live_value))
    return Trend(DRAWN[name], name != "test_accuracy", tuple(points))


def _find_bound(gates: dict[str, GateVerdict], name: str) -> float | None:
    """The strictest bound on the figure that is drawn: a minimum for accuracy, a maximum for a loss."""
    drawn, against = gates.get(name), gates.get(AGAINST_CHAMPION[name])
    if drawn is None:
        return None
    if against is None or against.maximum is None:
        return drawn.maximum if drawn.minimum is None else drawn.minimum
    if drawn.minimum is not None:  # for accuracy, the drop below champion or best version is judged
        return max(drawn.minimum, drawn.value + against.value - against.maximum)
    bounds = [drawn.maximum, against.maximum if math.isclose(against.value, drawn.value) else None]
    return min((bound for bound in bounds if bound is not None), default=None)
