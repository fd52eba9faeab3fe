"""``artifacts/runs/<run>/``: the evidence of one run, however it ended."""

import os
from collections import defaultdict
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from tasks.errors import DataError, TrainingDiverged
from tasks.parameters import ModelName, is_name
from tasks.parameters.training import list_defaults
from tasks.records import GateVerdict, PublishedModel
from tasks.store import artifact_paths, atomic, folders, locks, model_folder
from tasks.store.artifact_paths import RUN
from tasks.store.documents import Document, RootDocument
from tasks.store.model_folder import Moment
from tasks.store.record_base import Record

JUDGING = ("evaluate", "export", "publish")  # the stages with gates
UNCHANGED = "unchanged"  # in place of a stage: the version that the same data have made already
R = TypeVar("R", bound=Record)


class RunRecord(RootDocument):
    """``run.json``: the parameters of a run, the duration of each stage, and the record that it returned."""

    run: str
    parameters: dict[str, Any]
    seconds: dict[str, float]
    stages: dict[str, dict[str, Any]]
    exit_code: int | None = None  # of a run that failed, except by a kill
    time_limit: float | None = None  # in seconds, of a run that was stopped by it
    noted_at: Moment | None = None  # when any of this was last written: the end of a finished run

    def find_result(self, stage: str, kind: type[R]) -> R | None:
        """The record that a stage returned; None if it did not come to its end."""
        return kind.model_validate(self.stages[stage]) if stage in self.stages else None

    @property
    def gates(self) -> tuple[GateVerdict, ...]:
        """Every verdict on the candidate, in the order of the stages."""
        verdicts = (gate for stage in JUDGING for gate in self.stages.get(stage, {}).get("gates", ()))
        return tuple(map(GateVerdict.model_validate, verdicts))

    @property
    def refused_by(self) -> list[str]:
        """The names of the gates that refused the candidate."""
        return [gate.name for gate in self.gates if not gate.passed]

    @property
    def published(self) -> PublishedModel | None:
        """What became of the candidate, or the version that stays because the data are unchanged."""
        if UNCHANGED in self.stages:
            return self.find_result(UNCHANGED, PublishedModel)
        return None if self.refused_by else self.find_result("publish", PublishedModel)

    @property
    def is_decided(self) -> bool:
        """Whether the candidate went through all gates or was refused, or no candidate was needed."""
        return bool(self.published or self.refused_by)


class RunFolder(Record):
    """A run's folder; ``run.json`` in it grows with every stage."""

    path: Path
    name: str = ""  # of the model

    @classmethod
    def open(cls, run: str, parameters: dict[str, Any]) -> "RunFolder":
        """Create the folder of ``run`` and record its parameters; a retried run begins its record anew.

        First, half-written files of killed runs anywhere in ``artifacts/`` and folders without a version are removed.
        """
        folder = cls(path=artifact_paths.runs() / run, name=parameters.get("name", ""))
        atomic.sweep(artifact_paths.make_root())
        folders.sweep_models()
        with folder.in_use():
            RunRecord(run=run, parameters=parameters, seconds={}, stages={}).write(folder.file(RUN))
        return folder

    def in_use(self) -> AbstractContextManager[None]:
        """Keep housekeeping away from the folder during the block, however old its last note is."""
        otherwise = f"another process is working on {self.path}; waiting for it"
        return locks.hold_lock(artifact_paths.lock(self.path), otherwise)

    def read(self) -> RunRecord:
        """Everything recorded so far.

        Raises:
            DataError: ``run.json`` is damaged.
        """
        return RunRecord.read(self.file(RUN))

    def note(self, **sections: dict[str, Any]) -> None:
        """Add to ``seconds`` and ``stages`` by name, and write the whole document atomically."""
        notes = self.read()
        self._write(notes, **{section: getattr(notes, section) | more for section, more in sections.items()})

    def note_failure(self, exit_code: int | None, time_limit: float | None = None) -> None:
        """Record the exit code with which the run ends, and the time limit in seconds if it was exceeded."""
        self._write(self.read(), exit_code=exit_code, time_limit=time_limit)

    def _write(self, notes: RunRecord, **update: Any) -> None:
        update["noted_at"] = model_folder.format_now()
        notes.model_copy(update=update).write(self.file(RUN))

    def file(self, name: str) -> Path:
        """The path of an evidence file."""
        return self.path / name


