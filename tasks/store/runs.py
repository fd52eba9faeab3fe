"""What retrains came to, published or not, as their ``run.json`` tells."""

from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.errors import DataError, TrainingDiverged
from tasks.parameters.training import list_defaults
from tasks.records import GateVerdict
from tasks.store import artifact_paths, locks
from tasks.store.artifact_paths import RUN
from tasks.store.documents import Document
from tasks.store.run_folder import RunNotes

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


def list_changed(training: dict[str, Any], is_own: bool) -> dict[str, Any]:
    """What of the training's settings, as JSON has them, is given and not the default of the book's or of own data."""
    defaults = list_defaults(training["model"], is_own)
    return {name: value for name, value in training.items() if value is not None and value != defaults.get(name)}


def list_folders(name: str | None = None) -> dict[str, list[Path]]:
    """The folders of runs, the newest first, by what their names have between time and id.

    That is the model's name, of other flows than retrains with the flow's before it; of a ``name`` these alone.
    """
    found = defaultdict(list)
    for notes in sorted(artifact_paths.runs().glob(f"{f'*-{name}-*' if name else '*'}/{RUN}"), reverse=True):
        subject = notes.parent.name.partition("-")[2].rpartition("-")[0]
        if name is None or subject == name or subject.endswith(f"-{name}"):
            found[subject].append(notes.parent)
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
    name, summary = _summarise(folder, noted.st_mtime_ns, noted.st_size)
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
def _summarise(folder: Path, mtime_ns: int, size: int) -> tuple[str, RunSummary | None]:
    """``mtime_ns`` and ``size`` are of the notes: others are read anew."""
    notes = RunNotes.read(folder / RUN)
    try:
        name = str(notes.parameters.get("name", ""))
        return name, _summarise_retrain(notes, folder) if "gates" in notes.parameters else None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        found = f"{folder / RUN} is not as gradmill writes it: {type(error).__name__}"
        raise DataError(found, "the notes of a run", "remove its folder") from error


def _summarise_retrain(notes: RunNotes, folder: Path) -> RunSummary:
    parameters, stages = notes.parameters, notes.stages
    trained, metrics = stages.get("train", {}), stages.get("evaluate", {}).get("metrics", {})
    asked = parameters["training"]
    is_own = stages.get("download", {}).get("name") == parameters["name"]
    gates = tuple(
        GateVerdict.model_validate(gate) for stage in JUDGING for gate in stages.get(stage, {}).get("gates", ())
    )
    outcome, detail = _find_outcome(notes, gates)
    best = trained["learning_curve"][trained["kept_epoch"] - 1] if trained else {}  # whose weights were kept
    return RunSummary(
        run=folder.name,
        name=parameters["name"],
        outcome=outcome,
        detail=detail,
        version=(stages.get("unchanged") or stages.get("publish", {})).get("version"),
        date=_read_date(folder),
        test_accuracy=metrics.get("test_accuracy"),
        test_loss=metrics.get("test_loss"),
        validation_loss=best.get("validation_loss"),
        seconds=round(sum(notes.seconds.values()), 3),
        stage_seconds=notes.seconds,
        settings=asked | (trained.get("steps") or {}),
        changed=list_changed(asked, is_own),
        dataset_digest=stages.get("preprocess", {}).get("digest"),
        path=str(folder),
        exit_code=notes.exit_code if outcome == "failed" else None,
        time_limit=notes.time_limit if outcome == "failed" else None,
        gates=gates,
        ended=notes.noted_at or _read_date(folder),
    )


def _find_outcome(notes: RunNotes, gates: tuple[GateVerdict, ...]) -> tuple[Outcome, str]:
    if unchanged := notes.stages.get("unchanged"):
        return "unchanged", unchanged.get("detail", "")
    if refused_by := [gate.name for gate in gates if not gate.passed]:
        return "refused", ", ".join(refused_by)
    if decided := notes.stages.get("publish"):
        return decided["outcome"], decided.get("detail", "")
    stage = next((stage for stage in notes.seconds if stage not in notes.stages), "")
    return ("unfinished" if notes.exit_code is None else "failed"), stage


def _read_date(folder: Path) -> str:
    """When a run was to start: its folder's name begins with it; else when it was last noted something."""
    try:
        moment = datetime.strptime(folder.name.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        moment = datetime.fromtimestamp((folder / RUN).stat().st_mtime, UTC)
    return moment.isoformat(timespec="seconds")
