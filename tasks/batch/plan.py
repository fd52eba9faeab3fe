"""From parameters to a job: pinned version, counted rows, shards; or the job that an earlier call left unfinished."""

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.batch import output_dir
from tasks.batch.output_dir import Output
from tasks.batch.session_pool import default_batch_size, empty_outputs
from tasks.data.io import inputs
from tasks.data.io.arrays import ARRAY_SUFFIXES
from tasks.data.io.batches import InputFile, ReadSpec
from tasks.data.io.discovery import DataFile, base_folder, is_url, local_path
from tasks.data.recipe import Recipe
from tasks.errors import DataError, GradmillError, UsageError
from tasks.machine import resources
from tasks.machine.words import pluralize
from tasks.parameters import PredictParameters
from tasks.serving import contract, runtime
from tasks.serving.contract import ModelMetadata
from tasks.serving.drift import Profile
from tasks.serving.task import TASKS, Task
from tasks.store import artifact_paths, atomic, locks, model_folder, predictions, verified_files
from tasks.store.artifact_paths import LABELS, MANIFEST, METADATA
from tasks.store.predictions import Job, JobInput, JobModel, Shard

FEWEST_ROWS = 2**16  # in a shard: fewer are done before another worker has begun
ID_CHARACTERS = 16
USUAL = {runtime.CPU: 1024, runtime.CUDA: 16384}  # stands for the default batch size in the ids of jobs

Files: TypeAlias = tuple[DataFile, ...]


class Version(NamedTuple):
    """Task, class names, the test split's profile, and the recipe."""

    task: Task
    labels: list[str]
    reference: Profile
    recipe: Recipe

    def read_spec(self, job: Job) -> ReadSpec:
        """Which rows a job reads, in the form that the model takes."""
        y_name = self.task.target if self.task.is_counted or self.recipe.is_by_name else None
        return ReadSpec(self.recipe, job.columns, y_name, tuple(self.labels), job.id_columns, job.unknown)

    def output_columns(self, job: Job) -> list[str]:
        """The names of the columns that the model adds to a row."""
        outputs = empty_outputs(self.task.outputs(len(self.labels)))
        return list(self.task.columns(outputs, self.labels, job.written == "all"))


def read_version(folder: Path) -> Version:
    """Read what predicting needs from a version's folder alone: a worker elsewhere has no other settings.

    Raises:
        DataError: its manifest, its metadata or its labels are missing, have changed since it was published, or do not
            fit each other.
    """
    manifest = model_folder.read_manifest(folder)
    labels = list(manifest.dataset.class_names)
    metadata = ModelMetadata.parse(model_folder.read_file(folder, METADATA), folder / METADATA)
    names, listed = "".join(f"{label}\n" for label in labels), model_folder.read_file(folder, LABELS) if labels else b""
    for name, fits in ((METADATA, metadata == manifest.metadata), (LABELS, listed == names.encode())):
        if not fits:
            found = f"{folder / name} does not fit recipe, task and classes in {MANIFEST}"
            raise DataError(found, "both as they were published", "restore both from a copy")
    return Version(TASKS[manifest.dataset.task], labels, dict(manifest.profile), manifest.recipe)


@contextlib.contextmanager
def open_job(parameters: PredictParameters) -> Iterator[tuple[Path, Job, Path | None, Files | None]]:
    """Plan a job, or take up the one that an earlier call left; meanwhile this process alone works in its folder.

    Yields the folder, the job, the single output file if one is wanted, and the input if its columns go into that
    file.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output holds another job or something
            else, or would have two columns with the same name.
        DataError: the input is broken or does not fit the model.
        DeviceMissing: CUDA was asked for and is not there.
    """
    output = Output.locate(parameters.output)  # before anything else is examined
    job, files = _find_job(parameters, output)
    folder, tables = output.folder or artifact_paths.predictions(job.job), None
    if output.file:
        version = read_version(job.model.path.parent)
        has_arrays = any(file.suffix in ARRAY_SUFFIXES for file in files)
        tables = files if version.recipe.columns and not has_arrays else None
        output_dir.check_file(output.file, tables, version.output_columns(job), parameters.restart)
    with locks.hold_lock(locks.of_job(folder), f"another process is working on {folder}; waiting for it"):
        existing, leftovers = output_dir.acquire_output(folder, job, parameters.restart)
        if existing is None or existing.status != "done":
            with output_dir.begin_output(folder, existing is None):
                existing = _plan(folder, existing or job, files, parameters)
                for path in leftovers:
                    path.unlink(missing_ok=True)
                output_dir.write_document(folder, existing)
        yield folder, existing, output.file, tables


