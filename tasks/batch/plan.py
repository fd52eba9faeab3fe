"""From parameters to a job: pinned version, counted rows, shards; or the job that an earlier call left unfinished."""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.batch import output_dir, output_file
from tasks.batch.output_dir import Output
from tasks.batch.session_pool import default_batch_size, empty_outputs
from tasks.data import readers
from tasks.data.readers import Source
from tasks.data.readers.formats import Wanted
from tasks.data.recipe import Columns, Recipe
from tasks.data.table.profile import ColumnProfile
from tasks.errors import DataError, GradmillError, UsageError
from tasks.machine import cores
from tasks.machine.words import counted
from tasks.parameters import PredictParameters
from tasks.serving import contract, sessions
from tasks.serving.contract import ModelMetadata
from tasks.serving.drift import Profile
from tasks.serving.task import TASKS, Task
from tasks.store import artifact_paths, atomic, fingerprints, predictions, reading, regular_files, verified
from tasks.store.artifact_paths import LABELS, MANIFEST, METADATA, ONNX
from tasks.store.fingerprints import Fingerprint
from tasks.store.predictions import Job, JobInput, JobModel, Shard
from tasks.store.versions import Manifest

FEWEST_ROWS = 2**16  # of a shard: fewer are done before another worker has begun
ID_CHARACTERS = 16
USUAL = {sessions.CPU: 1024, sessions.CUDA: 16384}  # stands for the default batch size in the ids of jobs
ARRAYS = (".npy", ".npz", ".safetensors")  # files whose columns have no names


class Version(NamedTuple):
    """Task, class names, the test split's profile, the recipe, and of own tables what columns were like."""

    task: Task
    labels: list[str]
    reference: Profile
    recipe: Recipe
    columns: tuple[ColumnProfile, ...] = ()

    def wanted(self, job: Job) -> Wanted:
        """The rows that the model takes, for a job."""
        is_own = isinstance(self.recipe, Columns) and self.recipe.target is not None
        truth = self.task.target if self.task.is_counted or is_own else None
        return Wanted(self.recipe, job.columns, truth, tuple(self.labels), job.id_columns, job.unknown)

    def output_columns(self, job: Job) -> list[str]:
        """The names of what the model adds to a row."""
        outputs = empty_outputs(self.task.outputs(len(self.labels)))
        return list(self.task.columns(outputs, self.labels, job.written == "all"))


def read_version(folder: Path) -> Version:
    """Read what predicting needs of a version's folder alone: a worker elsewhere has no other settings.

    Raises:
        DataError: its manifest, its metadata or its labels are missing, have changed since it was published, or do not
            fit each other.
    """
    manifest = reading.read_manifest(folder)
    labels, path = manifest.dataset.class_names, folder / METADATA
    if ModelMetadata.parse(reading.read_file(folder, METADATA), path) != manifest.metadata:
        found = f"{path} does not fit recipe, task and classes in {MANIFEST}"
        raise DataError(found, "both as they were published", "restore both from a copy")
    if labels and reading.read_file(folder, LABELS) != "".join(f"{label}\n" for label in labels).encode():
        raise DataError(f"{folder / LABELS} is not what {MANIFEST} says", ", ".join(labels), "restore both from a copy")
    task = TASKS[manifest.dataset.task]
    return Version(task, list(labels), dict(manifest.profile), manifest.recipe, _column_profiles(manifest))


def _column_profiles(manifest: Manifest) -> tuple[ColumnProfile, ...]:
    """The profiles of an own table's columns in the recipe's order; none unless every column has one."""
    if not isinstance(manifest.recipe, Columns):
        return ()
    known = {each.name: each for each in manifest.dataset.profiles}
    names = manifest.recipe.names
    return tuple(known[name] for name in names) if known.keys() >= set(names) else ()


class OpenJob(NamedTuple):
    """A job that this process alone works at, its folder, and the one file that is wanted of it, if one is."""

    folder: Path
    job: Job
    file: Path | None
    tables: list[Fingerprint] | None  # the input where its columns go into that file


class _Request(NamedTuple):
    """What a command asks for, whichever version answers."""

    files: list[Path]
    prints: list[Fingerprint]
    input: JobInput
    id: str


@contextlib.contextmanager
def open_job(parameters: PredictParameters) -> Iterator[OpenJob]:
    """Plan a job, or take up the one that an earlier call left; meanwhile this process alone works in its folder.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output holds another job or something
            else, or would have two columns of one name.
        DataError: the input is broken or does not fit the model.
        DeviceMissing: CUDA was asked for and is not there.
    """
    output = Output.locate(parameters.output)  # before anything else is looked at
    job, request = _Command(parameters, output).find_job()
    folder, tables = output.folder or artifact_paths.predictions(job.job), None
    if output.file:
        version = read_version(job.model.path.parent)
        is_table = isinstance(version.recipe, Columns)
        is_table &= not any(path.suffix.lower() in ARRAYS for path in request.files)
        tables = request.prints if is_table else None
        output_file.check(output.file, tables, version.output_columns(job), parameters.restart)
    with output_dir.locked(folder):
        held = output_dir.claim(folder, job.job, parameters.restart)
        if held is None or held.status != "done":
            with output_dir.begun(folder, held):
                job = _plan(folder, held or job, request, parameters)
                if held is None:
                    output_dir.clear(folder)
                output_dir.register(folder)
                predictions.write(folder, job)
            held = job
        yield OpenJob(folder, held, output.file, tables)


