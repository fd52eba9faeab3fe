"""Jobs of batch prediction: ``_job.json``, which is written first and last, and where there are some.

Whoever predicts reads it here, and so do pruning and housekeeping.
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from tasks.errors import DataError, UsageError
from tasks.machine.words import plural
from tasks.serving.drift import Drift, Histogram
from tasks.store import artifact_paths, atomic, folders
from tasks.store.artifact_paths import JOB, ONNX
from tasks.store.documents import Document, RootDocument
from tasks.store.folders import Report, skip_unreadable
from tasks.store.model_folder import Moment

RESTART = "replace the job by the same command with --restart, or restore the file from a copy"


class Shard(NamedTuple):
    """The rows from ``start`` to ``stop`` of a job; they make the part ``number``."""

    number: int
    start: int
    stop: int


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


class Job(RootDocument):
    """The content of ``_job.json``. What is None is known when the job is done."""

    job: str
    request: str
    status: Literal["running", "done"] = "running"
    input: JobInput
    model: JobModel
    provider: str
    batch_size: int
    workers: int = 1
    columns: tuple[str, ...]
    id_columns: tuple[str, ...] = ()
    unknown: Literal["reject", "average"] = "reject"
    written: Literal["all", "label"] = "all"  # of each answer
    rows: int = 0
    shards: tuple[Shard, ...] = ()
    max_rejects: int = 0
    started_at: str
    finished_at: Moment | None = None
    rejects: int | None = None
    accuracy: float | None = None
    metrics: dict[str, float] | None = None
    profile: dict[str, Histogram] | None = None
    drift: Drift | None = None
    column_counts: dict[str, tuple[int, ...]] = Field(
        {}
    )  # of own tables, of a sample of rows, by the bins of its profile
    column_drift: dict[str, float] = Field({})  # the population stability index of each of these
    worse: str | None = None  # than at publication, beyond chance: which figure, in words
    notes: dict[str, int] | None = None
    file_digests: tuple[str, ...] = ()  # SHA-256 of the single files that were written of it
    seconds: float | None = None

    @property
    def noted(self) -> list[str]:
        """What was found of rows that were predicted all the same, a sentence each."""
        return [f"{times:,} of {plural(self.rows, 'row')} {note}" for note, times in (self.notes or {}).items()]

    @property
    def is_of_own_test_split(self) -> bool:
        """Whether it predicted what the version was tested on, as each retrain does, and nobody's input."""
        return artifact_paths.datasets() in (artifact_paths.root() / self.input.path).parents

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
    """The job whose document a folder holds; None where there is no such file.

    Raises:
        DataError: the document is damaged.
    """
    return Job.find(folder / JOB, RESTART)


def holds_job(folder: Path) -> bool:
    """Whether a folder is that of a job: its document can be read, or its scratch is there."""
    try:
        return has_scratch(folder) or find(folder) is not None
    except (DataError, OSError):
        return False


def write(folder: Path, job: Job) -> None:
    """Replace the document of a folder atomically.

    Of a finished job that no listing of ``artifacts/predictions/`` finds, the store keeps the figures, without paths,
    unless it has those of a newer one.
    """
    if job.status == "done" and folder.parent.resolve() != artifact_paths.all_predictions().resolve():
        is_split, last = job.is_of_own_test_split, None
        path = artifact_paths.done_elsewhere() / f"{job.model.name}.{'test' if is_split else 'input'}.json"
        with suppress(DataError):
            last = Job.find(path)
        if last is None or (last.finished_at or "") <= (job.finished_at or ""):
            source = artifact_paths.relative(artifact_paths.root() / job.input.path) if is_split else ""
            job.model_copy(update={"input": job.input.model_copy(update={"path": source})}).write(path)
    with place_file(folder, JOB) as temporary:
        temporary.write_bytes(atomic.as_json(job.model_dump(mode="json")))


def format_now() -> str:
    """The time as the document has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def list_jobs(report: Report = folders.tell_skipped, everywhere: bool = False) -> Iterator[tuple[Path, Job | None]]:
    """The jobs whose folders lie in ``artifacts/predictions/``, be it behind a link, and their folders.

    With ``everywhere`` also unfinished ones whose folders lie elsewhere, by the notes that they have left. A document
    that cannot be read stops nobody: ``report`` is called, and of an unfinished job None is given.
    """
    place, places = artifact_paths.all_predictions(), list[Path]()
    with skip_unreadable(place, report):
        places += sorted(place.iterdir()) if place.is_dir() else ()
    for note in sorted(artifact_paths.jobs_elsewhere().glob("*")) if everywhere else ():
        with skip_unreadable(note, report):
            if note.is_file():  # a FIFO would be waited for without end
                places.append(artifact_paths.root() / note.read_text(encoding="utf-8"))  # relative, or absolute
    for folder in places:
        job = None
        with skip_unreadable(folder, report):
            if (job := find(folder)) is None:
                continue
        if job or holds_job(folder):
            yield folder, job


# A job's scratch: one folder in its output, known by a mark, where everything begins that is not whole yet


MARK = "made-by-gradmill"


def make_scratch(folder: Path) -> None:
    """Make a job's folder with its scratch, which is known as ours from its first moment on.

    Raises:
        UsageError: something of that name is there, and it is not ours.
        FileExistsError, NotADirectoryError: so it is with the folder.
    """
    scratch = artifact_paths.scratch(folder)
    if os.path.lexists(scratch) and not has_scratch(folder):
        raise UsageError(f"{scratch} is not of a job", "none, or one of a job", "move it elsewhere")
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / MARK).touch()


def has_scratch(folder: Path) -> bool:
    """Whether a folder's scratch is one that ``make_scratch`` made; a link, or what holds other things, never is."""
    scratch = artifact_paths.scratch(folder)
    if scratch.is_symlink() or not scratch.is_dir():
        return False
    entries = list(os.scandir(scratch))  # empty_scratch: killed before the mark was there
    marked = any(entry.name == MARK and entry.is_file(follow_symlinks=False) for entry in entries)
    return not entries or (marked and not any(entry.is_symlink() for entry in entries))


@contextmanager
def place_file(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary path in the scratch; when the block succeeds it becomes ``name`` in the folder.

    Raises:
        OSError: the disk is full or the folder is not writable; the file is then as it was.
    """
    whole = artifact_paths.scratch(folder) / name
    with atomic.replace_file(whole) as temporary:
        yield temporary
    whole.replace(folder / name)
    atomic.sync(folder)


def empty_scratch(folder: Path) -> None:
    """Remove everything from a job's scratch but its mark."""
    for entry in list(os.scandir(artifact_paths.scratch(folder))):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != MARK:
            Path(entry.path).unlink(missing_ok=True)


def remove_scratch(folder: Path) -> None:
    """Remove a job's scratch, if it is there and one of ours; the mark goes last."""
    if has_scratch(folder):
        empty_scratch(folder)
        (artifact_paths.scratch(folder) / MARK).unlink(missing_ok=True)
        artifact_paths.scratch(folder).rmdir()
