"""Jobs of batch prediction: their documents ``_job.json``, written first and last, and where to find them.

Prediction, pruning and housekeeping all use them.
"""

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from tasks.errors import DataError, UsageError
from tasks.machine.words import pluralize
from tasks.serving.drift import Drift, Histogram
from tasks.store import artifact_paths, atomic, folders
from tasks.store.artifact_paths import JOB, ONNX
from tasks.store.documents import Document, RootDocument
from tasks.store.folders import Report, skip_unreadable
from tasks.store.model_folder import Moment

RESTART = "replace the job by the same command with --restart, or restore the file from a copy"


class Shard(NamedTuple):
    """The rows from ``start`` to ``stop`` of a job, which make up part ``number``."""

    number: int
    start: int
    stop: int


class JobInput(Document):
    """The input of a job: ``digest`` covers path, size, mtime and content (sampled blocks, or all) of every file.

    Of a test split it covers the path, which has the digest of its content.
    """

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
    """The content of ``_job.json``. Fields that are None become known when the job is done."""

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
    written: Literal["all", "label"] = "all"  # which columns of an answer
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
    worse: str | None = None  # which figure is worse than at publication, beyond chance, in words
    notes: dict[str, int] | None = None
    file_digests: tuple[str, ...] = ()  # SHA-256 of the single files (``--output FILE``) written of it
    file_paths: tuple[str, ...] = ()  # where they were written
    seconds: float | None = None

    @property
    def note_sentences(self) -> list[str]:
        """What was noted about rows that were predicted nonetheless, one sentence each."""
        return [f"{times:,} of {pluralize(self.rows, 'row')} {note}" for note, times in (self.notes or {}).items()]

    @property
    def is_of_own_test_split(self) -> bool:
        """Whether the input was the version's own test split, as after each retrain, rather than a user's input."""
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
    """The job whose document is in a folder; None if there is no such file.

    Raises:
        DataError: the document is damaged.
    """
    return Job.find(folder / JOB, RESTART)


def require_parts(folder: Path, job: Job) -> None:
    """Check that all parts of a finished job are in its folder.

    Raises:
        DataError: one is missing.
    """
    for shard in job.shards:
        if not (part := artifact_paths.part(folder, shard.number)).is_file():
            raise DataError(f"{part} is missing", "every part of a finished job", RESTART)


def holds_job(folder: Path) -> bool:
    """Whether a folder belongs to a job: its document can be read, or its scratch exists."""
    try:
        return has_scratch(folder) or find(folder) is not None
    except (DataError, OSError):
        return False


def write(folder: Path, job: Job) -> None:
    """Replace the document in a folder atomically.

    For a finished job outside of ``artifacts/predictions/``, which no listing finds, the store keeps the figures,
    without paths, unless it has those of a newer one.
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
        temporary.write_bytes(job.to_json())


def list_jobs(report: Report = folders.tell_skipped, everywhere: bool = False) -> Iterator[tuple[Path, Job | None]]:
    """List the jobs whose folders are in ``artifacts/predictions/``, possibly behind a link, with their folders.

    With ``everywhere`` it includes unfinished jobs whose folders are elsewhere, according to their notes. A document
    that cannot be read is passed to ``report``; an unfinished job then appears as None.
    """
    place, places = artifact_paths.all_predictions(), list[Path]()
    with skip_unreadable(place, report):
        places += sorted(place.iterdir()) if place.is_dir() else ()
    for note in sorted(artifact_paths.jobs_elsewhere().glob("*")) if everywhere else ():
        with skip_unreadable(note, report):
            if note.is_file():  # reading a FIFO would wait forever
                places.append(artifact_paths.root() / note.read_text(encoding="utf-8"))  # relative, or absolute
    for folder in places:
        job = None
        with skip_unreadable(folder, report):
            if (job := find(folder)) is None:
                continue
        if job or holds_job(folder):
            yield folder, job


def find_written_files(files: Iterable[Path]) -> set[Path]:
    """Those of some files that kept jobs wrote (``--output FILE``) and that nobody has changed since."""
    jobs = [job for _, job in list_jobs(lambda *_: None) if job]
    paths = {path for job in jobs for path in job.file_paths}
    digests = {digest for job in jobs for digest in job.file_digests}
    names = {Path(path).name for path in paths}
    alike = [file for file in files if file.name in names and str(file.resolve()) in paths]
    return {file for file in alike if atomic.file_digest(file) in digests}


# The scratch of a job: a marked folder in its output, in which all files begin that are not complete yet


MARK = "made-by-gradmill"


def make_scratch(folder: Path) -> None:
    """Create a job's folder with its scratch, which is recognisable as ours from the start.

    Raises:
        UsageError: something else has the name of the scratch.
        FileExistsError, NotADirectoryError: something else has the name of the folder.
    """
    scratch = artifact_paths.scratch(folder)
    if os.path.lexists(scratch) and not has_scratch(folder):
        raise UsageError(
            f"{scratch} does not belong to a job", "no such folder, or one that belongs to a job", "move it elsewhere"
        )
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / MARK).touch()


def has_scratch(folder: Path) -> bool:
    """Whether ``make_scratch`` made a folder's scratch; a link, or a folder with other contents, never counts."""
    scratch = artifact_paths.scratch(folder)
    if scratch.is_symlink() or not scratch.is_dir():
        return False
    entries = list(os.scandir(scratch))  # empty: a kill came before the mark was written, or after it was removed
    marked = any(entry.name == MARK and entry.is_file(follow_symlinks=False) for entry in entries)
    return not entries or (marked and not any(entry.is_symlink() for entry in entries))


@contextmanager
def place_file(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary path in the scratch and rename it to ``name`` in the folder when the block succeeds.

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
    """Remove a job's scratch if it exists and is ours; the mark is removed last."""
    if has_scratch(folder):
        empty_scratch(folder)
        (artifact_paths.scratch(folder) / MARK).unlink(missing_ok=True)
        artifact_paths.scratch(folder).rmdir()