class _Command:
    """Parameters, and what they mean on this machine."""

    def __init__(self, parameters: PredictParameters, output: Output) -> None:
        self._parameters, self._output = parameters, output
        self._model, content = _load(parameters, parameters.version)
        session = sessions.open_session(content, parameters.device)
        self._provider, shape = sessions.provider(session), contract.of_session(session).inputs[0].shape
        self._batch_size = parameters.batch_size or default_batch_size(self._provider, shape)

    def find_job(self) -> tuple[Job, _Request]:
        """The job, not yet planned: a new one, or the one that an earlier call of the same command was killed in."""
        parameters, model, request = self._parameters, self._model, self._request(self._model)
        for unfinished in output_dir.find_unfinished(parameters, self._output):
            its_own = request
            if parameters.input is None and unfinished.model != model:  # it meant the test split of its version
                try:
                    its_own = self._request(unfinished.model)
                except GradmillError:
                    continue  # that version or its data are gone
            if unfinished.request == its_own.id:
                request, found = its_own, unfinished.model
                model, _ = _load(parameters, found.version, found.sha256)
                break
        return Job(
            job=_digest({"request": request.id, "model": model.sha256})[:ID_CHARACTERS],
            request=request.id,
            input=request.input,
            model=model,
            provider=self._provider,
            batch_size=self._batch_size,
            columns=parameters.columns,
            id_columns=parameters.id_columns,
            unknown="average" if parameters.input is None else parameters.unknown,  # the test split has no rejects
            written=parameters.write,
            started_at=predictions.now(),
        ), request

    def _request(self, model: JobModel) -> _Request:
        """What is to be predicted; without an input, the test split of the data that the version was trained on."""
        files = self._find_files(model)
        prints = fingerprints.of(files, self._parameters.full_digest)
        path = self._parameters.input or artifact_paths.relative(files[0])
        size = sum(each.bytes for each in prints)
        source = JobInput(path=path, digest=_digest(prints), files=len(prints), bytes=size)
        return _Request(files, prints, source, _request_id(source, self._parameters, self._provider))

    def _find_files(self, model: JobModel) -> list[Path]:
        source, file = self._parameters.input, self._output.file
        if source is None:
            split = reading.manifest(model.name, model.version).dataset.test
            verified.check(split, "gradmill retrain, which prepares it anew, or name an input")
            return [split.path]
        found = readers.find(source, self._output.folder)
        files = [path for path in found if file is None or path.resolve() != file.resolve()]
        if not files:
            raise UsageError(f"the input {source} is the output file", "two files", "choose another --output")
        return files


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


def _request_id(source: JobInput, parameters: PredictParameters, provider: str) -> str:
    """The id of input, name and all parameters that decide what the parts hold."""
    document = {
        "input": source.digest,
        "name": parameters.name,
        "version": parameters.version,
        "columns": parameters.columns,
        "shard_rows": parameters.shard_rows,
        "batch_size": parameters.batch_size or USUAL[provider],
        "provider": provider,
    }
    own = {"id_columns": parameters.id_columns, "unknown": parameters.unknown}
    if own != {"id_columns": (), "unknown": "reject"}:  # jobs from before these options keep their ids
        document |= own
    if parameters.write != "all":
        document["write"] = parameters.write
    return _digest(document)[:ID_CHARACTERS]


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _plan(folder: Path, job: Job, request: _Request, parameters: PredictParameters) -> Job:
    """Count the rows, note where they are and cut them into shards (an unfinished job keeps its own)."""
    wanted = read_version(job.model.path.parent).wanted(job)
    given = regular_files.absolute(parameters.input) if parameters.input else None
    base = readers.base_of(given) if given and not given.is_file() else None  # one picture's folder tells no class
    sources = readers.measure(request.files, wanted, artifact_paths.spool(folder), base)
    readers.check_unchanged(request.prints)
    rows = sum(source.rows for source in sources)
    if job.shards and rows != job.rows:
        raise DataError(
            f"{counted(rows, 'row')} in {job.input.path}", f"{job.rows:,}, as when the job was started", "--restart it"
        )
    workers = parameters.workers or cores.available()
    if parameters.shard_rows:
        shards = cut_shards(rows, parameters.shard_rows)
    else:
        shards = cut_shards(rows, readers.shard_rows(sources, wanted), workers)
    max_rejects = readers.tolerated_rejects(sources) if parameters.max_rejects is None else parameters.max_rejects
    write_sources(folder, sources)
    changes = {"rows": rows, "shards": job.shards or tuple(shards), "max_rejects": max_rejects, "workers": workers}
    return job.model_copy(update={"status": "running", **changes})


def cut_shards(rows: int, at_most: int, workers: int = 1) -> list[Shard]:
    """Shards of at most ``at_most`` rows that hold ``rows``, their sizes no more than one row apart.

    As few as possible, but as many for each worker as for the others unless they would be very small.
    """
    count = -(-rows // at_most)
    even = -(-count // workers) * workers
    if rows // even >= FEWEST_ROWS:
        count = even
    bounds = [rows * number // count for number in range(count + 1)]
    return [Shard(number, start, stop) for number, (start, stop) in enumerate(itertools.pairwise(bounds))]


def write_sources(folder: Path, sources: list[Source]) -> None:
    """Write which file holds which rows, for the shards to look up."""
    with atomic.replacing(artifact_paths.sources(folder)) as temporary:
        pq.write_table(pa.Table.from_pylist([source._asdict() for source in sources]), temporary)


def read_sources(folder: Path, shard: Shard) -> list[Source]:
    """The files that hold the rows of a shard.

    Raises:
        DataError: what ``write_sources`` wrote cannot be read.
    """
    path = artifact_paths.sources(folder)
    with output_dir.reading(path):
        rows = pq.read_table(path, filters=pc.field("first_row") < shard.stop)
        rows = rows.filter(pc.greater(pc.add(rows["first_row"], rows["rows"]), shard.start))
    return [Source(**row) for row in rows.to_pylist()]
