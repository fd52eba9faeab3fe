"""Jobs: what ``job.json`` holds, which is written first and last."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tasks import atomic
from tasks.artifact_paths import JOB
from tasks.predict.shards import Shard
from tasks.records import Drift, Histogram, Record


class JobInput(Record):
    """What a job reads: ``digest`` covers path, size, mtime and content (sampled blocks, or all) of every file."""

    path: str
    digest: str
    files: int
    bytes: int


class JobModel(Record):
    """The version that a job was started with."""

    name: str
    version: int
    sha256: str
    path: Path


class Job(Record):
    """The content of ``job.json``. What is None is known when the job is done."""

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

    def write(self, folder: Path) -> None:
        """Replace ``job.json`` atomically."""
        atomic.write_json(folder / JOB, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> "Job | None":
        """The job that a folder holds, or None: no ``job.json``, or not one of ours."""
        try:
            return cls.model_validate_json((folder / JOB).read_bytes())
        except (OSError, ValueError):
            return None


def now() -> str:
    """The time as job.json has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
