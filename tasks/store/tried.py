"""What retrains came to, published or not, as their ``run.json`` tells: experiments that never touch the champion."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from tasks.errors import DataError
from tasks.parameters.training import list_defaults
from tasks.records import GateVerdict
from tasks.store import artifact_paths, locks, verified
from tasks.store.artifact_paths import RUN
from tasks.store.documents import Document
from tasks.store.predictions import Left, left_alone
from tasks.store.run_folder import RunNotes

NEWEST = 1000  # runs that are looked at
LARGEST = 2**24  # bytes of notes; those of a table of 2000 columns have 3 million
JUDGING = ("evaluate", "export", "publish")  # the stages with gates
Outcome = Literal["published", "unchanged", "judged", "refused", "running", "failed", "unfinished"]
JUDGED = ("published", "judged", "refused")  # outcomes of runs whose candidate went through the gates


class Tried(Document):
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
    time_limit: float | None = None  # seconds, of one that has failed by it
    gates: tuple[GateVerdict, ...] = Field((), exclude=True)  # every verdict, for pages
    ended: str = Field("", exclude=True)  # when something was last noted of it; of an older run when it was to start


class Noted(NamedTuple):
    """A run of any kind, by its notes; ``retrain`` is None where it is another's."""

    folder: Path
    name: str  # of the model
    retrain: Tried | None


def changed(training: dict[str, Any], is_own: bool) -> dict[str, Any]:
    """What of the training's settings, as JSON has them, is given and not the default of the book's or of own data."""
    defaults = list_defaults(training["model"], is_own)
    return {name: value for name, value in training.items() if value is not None and value != defaults.get(name)}


def runs(name: str | None = None, left: Left = left_alone) -> list[Tried]:
    """The newest runs, newest first; notes that cannot be read are said, or go to ``left``, and are left out."""
    found = (each.retrain for each in every(folders(name)[:NEWEST], left))
    return [tried for tried in found if tried and name in (None, tried.name)]


def learning_curve(run: str) -> list[dict[str, Any]]:
    """What was measured after each epoch of the run of this id; nothing where its notes are gone or say nothing."""
    with suppress(DataError, OSError, LookupError, TypeError):
        return list(RunNotes.read(artifact_paths.runs() / run / RUN).stages["train"]["learning_curve"])
    return []


def folders(name: str | None = None) -> list[Path]:
    """The folders of runs, the newest first; of a name's all that may be its own, as may be others'."""
    notes = artifact_paths.runs().glob(f"{f'*-{name}-*' if name else '*'}/{RUN}")
    return [path.parent for path in sorted(notes, reverse=True)]


def every(found: Iterable[Path], left: Left) -> Iterator[Noted]:
    """What stands in the notes of these runs of any kind; those that cannot be read go to ``left``."""
    for folder in found:
        if noted := _read(folder / RUN, left):
            yield noted


def _read(path: Path, left: Left) -> Noted | None:
    try:
        if verified.size(path) > LARGEST:
            raise DataError(f"{path} has over {LARGEST:,} bytes", "the notes of a run", "remove its folder")
        notes = RunNotes.read(path)
        retrain = _of(notes, path.parent) if "gates" in notes.parameters else None
        return Noted(path.parent, str(notes.parameters.get("name", "")), retrain)
    except (DataError, OSError) as error:
        left(path, error)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        left(path, f"it is not as gradmill writes it: {type(error).__name__}")
    return None


def _of(notes: RunNotes, folder: Path) -> Tried:
    parameters, stages = notes.parameters, notes.stages
    trained, metrics = stages.get("train", {}), stages.get("evaluate", {}).get("metrics", {})
    asked = parameters["training"]
    is_own = stages.get("download", {}).get("name") == parameters["name"]
    gates = tuple(
        GateVerdict.model_validate(gate) for stage in JUDGING for gate in stages.get(stage, {}).get("gates", ())
    )
    outcome, detail = _outcome(notes, gates, folder)
    return Tried(
        run=folder.name,
        name=parameters["name"],
        outcome=outcome,
        detail=detail,
        version=(stages.get("unchanged") or stages.get("publish", {})).get("version"),
        date=_date(folder),
        test_accuracy=metrics.get("test_accuracy"),
        test_loss=metrics.get("test_loss"),
        validation_loss=_kept(trained).get("validation_loss"),
        seconds=round(sum(notes.seconds.values()), 3),
        stage_seconds=notes.seconds,
        settings=asked | (trained.get("steps") or {}),
        changed=changed(asked, is_own),
        dataset_digest=stages.get("preprocess", {}).get("digest"),
        path=str(folder),
        exit_code=notes.exit_code if outcome == "failed" else None,
        time_limit=notes.time_limit if outcome == "failed" else None,
        gates=gates,
        ended=notes.noted_at or _date(folder),
    )


def _kept(trained: dict[str, Any]) -> dict[str, Any]:
    """The point of the learning curve that the weights belong to."""
    point: dict[str, Any] = trained["learning_curve"][trained["kept_epoch"] - 1] if trained else {}
    return point


def _outcome(notes: RunNotes, gates: tuple[GateVerdict, ...], folder: Path) -> tuple[Outcome, str]:
    if unchanged := notes.stages.get("unchanged"):
        return "unchanged", unchanged.get("detail", "")
    if refused_by := [gate.name for gate in gates if not gate.passed]:
        return "refused", ", ".join(refused_by)
    if decided := notes.stages.get("publish"):
        return decided["outcome"], decided.get("detail", "")
    if locks.is_held(artifact_paths.lock(folder)):
        return "running", ""
    stage = next((stage for stage in notes.seconds if stage not in notes.stages), "")
    return ("unfinished" if notes.exit_code is None else "failed"), stage


def _date(folder: Path) -> str:
    """By its name, which begins with it; else when it was last noted something."""
    try:
        moment = datetime.strptime(folder.name.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        moment = datetime.fromtimestamp((folder / RUN).stat().st_mtime, UTC)
    return moment.isoformat(timespec="seconds")
