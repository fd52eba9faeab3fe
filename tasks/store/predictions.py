"""The batch predictions in ``artifacts/predictions/``, as pruning and housekeeping see them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.store import artifact_paths
from tasks.store.documents import Document


class JobModel(Document):
    """The version that a job was started with."""

    name: str
    version: int


class Job(Document):
    """What others than the job itself read of its document."""

    status: Literal["running", "done"]
    model: JobModel
    finished_at: str | None = None


class Found(NamedTuple):
    """A job and its folder."""

    folder: Path
    document: Path
    job: Job


def below_artifacts() -> Iterator[Found]:
    """The jobs whose folders lie in ``artifacts/predictions/``, be it behind a link."""
    folder = artifact_paths.all_predictions()
    return _read(sorted(folder.iterdir()) if folder.is_dir() else [])


def elsewhere() -> Iterator[Found]:
    """The unfinished jobs whose folders lie elsewhere, by the notes that they have left."""
    noted = []
    for note in sorted(artifact_paths.jobs_elsewhere().glob("*")):
        try:
            if note.is_file():  # a FIFO would be waited for without end
                noted.append(artifact_paths.root() / note.read_text())  # relative, or absolute
        except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
            left_alone(note, str(error))
    return _read(noted)


def _read(folders: list[Path]) -> Iterator[Found]:
    """A document that cannot be read stops nobody: it is said, and the folder is left as it is."""
    for folder in folders:
        for document in artifact_paths.job_documents(folder):
            try:
                if document.exists():
                    yield Found(folder, document, Job.read(document))
                    break
            except (DataError, OSError, ValueError) as error:
                left_alone(folder, error.found if isinstance(error, DataError) else str(error))
                break


def left_alone(path: Path, reason: str) -> None:
    """Say that something was not looked at or not removed, and why."""
    tell(f"left alone: {path} ({reason})", file=sys.stderr)
