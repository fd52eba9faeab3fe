"""``artifacts/runs/<run>/``: the evidence of one run, whatever became of it."""

import os
from collections import defaultdict
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.errors import DataError, TrainingDiverged
from tasks.parameters import ModelName
from tasks.parameters.training import list_defaults
from tasks.records import GateVerdict
from tasks.store import artifact_paths, atomic, folders, locks, model_folder
from tasks.store.artifact_paths import RUN
from tasks.store.documents import Document, RootDocument
from tasks.store.model_folder import Moment
from tasks.store.record_base import Record


class RunNotes(RootDocument):
    """``run.json``: what a run was asked for, how long each stage took, and the record that it returned."""

    run: str
    parameters: dict[str, Any]
    seconds: dict[str, float]
    stages: dict[str, dict[str, Any]]
    exit_code: int | None = None  # of one that has failed otherwise than by a kill
    time_limit: float | None = None  # seconds, of one that has ended by it
    noted_at: Moment | None = None  # when any of this was noted last: the end of a run that has ended


class RunFolder(Record):
    """A run's folder; ``run.json`` in it grows with every stage."""

    path: Path
    name: str = ""  # of the model
    force: bool = False

    @classmethod
    def open(cls, run: str, parameters: dict[str, Any]) -> "RunFolder":
        """Make the folder of ``run`` and note its parameters; a retried run finds its folder again.

        What killed runs left half-written anywhere in ``artifacts/``, or as a folder without a version, is swept first.
        ``force`` among the parameters keeps stages from being reused.

        Raises:
            EnvironmentProblem: a restore was begun here and not finished.
        """
        locks.refuse_half_restored()
        asked = {field: parameters[field] for field in ("name", "force") if field in parameters}
        folder = cls(path=artifact_paths.runs() / run, **asked)
        atomic.sweep(artifact_paths.make_root())
        folders.sweep_models()
        with folder.in_use():
            if folder.file(RUN).exists():
                folder.note_failure(None)  # not yet; to housekeeping it is young again
            else:
                RunNotes(run=run, parameters=parameters, seconds={}, stages={}).write(folder.file(RUN))
        return folder

    def in_use(self) -> AbstractContextManager[None]:
        """While the block runs, housekeeping leaves the folder alone, however long ago something was noted in it."""
        otherwise = f"another process is at work on {self.path}; waiting for it"
        return locks.hold_lock(artifact_paths.lock(self.path), otherwise)

    def read(self) -> RunNotes:
        """Everything noted so far.

        Raises:
            DataError: ``run.json`` is damaged.
        """
        return RunNotes.read(self.file(RUN))

    def note(self, **sections: dict[str, Any]) -> None:
        """Add to ``seconds`` and ``stages`` by name, and write the whole document atomically."""
        notes = self.read()
        self._write(notes, **{section: getattr(notes, section) | more for section, more in sections.items()})

    def note_failure(self, exit_code: int | None, time_limit: float | None = None) -> None:
        """Note with which exit code the run ends, and the seconds that it may have taken, where it has taken more."""
        self._write(self.read(), exit_code=exit_code, time_limit=time_limit)

    def _write(self, notes: RunNotes, **update: Any) -> None:
        update["noted_at"] = model_folder.format_now()
        notes.model_copy(update=update).write(self.file(RUN))

    def file(self, name: str) -> Path:
        """The path of an evidence file."""
        return self.path / name


# What retrains came to


LARGEST = 2**24  # bytes of notes; those of a table of 2000 columns have 3 million
REMEMBERED = 10_000  # runs, by a process that reads the store again and again
JUDGING = ("evaluate", "export", "publish")  # the stages with gates
Outcome = Literal["published", "unchanged", "judged", "refused", "running", "failed", "unfinished"]


