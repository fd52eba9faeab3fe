"""Jobs: what ``_job.json`` holds, which is written first and last."""

import contextlib
import itertools
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from tasks.batch import scratch
from tasks.batch.shards import Shard
from tasks.errors import DataError
from tasks.records import Drift, Histogram
from tasks.store import artifact_paths, atomic, regular_files
from tasks.store.artifact_paths import JOB, OLD_NAMES, ONNX
from tasks.store.documents import Document

BEGINNING = re.compile(rb'"job":\s*"[0-9a-f]{16}",\s*"request":\s*"[0-9a-f]{16}"')  # two digests
BEGINNING_BYTES = 4096
RESTART = "replace the job by the same command with --restart, or restore the file from a copy"


class JobInput(Document):
    """What a job reads: ``digest`` covers path, size, mtime and content (sampled blocks, or all) of every file."""

    path: str
    digest: str
    files: int
    bytes: int


class JobModel(Document):
    """The version that a job was started with."""

    name: str
    version: int
    sha256: str

    @property
    def path(self) -> Path:
        """The model file, in the artifacts folder of this process."""
        return artifact_paths.version(self.name, self.version) / ONNX


class Job(Document):
    """The content of ``_job.json``. What is None is known when the job is done."""

    schema_version: Literal[1] = 1
    job: str
    request: str
    status: Literal["running", "done"] = "running"
    input: JobInput
    model: JobModel
    provider: str
    batch_size: int
    workers: int = 1
    columns: tuple[str, ...]
    rows: int = 0
    shards: tuple[Shard, ...] = ()
    max_rejects: int = 0
    started_at: str
    finished_at: str | None = None
    rejects: int | None = None
    accuracy: float | None = None
    profile: dict[str, Histogram] | None = None
    drift: Drift | None = None
    notes: dict[str, int] | None = None
    seconds: float | None = None

    @model_validator(mode="after")
    def _every_row_in_one_shard(self) -> Self:
        bounds = [0, *(shard.stop for shard in self.shards)]
        plan = [Shard(number, *pair) for number, pair in enumerate(itertools.pairwise(bounds))]
        if plan != list(self.shards) or bounds[-1] != self.rows:
            raise ValueError(f"its shards are not the {self.rows} rows one after another")
        if self.status == "done" and (self.rejects is None or self.drift is None):
            raise ValueError("it is done, and yet without a result")
        return self


def find(folder: Path) -> Job | None:
    """The job whose document a folder holds, under the name of today or of old; None where there is no such file.

    Raises:
        DataError: the document is damaged.
    """
    for document in artifact_paths.job_documents(folder):
        if document.exists():
            return Job.read(document, RESTART)
    return None


def holds_one(folder: Path) -> bool:
    """Whether a folder is that of a job: its document can be read, or its scratch is there."""
    try:
        return scratch.is_ours(folder) or find(folder) is not None
    except (DataError, OSError):
        return False


def left_document(folder: Path) -> bool:
    """Whether a folder holds what ``write`` wrote, however damaged: its text still begins with a job and its request.

    A name alone proves nothing: others write a job.json, too.
    """
    for document in artifact_paths.job_documents(folder):
        with contextlib.suppress(DataError), regular_files.opened(document) as stream:
            if not document.is_symlink() and BEGINNING.search(stream.read(BEGINNING_BYTES)):
                return True
    return False


def write(folder: Path, job: Job) -> None:
    """Replace the document of a folder atomically; one under the name of old goes."""
    with scratch.placing(folder, JOB) as temporary:
        temporary.write_bytes(atomic.as_json(job.model_dump(mode="json")))
    (folder / OLD_NAMES[JOB]).unlink(missing_ok=True)


def now() -> str:
    """The time as the document has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
