"""The folder of a job's output: what in it is ours, who may write into it, and what goes when a job is restarted."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks import artifact_paths, atomic, waiting
from tasks.artifact_paths import JOB, OLD_NAMES, PREDICTION_GRID, REJECTS
from tasks.errors import DataError, UsageError
from tasks.parameters import PredictParameters
from tasks.predict import jobs, parts, scratch
from tasks.predict.jobs import Job

OLD_SCRATCH = {".lock", ".rejects", ".spool", ".sources.parquet"}  # beside a job.json of old: left as they are


def folder_of(output: str) -> Path:
    """The folder that ``--output`` names, absolute.

    Raises:
        UsageError: it is in artifacts/, where other things than predictions lie, in another job's folder, or no path.
    """
    try:
        folder = Path(output).expanduser().absolute()
        real, root = folder.resolve(), artifact_paths.root().resolve()
        predictions = artifact_paths.all_predictions().resolve()
        if real.is_relative_to(root) and (
            predictions not in real.parents or real.relative_to(predictions).parts[0].startswith(".")
        ):
            raise UsageError(
                f"--output {output} is inside the artifacts folder {root}",
                f"a folder outside of it, or below {predictions}",
                "choose another, or leave it out",
            )
        if outer := next(filter(jobs.holds_one, real.parents), None):
            raise UsageError(f"--output {output} is in the folder of a job, {outer}", "a folder apart", "choose another")
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a loop of links, ~nobody, a null byte
        raise UsageError(f"--output {output}: {error}", "a path to a folder", "choose another") from error
    return folder


def unfinished(parameters: PredictParameters) -> Iterator[Job]:
    """The unfinished jobs of this model that an earlier, killed call may have left for this one."""
    if parameters.restart:
        return
    every = artifact_paths.all_predictions()
    for folder in [folder_of(parameters.output)] if parameters.output else sorted(every.glob("*")):
        with contextlib.suppress(DataError, OSError):  # a damaged one is told of by the command that wants this folder
            job = jobs.find(folder)
            if job is not None and job.status == "running" and job.model.name == parameters.name:
                yield job


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job's folder; whoever else runs the same job waits, and then finds it done."""
    lock = artifact_paths.job_lock(folder)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with waiting.locked(lock, f"another process is at work on {folder}; waiting for it"):
        yield


@contextlib.contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make the folder and its scratch; where the block fails before there is a job, nothing of them stays.

    Raises:
        UsageError: it is no folder.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        scratch.make(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is a file, or in one", "a folder", "choose another --output") from error
    try:
        yield
    except BaseException:
        if not (folder / JOB).exists() and not (folder / OLD_NAMES[JOB]).exists():
            scratch.remove(folder)
            with contextlib.suppress(OSError):  # others have begun to use it
                for each in missing:
                    each.rmdir()
        raise


class Content(NamedTuple):
    """What a folder holds: the files of a job of ours, and whatever else is in it."""

    ours: list[Path]
    strange: list[Path]


def content(folder: Path) -> Content:
    """Tell a job's files from others by what they are: one that only has the name of ours is strange.

    Where the document is damaged or gone, the scratch's mark and the parts' footers still tell whose the folder is.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    try:
        job = jobs.find(folder)
    except DataError:
        job = None
    planned = {artifact_paths.part(folder, shard.number) for shard in job.shards} if job else set()
    ours = [path for path in entries if _is_part(path, path in planned)]
    if scratch.is_ours(folder):
        ours.append(artifact_paths.scratch(folder))
    if job or ours:
        names = {*OLD_NAMES, *OLD_NAMES.values()}
        ours += [path for path in entries if path.name in names and path not in ours and _is_file(path)]
    known = OLD_SCRATCH if (folder / OLD_NAMES[JOB]) in ours else set()
    return Content(ours, [path for path in entries if path not in ours and path.name not in known])


def _is_part(path: Path, planned: bool) -> bool:
    """Whether we wrote a part or the rejects; of what cannot be read any more, whether a part of it was to be there."""
    return path.suffix == ".parquet" and _is_file(path) and parts.is_ours(path, otherwise=planned)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def claim(folder: Path, job: str, restart: bool) -> Job | None:
    """The job that the folder holds, if it is ``job``; a finished one is touched by nothing.

    Raises:
        UsageError: the folder holds another job, or something that no job wrote.
        DataError: the document of its job is damaged or lost.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", "a folder", "choose another --output")
    held = None if restart else jobs.find(folder) if jobs.holds_one(folder) else None
    return held
