"""The folder of a job's output: who may write into it, and what is swept out of it."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tasks import artifact_paths, atomic, waiting
from tasks.artifact_paths import JOB, PREDICTION_GRID, REJECTS
from tasks.errors import UsageError
from tasks.parameters import PredictParameters
from tasks.predict.jobs import Job

FOLDER_CHARACTERS = 8


def folder_of(output: str) -> Path:
    """The folder that ``--output`` names, absolute."""
    return Path(output).expanduser().absolute()


def unfinished(parameters: PredictParameters) -> Iterator[Job]:
    """The unfinished jobs of this model that an earlier, killed call may have left for this one."""
    if parameters.restart:
        return
    folders = (
        [folder_of(parameters.output)]
        if parameters.output
        else sorted(path.parent for path in artifact_paths.all_predictions().glob(f"*/{JOB}"))
    )
    for folder in folders:
        job = Job.read(folder)
        if job is not None and job.status == "running" and job.model.name == parameters.name:
            yield job


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job's folder; whoever else runs the same job waits, and then finds it done.

    Raises:
        UsageError: it is no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is a file, or in one", "a folder", "choose another --output") from error
    with waiting.locked(folder / ".lock", f"another process is at work on {folder}; waiting for it"):
        yield


def claim(folder: Path, job: str, restart: bool) -> Job | None:
    """The job that the folder holds, if it is ``job``; leftovers of killed writers are swept.

    Raises:
        UsageError: the folder holds another job, or files that no job wrote.
    """
    held = Job.read(folder)
    if restart and held is not None:
        _clear(folder, held)
        held = None
    if held is not None and held.job != job:
        raise UsageError(f"{folder} holds job {held.job}", f"job {job}, or none", "choose another, or --restart")
    if held is None and (strangers := [path.name for path in folder.iterdir() if not path.name.startswith(".")]):
        raise UsageError(f"{folder} holds something else ({strangers[0]})", "an empty folder", "choose another")
    atomic.sweep(folder)
    if held is None or held.status == "done":
        clean_up(folder, held)  # what a plan that failed has unpacked may be of another input
    return held


def _clear(folder: Path, held: Job) -> None:
    """Remove what the job wrote, and nothing else; job.json goes last, and never calls a half-cleared job done."""
    held.model_copy(update={"status": "running"}).write(folder)
    parts = [artifact_paths.part(folder, shard.number) for shard in held.shards]
    clean_up(folder, held)
    for path in (*parts, folder / REJECTS, folder / PREDICTION_GRID, folder / JOB):
        path.unlink(missing_ok=True)


def clean_up(folder: Path, job: Job | None) -> None:
    """Remove what is of use only while a job runs."""
    for path in (artifact_paths.spool(folder), artifact_paths.shard_rejects(folder)):
        shutil.rmtree(path, ignore_errors=True)
    artifact_paths.sources(folder).unlink(missing_ok=True)
    if job is not None:
        _note(folder, job).unlink(missing_ok=True)


def announce(folder: Path, job: Job) -> None:
    """Note where the job is, before it begins, if pruning would not find it and might take its version."""
    if folder.parent != artifact_paths.all_predictions():
        atomic.write_bytes(_note(folder, job), str(folder).encode())


def _note(folder: Path, job: Job) -> Path:
    """Named by the job, and by the folder too: one job may have been begun in two."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()
    return artifact_paths.jobs_elsewhere() / f"{job.job}-{digest[:FOLDER_CHARACTERS]}"