# Outcomes of retrains


LARGEST = 2**24  # bytes of notes; for a table of 2000 columns they take 3 million
REMEMBERED = 10_000  # runs, in a process that reads the store repeatedly
Outcome = Literal["published", "unchanged", "judged", "refused", "running", "failed", "unfinished"]


class RunSummary(Document):
    """One retrain. A figure is None if the run did not get that far."""

    run: str
    name: str
    outcome: Outcome
    detail: str = ""  # which gates refused it, or the stage in which a failed or unfinished run ended
    version: int | None
    date: str  # the scheduled start
    test_accuracy: float | None
    test_loss: float | None
    validation_loss: float | None
    seconds: float
    stage_seconds: dict[str, float]
    settings: dict[str, Any]  # every field of ``training``, and what own data or a search decided
    changed: dict[str, Any]  # the settings that are not defaults
    dataset_digest: str | None
    path: str
    exit_code: int | None = None  # of a failed run; an unfinished one was killed or interrupted
    time_limit: float | None = Field(None, lt=1e9)  # in seconds, of a run that failed by it
    gates: tuple[GateVerdict, ...] = Field((), exclude=True)  # every verdict, for pages
    ended: str = Field("", exclude=True)  # when it was last written; of an older run its scheduled start

    @property
    def ended_well(self) -> bool:
        """Whether it did what was asked for and no gate refused the candidate."""
        return self.outcome in ("published", "unchanged", "judged")

    @property
    def is_judged(self) -> bool:
        """Whether it came to a verdict: its candidate reached the gates, or its training diverged."""
        return self.outcome in ("published", "judged", "refused") or self.exit_code == TrainingDiverged.exit_code

    @property
    def in_words(self) -> str:
        """The outcome in a few words."""
        stage = f" in {self.detail}" if self.detail else ""
        if self.time_limit is not None:
            return f"reached its time limit of {timedelta(seconds=self.time_limit)}{stage}"
        if self.outcome not in ("failed", "unfinished"):
            return describe_outcome(self.outcome, self.version, self.detail)
        ended = {
            None: f"was interrupted{stage}" if stage else "was killed",
            TrainingDiverged.exit_code: f"diverged{stage}",
            DataError.exit_code: f"was stopped by its data{stage}",
        }
        return ended.get(self.exit_code, f"failed{stage} (exit code {self.exit_code})")


def describe_outcome(outcome: str, version: int | None, refused_by: str) -> str:
    """The outcome of a retrain that did not fail, as pages and the terminal show it."""
    return {
        "published": f"published version {version}",
        "unchanged": f"unchanged: version {version}",
        "refused": f"refused by {refused_by}",
        "judged": "passed every gate and published nothing",
        "running": "is going on",
    }[outcome]


def list_changed(training: dict[str, Any], defaults: str) -> dict[str, Any]:
    """The given training settings, as in JSON, that are not defaults of the ``book`` or of ``data``.

    For a kind of model that only a newer version of Gradmill knows, these are all settings.
    """
    usual = list_defaults(training["model"], defaults) if training["model"] in [*ModelName] else {}
    return {name: value for name, value in training.items() if value is not None and value != usual.get(name)}


def list_folders(name: str | None = None) -> dict[str, list[Path]]:
    """The folders of runs, the newest first, by the part of their names between time and id; others are not ours.

    That part is the model's name, preceded by the flow's name for other flows than retrains. With ``name``, only its
    runs.
    """
    found = defaultdict(list)
    for folder in sorted(artifact_paths.runs().glob(f"*-{name}-*" if name else "*"), reverse=True):
        subject = folder.name.partition("-")[2].rpartition("-")[0]
        is_wanted = name is None or subject == name or subject.endswith(f"-{name}")
        if is_wanted and artifact_paths.RUN_NAME.fullmatch(folder.name) and os.path.lexists(folder / RUN):
            found[subject].append(folder)
    return found


