"""From parameters to a job: pinned version, counted rows, shards; or the job that an earlier call left unfinished."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks import artifact_paths, contract, cores, onnx_session
from tasks.artifact_paths import ONNX
from tasks.errors import DataError
from tasks.model_store import reading
from tasks.parameters import PredictParameters
from tasks.predict import inputs, jobs, parts, shards
from tasks.predict.inputs import Source
from tasks.predict.jobs import Job, JobModel
from tasks.predict.lanes import BATCH_SIZE
from tasks.predict.version import read_version


class Planned(NamedTuple):
    """A job and its folder."""

    folder: Path
    job: Job


@contextlib.contextmanager
def planned(parameters: PredictParameters) -> Iterator[Planned]:
    """Plan a job, or take up the one that an earlier call left; meanwhile this process alone works in its folder.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output folder holds another job.
        DataError: the input is broken or does not fit the model.
        DeviceMissing: CUDA was asked for and is not there.
    """
    model, session = _open(parameters, parameters.version)
    provider = onnx_session.provider(session)
    batch_size = parameters.batch_size or BATCH_SIZE[provider]
    files = _files(parameters, model)
    source = jobs.describe_input(parameters.input or str(files[0]), files, parameters.full_digest)
    request = jobs.request_id(source, parameters, provider, batch_size)
    left = jobs.unfinished(request, parameters)
    if left is not None and left.model != model:
        model, session = _open(parameters, left.model.version, left.model.sha256)
    job = Job(
        job=jobs.job_id(request, model.sha256),
        request=request,
        input=source,
        model=model,
        provider=provider,
        batch_size=batch_size,
        columns=parameters.columns,
        started_at=jobs.now(),
    )
    folder = jobs.output_folder(parameters.output) if parameters.output else artifact_paths.predictions(job.job)
    with jobs.locked(folder):
        held = jobs.claim(folder, job.job, parameters.restart)
        if held is None or held.status != "done" or not parts.is_whole(folder, held):
            held = _cut(folder, held or job, files, parameters, contract.of_session(session))
        yield Planned(folder, held)


def _open(parameters: PredictParameters, version: int | None, sha256: str | None = None) -> tuple[JobModel, Any]:
    """A version (None: the champion) and a session on it; ``sha256`` is what an unfinished job expects."""
    number, content = reading.load(parameters.name, version)
    found = hashlib.sha256(content).hexdigest()
    path = artifact_paths.version(parameters.name, number) / ONNX
    if sha256 not in (None, found):
        raise DataError(
            f"{path} has SHA-256 {found}",
            f"{sha256}, with which the unfinished job was started",
            "restore the version, or start afresh with --restart",
        )
    model = JobModel(name=parameters.name, version=number, sha256=found, path=path)
    return model, onnx_session.open_session(content, parameters.device)


def _files(parameters: PredictParameters, model: JobModel) -> list[Path]:
    """The files of the input; without one, the test split of the data that the version was trained on."""
    if parameters.input is not None:
        return inputs.find(parameters.input)
    path = Path(reading.manifest(model.name, model.version)["dataset"]["test"]["path"])
    if not path.is_file():
        raise DataError(f"{path} is gone", "the dataset that the version was trained on", "retrain, or name an input")
    return [path]


def _cut(
    folder: Path, job: Job, files: list[Path], parameters: PredictParameters, signature: contract.Signature
) -> Job:
    """Count the rows, cut them into shards (an unfinished job keeps its own) and write job.json."""
    wanted = read_version(job.model.path.parent).wanted(signature, job.columns)
    sources = inputs.measure(files, wanted, artifact_paths.spool(folder))
    rows = sum(source.rows for source in sources)
    if job.shards and rows != job.rows:
        raise DataError(f"{rows} rows in {job.input.path}", f"{job.rows}, as when the job was started", "--restart it")
    workers = parameters.workers or cores.available()
    if parameters.shard_rows:
        plan = shards.cut(rows, parameters.shard_rows)
    else:
        plan = shards.cut(rows, inputs.shard_rows(sources, wanted), workers)
    job = job.model_copy(
        update={
            "status": "running",
            "rows": rows,
            "shards": job.shards or tuple(plan),
            "max_rejects": _most_rejects(parameters, sources),
            "workers": workers,
        }
    )
    job.write(folder)
    parts.write_sources(folder, sources)
    return job


def _most_rejects(parameters: PredictParameters, sources: list[Source]) -> int:
    return inputs.tolerated_rejects(sources) if parameters.max_rejects is None else parameters.max_rejects
