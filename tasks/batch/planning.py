"""From parameters to a job: pinned version, counted rows, shards; or the job that an earlier call left unfinished."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks.batch import identity, jobs, output, parts, shards
from tasks.batch.identity import Fingerprint
from tasks.batch.jobs import Job, JobInput, JobModel
from tasks.batch.lanes import BATCH_SIZE
from tasks.batch.version import read_version
from tasks.data import readers
from tasks.data.readers import Source
from tasks.errors import DataError, GradmillError
from tasks.machine import cores
from tasks.machine.words import counted
from tasks.parameters import PredictParameters
from tasks.serving import contract, sessions
from tasks.store import artifact_paths, reading, verified
from tasks.store.artifact_paths import ONNX


class Planned(NamedTuple):
    """A job and its folder."""

    folder: Path
    job: Job


class Asked(NamedTuple):
    """What a command asks for, whichever version answers."""

    files: list[Path]
    prints: list[Fingerprint]
    input: JobInput
    request: str


@contextlib.contextmanager
def planned(parameters: PredictParameters) -> Iterator[Planned]:
    """Plan a job, or take up the one that an earlier call left; meanwhile this process alone works in its folder.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output folder holds another job.
        DataError: the input is broken or does not fit the model.
        DeviceMissing: CUDA was asked for and is not there.
    """
    if parameters.output:
        output.folder_of(parameters.output)  # before anything else is looked at
    model, session = _open(parameters, parameters.version)
    provider = sessions.provider(session)
    batch_size = parameters.batch_size or BATCH_SIZE[provider]
    asked = _ask(parameters, model, provider, batch_size)
    if left := _left_unfinished(parameters, model, provider, batch_size, asked):
        (unfinished, asked) = left
        model, session = _open(parameters, unfinished.model.version, unfinished.model.sha256)
    job = Job(
        job=identity.job_id(asked.request, model.sha256),
        request=asked.request,
        input=asked.input,
        model=model,
        provider=provider,
        batch_size=batch_size,
        columns=parameters.columns,
        started_at=jobs.now(),
    )
    folder = output.folder_of(parameters.output) if parameters.output else artifact_paths.predictions(job.job)
    with output.locked(folder):
        held = output.claim(folder, job.job, parameters.restart)
        if held is None or held.status != "done":
            with output.begun(folder, held):
                job = _plan(folder, held or job, asked, parameters, contract.of_session(session))
                if held is None:
                    output.clear(folder)
                output.announce(folder)
                jobs.write(folder, job)
            held = job
        yield Planned(folder, held)


def _open(parameters: PredictParameters, version: int | None, sha256: str | None = None) -> tuple[JobModel, Any]:
    """A version (None: the champion) and a session on it; ``sha256`` is what an unfinished job expects."""
    number, content = reading.load(parameters.name, version)
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise DataError(
            f"{artifact_paths.version(parameters.name, number) / ONNX} has SHA-256 {found}",
            f"{sha256}, with which the unfinished job was started",
            "restore the version, or start afresh with --restart",
        )
    model = JobModel(name=parameters.name, version=number, sha256=found)
    return model, sessions.open_session(content, parameters.device)


def _ask(parameters: PredictParameters, model: JobModel, provider: str, batch_size: int) -> Asked:
    """What is to be predicted; without an input, the test split of the data that the version was trained on."""
    files = _files(parameters, model)
    prints = identity.fingerprints(files, parameters.full_digest)
    source = identity.describe(parameters.input or artifact_paths.relative(files[0]), prints)
    return Asked(files, prints, source, identity.request_id(source, parameters, provider, batch_size))


def _files(parameters: PredictParameters, model: JobModel) -> list[Path]:
    if parameters.input is not None:
        return readers.find(parameters.input, output.folder_of(parameters.output) if parameters.output else None)
    split = reading.manifest(model.name, model.version).dataset.test
    verified.read(split, "gradmill retrain, which prepares it anew, or name an input")
    return [split.path]


def _left_unfinished(
    parameters: PredictParameters, model: JobModel, provider: str, batch_size: int, asked: Asked
) -> tuple[Job, Asked] | None:
    """The job that an earlier, killed call of the same command left, and what it was asked for."""
    for job in output.unfinished(parameters):
        its_own = asked
        if parameters.input is None and job.model != model:  # the same words then meant its version's test split
            try:
                its_own = _ask(parameters, job.model, provider, batch_size)
            except GradmillError:
                continue  # that version or its data are gone
        if job.request == its_own.request:
            return job, its_own
    return None


def _plan(folder: Path, job: Job, asked: Asked, parameters: PredictParameters, signature: contract.Signature) -> Job:
    """Count the rows, note where they are and cut them into shards (an unfinished job keeps its own)."""
    wanted = read_version(job.model.path.parent).wanted(signature, job.columns)
    sources = readers.measure(asked.files, wanted, artifact_paths.spool(folder))
    identity.check_unchanged(asked.prints, sources)
    rows = sum(source.rows for source in sources)
    if job.shards and rows != job.rows:
        raise DataError(
            f"{counted(rows, 'row')} in {job.input.path}", f"{job.rows:,}, as when the job was started", "--restart it"
        )
    workers = parameters.workers or cores.available()
    if parameters.shard_rows:
        plan = shards.cut(rows, parameters.shard_rows)
    else:
        plan = shards.cut(rows, readers.shard_rows(sources, wanted), workers)
    parts.write_sources(folder, sources)
    return job.model_copy(
        update={
            "status": "running",
            "rows": rows,
            "shards": job.shards or tuple(plan),
            "max_rejects": _most_rejects(parameters, sources),
            "workers": workers,
        }
    )


def _most_rejects(parameters: PredictParameters, sources: list[Source]) -> int:
    return readers.tolerated_rejects(sources) if parameters.max_rejects is None else parameters.max_rejects
