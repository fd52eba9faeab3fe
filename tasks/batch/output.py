"""The folder of a job's output: what in it is ours, who may write into it, and what goes when a job is restarted."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.batch import parts
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.parameters import PredictParameters
from tasks.store import artifact_paths, atomic, folders, locks, predictions, scratch
from tasks.store.artifact_paths import JOB, OLD_NAMES, REJECTS
from tasks.store.predictions import Job

PARQUET = re.compile(r"part-\d{5,}\.parquet|" + "|".join(map(re.escape, (REJECTS, OLD_NAMES[REJECTS]))))
NAMES = {*OLD_NAMES, *OLD_NAMES.values()}
OLD_SCRATCH = {".lock", ".rejects", ".spool", ".sources.parquet"}  # beside a job of old; they may be anybody's: left


def folder_of(output: str) -> Path:
    """The folder that ``--output`` names, absolute.

    Raises:
        UsageError: it is in artifacts/ where other things than predictions lie, in a job's or a model's folder, or no
            path.
    """
    try:
        folder = Path(output).expanduser().absolute()
        real, place, ours = folder.resolve(), folders.holding(folder), artifact_paths.all_predictions()
        below = real.relative_to(ours.resolve()).parts if place == ours else ()
        if place is not None and (not below or below[0].startswith(".")):
            raise UsageError(
                f"--output {output} is inside the artifacts folder, in {place}",
                f"a folder outside of it, or below {ours}",
                "choose another, or leave it out",
            )
        pointer = artifact_paths.champion("").name
        if store := next((each for each in (real, *real.parents) if (each / pointer).is_file()), None):
            raise UsageError(
                f"--output {output} is in the folder of a model, {store}", "a folder apart", "choose another"
            )
        if outer := next(filter(predictions.holds_job, real.parents), None):
            raise UsageError(
                f"--output {output} is in the folder of a job, {outer}", "a folder apart", "choose another"
            )
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
            job = predictions.find(folder)
            if job is not None and job.status == "running" and job.model.name == parameters.name:
                yield job


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job's folder; whoever else runs the same job waits, and then finds it done."""
    with locks.locked(locks.of_job(folder), f"another process is at work on {folder}; waiting for it"):
        yield


def claim(folder: Path, job: str, restart: bool) -> Job | None:
    """The job that the folder holds, if it is ``job`` and to be kept; nothing is touched, but for a done one's scratch.

    Raises:
        UsageError: the folder holds another job, or something that no job wrote.
        DataError: the document of its job is damaged or lost.
    """
    held, damage = _document(folder)
    is_done = held is not None and held.status == "done" and parts.is_whole(folder, held)
    if held is not None and held.job == job and is_done and not restart:
        clean_up(folder)  # of a kill right after its end
        return held
    ours, strange = content(folder)
    if strange:
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


def _document(folder: Path) -> tuple[Job | None, DataError | None]:
    try:
        return predictions.find(folder), None
    except DataError as damage:
        return None, damage


class Content(NamedTuple):
    """What a folder holds: the files of a job of ours, and whatever else is in it."""

    ours: list[Path]
    strange: list[Path]


def content(folder: Path) -> Content:
    """Tell a job's files from others by what they are; no link is ours.

    Where the document is damaged or gone, its own text, the scratch's mark or the footer of any Parquet file proves
    whose the folder is; without a proof, a file with a name of ours is somebody else's, damaged or not.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in entries if path.is_file() and not path.is_symlink()]
    job, _ = _document(folder)
    planned = {artifact_paths.part(folder, shard.number) for shard in job.shards} if job else set()
    named = [path for path in files if (path in planned if job else PARQUET.fullmatch(path.name))]
    has_scratch = scratch.is_ours(folder)
    if not (
        job
        or has_scratch
        or predictions.left_document(folder)
        or any(parts.is_ours(path, otherwise=False) for path in named)
    ):
        return Content([], entries)
    ours = [path for path in named if parts.is_ours(path, otherwise=True)]
    ours += [artifact_paths.scratch(folder)] * has_scratch
    ours += [path for path in files if path.name in NAMES and path not in ours]
    return Content(ours, [path for path in entries if path not in ours and path.name not in OLD_SCRATCH])


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
        if predictions.document_in(folder) is None:
            scratch.remove(folder)
            with contextlib.suppress(OSError):  # others have begun to use it
                for each in missing:
                    each.rmdir()
        raise


def clear(folder: Path) -> None:
    """Remove what a job wrote, and nothing else; its document goes first, so that none tells of what is gone."""
    _note(folder).unlink(missing_ok=True)
    ours = [path for path in content(folder).ours if path != artifact_paths.scratch(folder)]
    for path in sorted(ours, key=lambda each: each not in artifact_paths.job_documents(folder)):
        path.unlink(missing_ok=True)


def clean_up(folder: Path) -> None:
    """Remove what is of use only while a job runs."""
    scratch.remove(folder)
    _note(folder).unlink(missing_ok=True)


def announce(folder: Path) -> None:
    """Note where the job is, before it begins, if pruning would not find it and might take its version."""
    if folder.parent != artifact_paths.all_predictions():
        atomic.write_bytes(_note(folder), artifact_paths.relative(folder).encode())


def _note(folder: Path) -> Path:
    return artifact_paths.jobs_elsewhere() / locks.of_job(folder).name