class RunSummary(Document):
    """One retrain. A figure is None where the run did not come so far."""

    run: str
    name: str
    outcome: Outcome
    detail: str = ""  # which gates refused it; in which stage a failed or unfinished one has ended
    version: int | None
    date: str  # when it was to start
    test_accuracy: float | None
    test_loss: float | None
    validation_loss: float | None
    seconds: float
    stage_seconds: dict[str, float]
    settings: dict[str, Any]  # every field of ``training``, and what own data or a search decided
    changed: dict[str, Any]  # of these, what is not a default
    dataset_digest: str | None
    path: str
    exit_code: int | None = None  # of one that has failed; an unfinished one was killed or interrupted
    time_limit: float | None = Field(None, lt=1e9)  # seconds, of one that has failed by it
    gates: tuple[GateVerdict, ...] = Field((), exclude=True)  # every verdict, for pages
    ended: str = Field("", exclude=True)  # when something was last noted of it; of an older run when it was to start

    @property
    def ended_well(self) -> bool:
        """Whether it did what was asked for, and no gate refused the candidate."""
        return self.outcome in ("published", "unchanged", "judged")

    @property
    def is_judged(self) -> bool:
        """Whether it came to a verdict: its candidate went through the gates, or its training diverged."""
        return self.outcome in ("published", "judged", "refused") or self.exit_code == TrainingDiverged.exit_code

    @property
    def in_words(self) -> str:
        """What it came to, in a few words."""
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
    """What a retrain came to that did not fail, in the words of pages and terminal."""
    return {
        "published": f"published version {version}",
        "unchanged": f"unchanged: version {version}",
        "refused": f"refused by {refused_by}",
        "judged": "passed every gate and published nothing",
        "running": "is going on",
    }[outcome]


def list_changed(training: dict[str, Any], defaults: str) -> dict[str, Any]:
    """What of the training's settings, as JSON has them, is given and not a default of the ``book``, or of ``data``.

    Of a kind of model that only a newer version of Gradmill knows every setting is.
    """
    usual = list_defaults(training["model"], defaults) if training["model"] in [*ModelName] else {}
    return {name: value for name, value in training.items() if value is not None and value != usual.get(name)}


def list_folders(name: str | None = None) -> dict[str, list[Path]]:
    """The folders of runs, the newest first, by what their names have between time and id.

    That is the model's name, of other flows than retrains with the flow's before it; of a ``name`` these alone.
    """
    found = defaultdict(list)
    for folder in sorted(artifact_paths.runs().glob(f"*-{name}-*" if name else "*"), reverse=True):
        subject = folder.name.partition("-")[2].rpartition("-")[0]
        if (name is None or subject == name or subject.endswith(f"-{name}")) and os.path.lexists(folder / RUN):
            found[subject].append(folder)
    return found


def read_folder(folder: Path) -> tuple[str, RunSummary | None]:
    """The name of the model that a run is of, and what a retrain came to; None of another flow's run.

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
    """What was measured after each epoch of the run of this id; nothing where its notes are gone or say nothing."""
    with suppress(DataError, OSError, LookupError, TypeError, AttributeError):
        curve = RunNotes.read(artifact_paths.runs() / run / RUN).stages["train"]["learning_curve"]
        return [{name: each for name, each in point.items() if isinstance(each, int | float)} for point in curve]
    return []


@lru_cache(REMEMBERED)
def _summarise(folder: Path, *_look: int) -> tuple[str, RunSummary | None]:
    """``_look`` is of the notes: others are read anew."""
    notes = RunNotes.read(folder / RUN)
    parameters, stages = notes.parameters, notes.stages
    name = str(parameters.get("name", ""))
    if "gates" not in parameters:
        return name, None
    trained, metrics = stages.get("train", {}), stages.get("evaluate", {}).get("metrics", {})
    verdicts = (gate for stage in JUDGING for gate in stages.get(stage, {}).get("gates", ()))
    gates = tuple(map(GateVerdict.model_validate, verdicts))
    decided = stages.get("unchanged") or stages.get("publish") or {}
    is_own = stages.get("download", {}).get("name") == name  # the book's data have names of their own
    last_stage = next((stage for stage in notes.seconds if stage not in stages), "")
    outcome: Outcome = "unfinished" if notes.exit_code is None else "failed"
    detail = last_stage
    if refused_by := [gate.name for gate in gates if not gate.passed]:
        outcome, detail = "refused", ", ".join(refused_by)
    elif decided:
        outcome, detail = decided.get("outcome", "unchanged"), decided.get("detail", "")
    best = trained["learning_curve"][trained["kept_epoch"] - 1] if trained else {}  # whose weights were kept
    try:  # its folder's name begins with when it was to start
        date = datetime.strptime(folder.name.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
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
        gates=gates,
        ended=notes.noted_at or started,
    )