def _find_job(parameters: PredictParameters, output: Output) -> tuple[Job, Files]:
    """The job, not yet planned, and its input: a new job, or the same one that an earlier, killed call began."""
    number, content = model_folder.load_model(parameters.name, parameters.version)
    model = JobModel(name=parameters.name, version=number, sha256=verified_files.sha256(content))
    session = runtime.open_session(content, parameters.device, model.path)
    provider, shape = runtime.get_provider(session), contract.read_signature(session).inputs[0].shape
    files = _find_files(parameters, output, model)
    folders = [output.folder] if output.folder else sorted(artifact_paths.all_predictions().glob("*"))
    for folder in folders if not parameters.restart else ():
        with contextlib.suppress(GradmillError, OSError):  # a damaged job, or its version's data are gone
            held = predictions.find(folder)
            if held is None or held.status != "running" or held.model.name != parameters.name:
                continue
            is_split = parameters.input is None and held.model != model  # the job meant the data of its own version
            its_own = _find_files(parameters, output, held.model) if is_split else files
            if _request_id(parameters, its_own, provider) == held.request:
                model, files = held.model, its_own
                break
    model_folder.load_model(model.name, model.version)  # an unfinished job's version may be gone
    prints, request = [file.fingerprint for file in files], _request_id(parameters, files, provider)
    return Job(
        job=_digest({"request": request, "model": model.sha256})[:ID_CHARACTERS],
        request=request,
        input=JobInput(
            path=parameters.input or artifact_paths.relative(Path(files[0].path)),
            digest=_digest_input(parameters, files),
            files=len(prints),
            bytes=sum(each.bytes for each in prints),
        ),
        model=model,
        provider=provider,
        batch_size=parameters.batch_size or default_batch_size(provider, shape),
        columns=parameters.columns,
        id_columns=parameters.id_columns,
        unknown="average" if parameters.input is None else parameters.unknown,  # the test split has no rejects
        written=parameters.write,
        started_at=model_folder.format_now("milliseconds"),
    ), files


def _find_files(parameters: PredictParameters, output: Output, model: JobModel) -> Files:
    """What is to be predicted; without an input, the test split of the data that the version was trained on."""
    source, file = parameters.input, output.file
    if source is None:
        split = model_folder.find_manifest(model.name, model.version).dataset.test
        verified_files.check(split, "gradmill retrain, which prepares it again, or name an input")
        return tuple(map(DataFile, verified_files.fingerprint_files([split.path], parameters.full_digest)))
    found = inputs.find_inputs(source, output.folder, parameters.full_digest).files
    files = tuple(each for each in found if file is None or Path(each.path).resolve() != file.resolve())
    if not files:
        raise UsageError(f"the input {source} is the output file", "two files", "choose another --output")
    return files


def _digest_input(parameters: PredictParameters, files: Files) -> str:
    """The digest of the input; the test split's name is its digest, which is checked, and every retrain touches it."""
    return _digest([file.identity if parameters.input else file.path for file in files])


def _request_id(parameters: PredictParameters, files: Files, provider: str) -> str:
    """The id of input, name and all parameters that decide what the parts hold."""
    names = {"name", "version", "columns", "shard_rows"}
    is_averaged = parameters.input is not None and parameters.unknown == "average"
    if parameters.id_columns or is_averaged:  # jobs from before these options keep their ids
        names |= {"id_columns", "unknown"}
    if parameters.write != "all":
        names.add("write")
    document = parameters.model_dump(include=names) | {
        "input": _digest_input(parameters, files),
        "batch_size": parameters.batch_size or USUAL[provider],
        "provider": provider,
    }
    return _digest(document)[:ID_CHARACTERS]


def _digest(document: Any) -> str:
    return verified_files.sha256(json.dumps(document, sort_keys=True).encode())


def _plan(folder: Path, job: Job, files: Files, parameters: PredictParameters) -> Job:
    """Count the rows, note where they are and cut them into shards (an unfinished job keeps the shards that it has)."""
    spec, source = read_version(job.model.path.parent).read_spec(job), parameters.input
    given = local_path(source) if source and not is_url(source) else None
    base = base_folder(given) if given and not given.is_file() else None  # a single picture's folder tells no class
    found = inputs.count_inputs(files, spec, artifact_paths.spool(folder), base)
    inputs.check_unchanged(file.fingerprint for file in files)
    rows = sum(file.rows for file in found)
    if job.shards and rows != job.rows:
        raise DataError(
            f"{pluralize(rows, 'row')} in {job.input.path}",
            f"{job.rows:,}, as when the job was started",
            "run the job again with --restart",
        )
    with atomic.replace_file(artifact_paths.sources(folder)) as temporary:  # for the shards to look up
        pq.write_table(pa.Table.from_pylist([file._asdict() for file in found]), temporary)
    workers = parameters.workers or resources.count_cores()
    at_most = parameters.shard_rows or inputs.max_shard_rows(found, spec)
    shards = job.shards or cut_shards(rows, at_most, 1 if parameters.shard_rows else workers)
    max_rejects = inputs.tolerated_rejects(found) if parameters.max_rejects is None else parameters.max_rejects
    changes = {"rows": rows, "shards": tuple(shards), "max_rejects": max_rejects, "workers": workers}
    return job.model_copy(update={"status": "running", **changes})


def cut_shards(rows: int, at_most: int, workers: int) -> list[Shard]:
    """Cut ``rows`` into shards of at most ``at_most`` rows whose sizes differ by no more than one row.

    There are as few shards as possible, but each worker gets as many as the others unless shards would be very small.
    """
    count = -(-rows // at_most)
    even = -(-count // workers) * workers
    if rows // even >= FEWEST_ROWS:
        count = even
    bounds = [rows * number // count for number in range(count + 1)]
    return [Shard(number, start, stop) for number, (start, stop) in enumerate(itertools.pairwise(bounds))]


def read_inputs(folder: Path, shard: Shard) -> list[InputFile]:
    """The files that hold the rows of a shard.

    Raises:
        DataError: the list of these files that the plan wrote cannot be read.
    """
    path, first, rows = artifact_paths.sources(folder), pc.field("first_row"), pc.field("rows")
    with output_dir.explain_job_file_errors(path):
        held = pq.read_table(path, filters=(first < shard.stop) & (first + rows > shard.start))
    return [InputFile(**row) for row in held.to_pylist()]