def read_folder(folder: Path) -> tuple[str, RunSummary | None]:
    """The name of the model of a run, and the outcome of a retrain (None for the run of another flow).

    Raises:
        DataError: its notes are not as gradmill writes them.
        OSError: they cannot be read.
    """
    path, noted = folder / RUN, (folder / RUN).stat()
    if noted.st_size > LARGEST:
        raise DataError(f"{path} has over {LARGEST:,} bytes", "the notes of a run", "remove its folder")
    try:
        name, summary = _summarise(folder, noted.st_ino, noted.st_mtime_ns, noted.st_size)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        found = f"{path} is not as gradmill writes it: {type(error).__name__}"
        raise DataError(found, "the notes of a run", "remove its folder") from error
    if summary and summary.outcome == "unfinished" and locks.is_held(artifact_paths.lock(folder)):
        return name, summary.model_copy(update={"outcome": "running", "detail": ""})
    return name, summary


def read_learning_curve(run: str) -> list[dict[str, Any]]:
    """The learning curve of the run with this id; empty if its notes are missing or have none."""
    with suppress(DataError, OSError, LookupError, TypeError, AttributeError):
        curve = RunRecord.read(artifact_paths.runs() / run / RUN).stages["train"]["learning_curve"]
        return [{name: each for name, each in point.items() if isinstance(each, int | float)} for point in curve]
    return []


@lru_cache(REMEMBERED)
def _summarise(folder: Path, *_fingerprint: int) -> tuple[str, RunSummary | None]:
    """Summarise a run; ``_fingerprint`` is the state of its notes, which are read again when it changes."""
    notes = RunRecord.read(folder / RUN)
    parameters, stages = notes.parameters, notes.stages
    name = str(parameters.get("name", ""))
    if "gates" not in parameters:
        return name, None
    if not is_name(name):
        raise ValueError(name)
    trained, metrics = stages.get("train", {}), stages.get("evaluate", {}).get("metrics", {})
    decided = stages.get(UNCHANGED) or stages.get("publish") or {}
    is_own = stages.get("download", {}).get("name") == name  # the book's datasets have their own names
    outcome: Outcome = "unfinished" if notes.exit_code is None else "failed"
    detail = next((stage for stage in notes.seconds if stage not in stages), "")  # the stage in which it ended
    if notes.refused_by:
        outcome, detail = "refused", ", ".join(notes.refused_by)
    elif decided:
        outcome, detail = decided.get("outcome", "unchanged"), decided.get("detail", "")
    best: dict[str, Any] = {}
    if trained:  # the fit of a table, or the epoch whose weights were kept
        best = trained.get("fit") or trained["learning_curve"][trained["kept_epoch"] - 1]
    try:  # the name of its folder begins with the scheduled start
        date = datetime.strptime(folder.name.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:  # somebody's folder, such as 20269999T030000-houses-0000abcd
        date = datetime.fromtimestamp((folder / RUN).stat().st_mtime, UTC)
    started, has_failed = date.isoformat(timespec="seconds"), outcome == "failed"
    return name, RunSummary(
        run=folder.name,
        name=parameters["name"],
        outcome=outcome,
        detail=detail,
        version=decided.get("version"),
        date=started,
        test_accuracy=metrics.get("test_accuracy"),
        test_loss=metrics.get("test_loss"),
        validation_loss=best.get("validation_loss"),
        seconds=round(sum(notes.seconds.values()), 3),
        stage_seconds=notes.seconds,
        settings=parameters["training"] | (trained.get("steps") or {}),
        changed=list_changed(parameters["training"], "data" if is_own else "book"),
        dataset_digest=stages.get("preprocess", {}).get("digest"),
        path=str(folder),
        exit_code=notes.exit_code if has_failed else None,
        time_limit=notes.time_limit if has_failed else None,
        gates=notes.gates,
        ended=notes.noted_at or started,
    )
