"""The folder of a job's output: whose it is, which of its parts are whole, and what goes when a job is restarted."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.parameters import PredictParameters
from tasks.store import artifact_paths, atomic, folders, locks, predictions, scratch
from tasks.store.artifact_paths import JOB, PREDICTION_GRID, REJECTS
from tasks.store.predictions import Job, Shard
from tasks.store.record import Lasting

FOOTER = b"gradmill"
PART = re.compile(r"part-\d{5,}\.parquet")
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
                no path, or an existing folder that has the name of a file.
        """
        if output is None:
            return cls()
        try:
            path = Path(output).expanduser().absolute()
            _check_place(path, output)
            is_file = path.suffix.lower() in FILE_SUFFIXES
            if is_file and os.path.lexists(path) and not path.is_file():
                raise UsageError(f"--output {output} is no file", "a file, or none yet", "choose another name")
        except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, ~nobody, a null byte
            raise UsageError(f"--output {output}: {error}", "a path to a folder", "choose another") from error
        return cls(file=path) if is_file else cls(folder=path)


def _check_place(path: Path, output: str) -> None:
    real, place, ours = path.resolve(), folders.holding(path), artifact_paths.all_predictions()
    below = real.relative_to(ours.resolve()).parts if place == ours else ()
    if place is not None and (not below or below[0].startswith(".")):
        raise UsageError(
            f"--output {output} is inside the artifacts folder, in {place}",
            f"a folder outside of it, or below {ours}",
            "choose another, or leave it out",
        )
    pointer = artifact_paths.champion("").name
    if store := next((each for each in (real, *real.parents) if (each / pointer).is_file()), None):
        raise UsageError(f"--output {output} is in the folder of a model, {store}", "a folder apart", "choose another")
    if outer := next(filter(predictions.holds_job, real.parents), None):
        raise UsageError(f"--output {output} is in the folder of a job, {outer}", "a folder apart", "choose another")


class PartFooter(Lasting):
    """What a part says of itself: its model, its shard of its job, and how many rows of it are in it or rejected."""

    job: str
    shard: Shard
    model: dict[str, Any]
    provider: str
    rows: int
    rejects: int

    @classmethod
    def read(cls, folder: Path, job: Job, shard: Shard, has_rejects: bool = True) -> Self | None:
        """The footer of a shard's part; None unless the part is whole and of that shard of that job.

        If the job ``has_rejects`` still apart, those of the shard must be there, too.
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
        )
        if not agrees or (has_rejects and _num_rows(rejects_path(folder, shard)) != footer.rejects):
            return None
        return footer


def rejects_path(folder: Path, shard: Shard) -> Path:
    """The rejects of one shard, until the job is done."""
    return artifact_paths.part(artifact_paths.shard_rejects(folder), shard.number)


def _num_rows(path: Path) -> int | None:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid):
        return None


def _is_whole(folder: Path, job: Job) -> bool:
    """Whether everything that a finished job wrote is still there."""
    has_rejects = _num_rows(folder / REJECTS) == job.rejects
    return has_rejects and all(PartFooter.read(folder, job, shard, has_rejects=False) for shard in job.shards)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read, in the block, a Parquet file that the job itself has written.

    Raises:
        DataError: it is gone or damaged; pyarrow's own errors name no file.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        action = "run the command again, or with --restart"
        raise DataError(f"{path} cannot be read: {error}", "the file as it was written", action) from error


def read_batches(paths: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    """The rows of Parquet files that a job has written, one file after the other.

    Raises:
        DataError: a file is gone or damaged.
    """
    for path in paths:
        with reading(path), pq.ParquetFile(path) as file:
            yield from file.iter_batches()


def find_unfinished(parameters: PredictParameters, output: Output) -> Iterator[Job]:
    """The unfinished jobs of this model that an earlier, killed call may have left for this one."""
    if parameters.restart:
        return
    for folder in [output.folder] if output.folder else sorted(artifact_paths.all_predictions().glob("*")):
        with contextlib.suppress(DataError, OSError):  # a damaged one is told of by the command that wants this folder
            job = predictions.find(folder)
            if job is not None and job.status == "running" and job.model.name == parameters.name:
                yield job


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job's folder; whoever else runs the same job waits, and then finds it done."""
    with locks.locked(locks.of_job(folder), f"another process is at work on {folder}; waiting for it"):
        yield


