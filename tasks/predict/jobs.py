"""Jobs: what identifies one, where its output goes, and ``job.json``, written first and last."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tasks import artifact_paths, atomic, waiting
from tasks.artifact_paths import JOB, PREDICTION_GRID, REJECTS
from tasks.errors import UsageError
from tasks.parameters import PredictParameters
from tasks.predict.shards import Shard
from tasks.records import Drift, Histogram, Record

SAMPLED_BLOCKS = 16
BLOCK_BYTES = 64 * 1024
ID_CHARACTERS = 16


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


# What identifies a job


def describe_input(path: str, files: list[Path], full_digest: bool) -> JobInput:
    """Fingerprint the input, of large files by sampled blocks unless ``full_digest``."""
    with ThreadPoolExecutor() as pool:
        prints = list(pool.map(lambda file: _fingerprint(file, full_digest), files))
    return JobInput(path=path, digest=_digest(prints), files=len(files), bytes=sum(size for _, size, _, _ in prints))


def _fingerprint(path: Path, full_digest: bool) -> tuple[str, int, int, str]:
    facts = path.stat()
    whole = full_digest or facts.st_size <= SAMPLED_BLOCKS * BLOCK_BYTES
    digest = atomic.file_digest(path) if whole else _sampled_digest(path, facts.st_size)
    return str(path), facts.st_size, facts.st_mtime_ns, digest


def _sampled_digest(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for index in range(SAMPLED_BLOCKS):
            stream.seek((size - BLOCK_BYTES) * index // (SAMPLED_BLOCKS - 1))
            digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def request_id(source: JobInput, parameters: PredictParameters, provider: str, batch_size: int) -> str:
    """What was asked for, whichever version answers: input, name and all parameters that decide the output."""
    document = {
        "input": source.digest,
        "name": parameters.name,
        "version": parameters.version,
        "columns": parameters.columns,
        "shard_rows": parameters.shard_rows,
        "batch_size": batch_size,
        "provider": provider,
    }
    return _digest(document)[:ID_CHARACTERS]


def job_id(request: str, model_sha256: str) -> str:
    """The first 16 hex digits of the SHA-256 of everything that decides a job's output."""
    return _digest({"request": request, "model": model_sha256})[:ID_CHARACTERS]


def unfinished(request: str, parameters: PredictParameters) -> Job | None:
    """The unfinished job that an earlier, killed call of the same command left."""
    if parameters.restart:
        return None
    folders = (
        [output_folder(parameters.output)]
        if parameters.output
        else sorted(path.parent for path in artifact_paths.all_predictions().glob(f"*/{JOB}"))
    )
    for folder in folders:
        job = Job.read(folder)
        if job is not None and job.status == "running" and job.request == request:
            return job
    return None


# Where its output goes


def output_folder(output: str) -> Path:
    """The folder that ``--output`` names, absolute."""
    return Path(output).expanduser().absolute()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job's folder; whoever else runs the same job waits, and then finds it done."""
    folder.mkdir(parents=True, exist_ok=True)
    with waiting.locked(folder / ".lock", f"another process is at work on {folder}; waiting for it"):
        yield


def claim(folder: Path, job: str, restart: bool) -> Job | None:
    """The job that the folder holds, if it is ``job``; leftovers of killed writers are swept.

    Raises:
        UsageError: the folder holds another job, or files that no job wrote.
    """
    atomic.sweep(folder)
    if restart:
        _clear(folder)
    held = Job.read(folder)
    if held is not None and held.job == job:
        return held
    strangers = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if held is not None or strangers:
        found = f"job {held.job}" if held is not None else f"something else ({strangers[0]})"
        raise UsageError(f"{folder} holds {found}", f"an empty folder or job {job}", "choose another, or --restart")
    clean_up(folder)  # what a plan that failed has unpacked may be of another input
    return None


def _clear(folder: Path) -> None:
    """Remove what a job wrote, and nothing else; ``job.json`` goes first, so that no half-cleared job looks whole."""
    for path in (folder / JOB, *folder.glob("part-*.parquet"), folder / REJECTS, folder / PREDICTION_GRID):
        path.unlink(missing_ok=True)
    clean_up(folder)


def clean_up(folder: Path) -> None:
    """Remove what is of use only while a job runs."""
    for path in (artifact_paths.spool(folder), artifact_paths.shard_rejects(folder)):
        shutil.rmtree(path, ignore_errors=True)
    artifact_paths.sources(folder).unlink(missing_ok=True)
