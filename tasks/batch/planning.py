"""From parameters to a job: pinned version, counted rows, shards; or the job that an earlier call left unfinished."""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.batch import identity, output, parts
from tasks.batch.lanes import batch_size
from tasks.batch.version import read_version
from tasks.data import readers
from tasks.errors import DataError, GradmillError
from tasks.machine import cores
from tasks.machine.words import counted
from tasks.parameters import PredictParameters
from tasks.serving import contract, sessions
from tasks.store import artifact_paths, fingerprints, predictions, reading, regular_files, verified
from tasks.store.artifact_paths import ONNX
from tasks.store.fingerprints import Fingerprint
from tasks.store.predictions import Job, JobInput, JobModel, Shard

FEWEST_ROWS = 2**16  # of a shard: fewer are done before another worker has begun


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
    job, asked = _asked_for(parameters)
    folder = output.folder_of(parameters.output) if parameters.output else artifact_paths.predictions(job.job)
    with output.locked(folder):
        held = output.claim(folder, job.job, parameters.restart)
        if held is None or held.status != "done":
            with output.begun(folder, held):
                job = _plan(folder, held or job, asked, parameters)
                if held is None:
                    output.clear(folder)
                output.announce(folder)
                predictions.write(folder, job)
            held = job
        yield Planned(folder, held)


def _asked_for(parameters: PredictParameters) -> tuple[Job, Asked]:
    """The job, not yet planned, that a command means: a new one, or the one that it was killed in."""
    model, content = _load(parameters, parameters.version)
    session = sessions.open_session(content, parameters.device)
    provider, row = sessions.provider(session), contract.of_session(session).inputs[0].shape
    command = _Command(parameters, provider, parameters.batch_size or batch_size(provider, row))
    asked = command.ask(model)
    if left := command.left_unfinished(model, asked):
        unfinished, asked = left
        model, _ = _load(parameters, unfinished.model.version, unfinished.model.sha256)
    job = Job(
        job=identity.job_id(asked.request, model.sha256),
        request=asked.request,
        input=asked.input,
        model=model,
        provider=provider,
        batch_size=command.batch_size,
        columns=parameters.columns,
        id_columns=parameters.id_columns,
        unknown="average" if parameters.input is None else parameters.unknown,  # a retrain's test split has no rejects
        written=parameters.write,
        started_at=predictions.now(),
    )
    return job, asked


def _load(parameters: PredictParameters, version: int | None, sha256: str | None = None) -> tuple[JobModel, bytes]:
    """A version (None: the champion) and its ONNX file; ``sha256`` is what an unfinished job expects."""
    number, content = reading.load(parameters.name, version)
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise DataError(
            f"{artifact_paths.version(parameters.name, number) / ONNX} has SHA-256 {found}",
            f"{sha256}, with which the unfinished job was started",
            "restore the version, or start afresh with --restart",
        )
    return JobModel(name=parameters.name, version=number, sha256=found), content


class _Command(NamedTuple):
    """Parameters, with what is decided of them on this machine."""

    parameters: PredictParameters
    provider: str
    batch_size: int

    def ask(self, model: JobModel) -> Asked:
        """What is to be predicted; without an input, the test split of the data that the version was trained on."""
        files = self._files(model)
        prints = fingerprints.of(files, self.parameters.full_digest)
        source = identity.describe(self.parameters.input or artifact_paths.relative(files[0]), prints)
        request = identity.request_id(source, self.parameters, self.provider)
        return Asked(files, prints, source, request)

    def _files(self, model: JobModel) -> list[Path]:
        source, target = self.parameters.input, self.parameters.output
        if source is not None:
            return readers.find(source, output.folder_of(target) if target else None)
        split = reading.manifest(model.name, model.version).dataset.test
        verified.check(split, "gradmill retrain, which prepares it anew, or name an input")
        return [split.path]

    def left_unfinished(self, model: JobModel, asked: Asked) -> tuple[Job, Asked] | None:
        """The job that an earlier, killed call of the same command left, and what it was asked for."""
        for job in output.unfinished(self.parameters):
            its_own = asked
            if self.parameters.input is None and job.model != model:  # the same words meant its version's test split
                try:
                    its_own = self.ask(job.model)
                except GradmillError:
                    continue  # that version or its data are gone
            if job.request == its_own.request:
                return job, its_own
        return None


def _plan(folder: Path, job: Job, asked: Asked, parameters: PredictParameters) -> Job:
    """Count the rows, note where they are and cut them into shards (an unfinished job keeps its own)."""
    wanted = read_version(job.model.path.parent).wanted(job)
    base = readers.base_of(regular_files.absolute(parameters.input)) if parameters.input else None
    sources = readers.measure(asked.files, wanted, artifact_paths.spool(folder), base)
    readers.check_unchanged(asked.prints)
    rows = sum(source.rows for source in sources)
    if job.shards and rows != job.rows:
        raise DataError(
            f"{counted(rows, 'row')} in {job.input.path}", f"{job.rows:,}, as when the job was started", "--restart it"
        )
    workers = parameters.workers or cores.available()
    if parameters.shard_rows:
        plan = cut(rows, parameters.shard_rows)
    else:
        plan = cut(rows, readers.shard_rows(sources, wanted), workers)
    tolerated = readers.tolerated_rejects(sources) if parameters.max_rejects is None else parameters.max_rejects
    parts.write_sources(folder, sources)
    changes = {"rows": rows, "shards": job.shards or tuple(plan), "max_rejects": tolerated, "workers": workers}
    return job.model_copy(update={"status": "running", **changes})


def cut(rows: int, at_most: int, workers: int = 1) -> list[Shard]:
    """Shards of at most ``at_most`` rows that hold ``rows``, their sizes no more than one row apart.

    As few as possible, but as many for each worker as for the others unless they would be very small.
    """
    count = -(-rows // at_most)
    even = -(-count // workers) * workers
    if rows // even >= FEWEST_ROWS:
        count = even
    bounds = [rows * number // count for number in range(count + 1)]
    return [Shard(number, start, stop) for number, (start, stop) in enumerate(itertools.pairwise(bounds))]