def claim(folder: Path, job: str, restart: bool) -> Job | None:
    """The job that the folder holds, if it is ``job`` and to be kept; nothing is touched but a done one's scratch.

    Raises:
        UsageError: the folder holds another job, or something that no job wrote.
        DataError: the document of its job is damaged or lost.
    """
    held, damage = _read_document(folder)
    is_done = held is not None and held.status == "done" and _is_whole(folder, held)
    if held is not None and held.job == job and is_done and not restart:
        clean_up(folder)  # of a kill right after its end
        return held
    ours = _list_ours(folder, held)
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    if strange := [path for path in entries if path not in ours]:
        raise UsageError(
            f"{folder} holds something else ({strange[0].name})",
            "an empty folder, or one of a prediction",
            "move it elsewhere, or choose another --output",
        )
    if restart:
        return None
    if damage is not None:
        raise damage
    if held is None and ours not in ([], [artifact_paths.scratch(folder)]):
        raise DataError(f"{folder / JOB} is missing beside {ours[0].name}", "the job's document", predictions.RESTART)
    if held is not None and held.job != job:
        raise UsageError(f"{folder} holds job {held.job}", f"job {job}, or none", "choose another, or --restart")
    return held if held is None or is_done else held.model_copy(update={"status": "running"})


def _read_document(folder: Path) -> tuple[Job | None, DataError | None]:
    try:
        return predictions.find(folder), None
    except DataError as damage:
        return None, damage


def _list_ours(folder: Path, job: Job | None) -> list[Path]:
    """The files of a job of ours in a folder, and the scratch; no link is ours.

    A folder is ours by a document that can be read, or by the scratch's mark; then files with names of ours are. With
    a document only its own parts are.
    """
    has_scratch = scratch.is_ours(folder)
    if job is None and not has_scratch:
        return []
    planned = {artifact_paths.part(folder, shard.number) for shard in job.shards} if job else set()
    ours = [artifact_paths.scratch(folder)] if has_scratch else []
    return ours + [
        path
        for path in sorted(folder.iterdir())
        if (path.name in NAMES or (path in planned if job else PART.fullmatch(path.name)))
        and path.is_file()
        and not path.is_symlink()
    ]


@contextlib.contextmanager
def begun(folder: Path, held: Job | None) -> Iterator[None]:
    """Make the folder and its scratch; where the block fails before there is a job, nothing of them stays.

    Raises:
        UsageError: something else has the name of one of them.
        EnvironmentProblem: so it is with artifacts/predictions/ or what lies below it.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        scratch.make(folder)
    except (FileExistsError, NotADirectoryError) as error:
        found = next(each for each in (folder, *folder.parents) if each.is_symlink() or each.exists())
        if found.is_relative_to(artifact_paths.all_predictions()):
            raise EnvironmentProblem(f"{found} is no folder", "a folder", "move it elsewhere") from error
        raise UsageError(f"{found} is no folder", "a folder", "choose another --output") from error
    if held is None:
        scratch.empty(folder)  # what a plan that failed has unpacked may be of another input
    try:
        yield
    except BaseException:
        if not (folder / JOB).exists():
            scratch.remove(folder)
            with contextlib.suppress(OSError):  # others have begun to use it
                for each in missing:
                    each.rmdir()
        raise


def clear(folder: Path) -> None:
    """Remove what a job wrote, and nothing else; its document goes first, so that none tells of what is gone."""
    _note(folder).unlink(missing_ok=True)
    ours = _list_ours(folder, _read_document(folder)[0])
    for path in sorted(ours, key=lambda each: each.name != JOB):
        if path != artifact_paths.scratch(folder):
            path.unlink(missing_ok=True)


def update_document(folder: Path, job: Job) -> None:
    """Replace the document of a job that is done."""
    with begun(folder, job):
        predictions.write(folder, job)
    clean_up(folder)


def clean_up(folder: Path) -> None:
    """Remove what is of use only while a job runs."""
    scratch.remove(folder)
    _note(folder).unlink(missing_ok=True)


def register(folder: Path) -> None:
    """Note where the job is, before it begins, if pruning would not find it and might take its version."""
    if folder.parent != artifact_paths.all_predictions():
        atomic.write_bytes(_note(folder), artifact_paths.relative(folder).encode())


def _note(folder: Path) -> Path:
    return artifact_paths.jobs_elsewhere() / locks.of_job(folder).name
