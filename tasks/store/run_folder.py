"""``artifacts/runs/<run>/``: the evidence of one run, whatever became of it."""

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tasks.store import artifact_paths, atomic, folders, locks
from tasks.store.artifact_paths import RUN
from tasks.store.documents import Document
from tasks.store.record import Record
from tasks.store.versions import Moment


class RunNotes(Document):
    """``run.json``: what a run was asked for, how long each stage took, and the record that it returned."""

    schema_version: Literal[1] = 1
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
                folder.failed(None)  # not yet; to housekeeping it is young again
            else:
                RunNotes(run=run, parameters=parameters, seconds={}, stages={}).write(folder.file(RUN))
        return folder

    def in_use(self) -> AbstractContextManager[None]:
        """While the block runs, housekeeping leaves the folder alone, however long ago something was noted in it."""
        otherwise = f"another process is at work on {self.path}; waiting for it"
        return locks.locked(artifact_paths.lock(self.path), otherwise)

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

    def failed(self, exit_code: int | None, time_limit: float | None = None) -> None:
        """Note with which exit code the run ends, and the seconds that it may have taken, where it has taken more."""
        self._write(self.read(), exit_code=exit_code, time_limit=time_limit)

    def _write(self, notes: RunNotes, **update: Any) -> None:
        update["noted_at"] = datetime.now(UTC).isoformat(timespec="seconds")
        notes.model_copy(update=update).write(self.file(RUN))

    def file(self, name: str) -> Path:
        """The path of an evidence file."""
        return self.path / name
