"""The folder of a job's output: whose it is, which of its parts are whole, and what goes when a job is restarted."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, atomic, folders, locks, predictions
from tasks.store.artifact_paths import JOB, PREDICTION_GRID, REJECTS
from tasks.store.predictions import Job, Shard
from tasks.store.record import Lasting

FOOTER = b"gradmill"
PART = re.compile(r"part-(\d{5}|[1-9]\d{5,})\.parquet")
NAMES = {JOB, REJECTS, PREDICTION_GRID}
FILE_SUFFIXES = (".csv", ".parquet")  # of an output that is one file


class Output(NamedTuple):
    """Where ``--output`` says that predictions go: a job's folder, or one file; neither of both is artifacts/."""

    folder: Path | None = None
    file: Path | None = None

    @classmethod
    def locate(cls, output: str | None) -> Self:
        """The absolute path that ``--output`` names.

        Raises:
            UsageError: it is in artifacts/ where other things than predictions lie, in a job's or a model's folder,
                no path, or something is there that is neither a folder nor the file that its name says.
        """
        if output is None:
            return cls()
        action = "choose another --output"
        try:
            path = Path(output).expanduser().absolute()
            is_file = path.suffix.lower() in FILE_SUFFIXES
            real, place, ours = path.resolve(), folders.holding(path), artifact_paths.all_predictions()
            below = real.relative_to(ours.resolve()).parts if place == ours else ()
            if place is not None and (not below or below[0].startswith(".")):
                found = f"--output {output} is inside the artifacts folder, in {place}"
                raise UsageError(found, f"a folder outside of it, or below {ours}", action)
            for each in (real, *real.parents):
                is_model = (each / artifact_paths.champion("").name).is_file()
                if is_model or (each != real and predictions.holds_job(each)):
                    found = f"--output {output} is in the folder of a {'model' if is_model else 'job'}, {each}"
                    raise UsageError(found, "a folder apart", action)
            there = next(each for each in (path, *path.parents) if os.path.lexists(each))
            kind, is_right = ("file", there.is_file()) if is_file and there == path else ("folder", there.is_dir())
            if not is_right:
                raise UsageError(f"{there} is no {kind}", f"a {kind}", action)
        except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, ~nobody, a null byte
            raise UsageError(f"--output {output}: {error}", "a path to a folder", action) from error
        return cls(file=path) if is_file else cls(folder=path)


class PartFooter(Lasting):
    """What a part says of itself: its model, its shard of its job, and how many rows of it are in it or rejected."""

    job: str
    shard: Shard
    model: dict[str, Any]
    provider: str
    rows: int
    rejects: int

    @classmethod
    def read(cls, folder: Path, job: Job, shard: Shard) -> Self | None:
        """The footer of a shard's part; None unless the part is whole and of that shard of that job.

        Until the job is done, the rejects of the shard must be there, too.
        """
        try:
            metadata = pq.read_metadata(artifact_paths.part(folder, shard.number))
            footer = cls.model_validate_json(metadata.metadata[FOOTER])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
            return None
        agrees = (
            footer.job == job.job
            and footer.shard == shard
            and footer.model["sha256"] == job.model.sha256
            and footer.rows == metadata.num_rows == shard.stop - shard.start - footer.rejects
            and (job.status == "done" or _num_rows(rejects_path(folder, shard)) == footer.rejects)
        )
        return footer if agrees else None


def rejects_path(folder: Path, shard: Shard) -> Path:
    """The rejects of one shard, until the job is done."""
    return artifact_paths.part(artifact_paths.shard_rejects(folder), shard.number)


def _num_rows(path: Path) -> int | None:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid):
        return None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read, in the block, what the job itself has written.

    Raises:
        DataError: it is gone or damaged; pyarrow's own errors name no file.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        action = "run the command again, or with --restart"
        raise DataError(f"{path} cannot be read: {error}", "the file as it was written", action) from error


def claim(folder: Path, job: str, restart: bool) -> tuple[Job | None, list[Path]]:
    """The job that the folder holds, if it is ``job`` and to be kept, and the files that a new one has to remove.

    Nothing is touched but a done one's scratch. The document comes first, so that none tells of what is gone.

    Raises:
        UsageError: the folder holds another job, or something that no job wrote.
        DataError: the document of its job is damaged or lost.
    """
    held: Job | None = None
    with contextlib.suppress(DataError):  # is raised below, once it is known whose folder it is
        held = predictions.find(folder)
    if held and held.job == job and not restart and _is_whole(folder, held):
        clean_up(folder)  # of a kill right after its end
        return held, []
    has_scratch, ours = predictions.has_scratch(folder), artifact_paths.scratch(folder)
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    entries = [path for path in found if not has_scratch or path != ours]
    for path in entries:
        part = PART.fullmatch(path.name)
        is_named = path.name in NAMES or (part and (held is None or int(part[1]) < len(held.shards)))
        if not ((held or has_scratch) and is_named and path.is_file() and not path.is_symlink()):
            raise UsageError(
                f"{folder} holds something else ({path.name})",
                "an empty folder, or one of a prediction",
                "move it elsewhere, or choose another --output",
            )
    if restart or not entries:
        return None, entries
    held = Job.read(folder / JOB, predictions.RESTART)
    if held.job != job:
        raise UsageError(f"{folder} holds job {held.job}", f"job {job}, or none", "choose another, or --restart")
    return held.model_copy(update={"status": "running"}), []


def _is_whole(folder: Path, job: Job) -> bool:
    """Whether a job is done, and everything that it wrote is still there."""
    has_rejects = job.status == "done" and _num_rows(folder / REJECTS) == job.rejects
    return has_rejects and all(PartFooter.read(folder, job, shard) for shard in job.shards)


@contextlib.contextmanager
def begun(folder: Path, is_new: bool) -> Iterator[None]:
    """Make the folder and its scratch; where the block fails before there is a job, nothing of them stays.

    Raises:
        UsageError: something else has the name of the scratch.
        OSError: something else has the name of a folder.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    predictions.make_scratch(folder)
    if is_new:
        predictions.empty_scratch(folder)  # what a plan that was killed has unpacked may be of another input
    try:
        yield
    except BaseException:
        if not (folder / JOB).exists():
            predictions.remove_scratch(folder)
            with contextlib.suppress(OSError):  # others have begun to use it
                for each in missing:
                    each.rmdir()
        raise


def write_document(folder: Path, job: Job) -> None:
    """Write the document of a job that begins, or is done.

    While it runs, a note tells where it is if pruning would not find it and might take its version.
    """
    predictions.make_scratch(folder)
    if job.status == "running" and folder.parent != artifact_paths.all_predictions():
        atomic.write_bytes(_note(folder), artifact_paths.relative(folder).encode())
    predictions.write(folder, job)
    if job.status == "done":
        clean_up(folder)


def clean_up(folder: Path) -> None:
    """Remove what is of use only while a job runs."""
    predictions.remove_scratch(folder)
    _note(folder).unlink(missing_ok=True)


def _note(folder: Path) -> Path:
    return artifact_paths.jobs_elsewhere() / locks.of_job(folder).name
