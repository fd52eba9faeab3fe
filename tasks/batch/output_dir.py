"""The output of a job: who owns the folder, which parts are complete, what a restart removes; one file of all rows."""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tasks.data.io.arrays import ARRAY_SUFFIXES
from tasks.data.io.batches import CHUNK_ROWS, OTHER_FORMATS, table_batches
from tasks.data.io.discovery import (
    JSON_SUFFIXES,
    TABLE_SUFFIXES,
    TYPED_SUFFIXES,
    DataFile,
    explain_file_errors,
)
from tasks.data.io.inputs import check_unchanged
from tasks.data.io.tabular import Selection, kind_of
from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.store import artifact_paths, atomic, folders, locks, predictions
from tasks.store.artifact_paths import JOB, PREDICTION_GRID
from tasks.store.predictions import Job, Shard
from tasks.store.record_base import PersistedRecord

FOOTER = b"gradmill"
PART = re.compile(r"part-(\d{5}|[1-9]\d{5,})\.parquet")
OLD_REJECTS = "_rejects.parquet"  # in folders of jobs whose parts have no rejected rows
NAMES = {JOB, OLD_REJECTS, PREDICTION_GRID}
FILE_SUFFIXES = (".csv", ".parquet")  # suffixes of an output that is one file
OTHER_SUFFIXES = {*TABLE_SUFFIXES, *ARRAY_SUFFIXES, *OTHER_FORMATS, ".txt", ".gz"}  # a new folder must not have one
ID = "id_"  # before the name of a column that goes along
REJECTED = "rejected"  # the last column of parts and files: why a row has no prediction


class Output(NamedTuple):
    """Where ``--output`` says that predictions go: a job's folder, or one file; if neither is set, to artifacts/."""

    folder: Path | None = None
    file: Path | None = None

    @classmethod
    def locate(cls, output: str | None) -> Self:
        """The absolute path that ``--output`` names.

        Raises:
            UsageError: it is no path, it is in a job's or a model's folder or in a part of artifacts/ that is not for
                predictions, something is there that is neither a folder nor the kind of file that its name says, a new
                folder would have the suffix of a file, or the folder where it is to be cannot be written to.
        """
        if output is None:
            return cls()
        action = "choose another --output"
        try:
            path = Path(output).expanduser().absolute()
            is_file = path.suffix.lower() in FILE_SUFFIXES
            real, place, ours = path.resolve(), folders.find_folder_of(path), artifact_paths.all_predictions()
            below = real.relative_to(ours.resolve()).parts if place == ours else ()
            if place is not None and (not below or below[0].startswith(".")):
                found = f"--output {output} is inside the artifacts folder, in {place}"
                raise UsageError(found, f"a folder outside of it, or below {ours}", action)
            for each in (real, *real.parents):
                is_model = (each / artifact_paths.champion("").name).is_file()
                if is_model or (each != real and predictions.holds_job(each)):
                    found = f"--output {output} is in the folder of a {'model' if is_model else 'job'}, {each}"
                    raise UsageError(found, "a separate folder", action)
            there = next(each for each in (path, *path.parents) if os.path.lexists(each))
            kind, is_right = ("file", there.is_file()) if is_file and there == path else ("folder", there.is_dir())
            if not is_right:
                raise UsageError(f"{there} is not a {kind}", f"a {kind}", action)
            if not is_file and there != path and path.suffix.lower() in OTHER_SUFFIXES:
                found = f"--output {output} has the suffix of a file"
                raise UsageError(found, f"a folder, or a file that ends in {' or '.join(FILE_SUFFIXES)}", action)
            if not os.access(folder := there if there.is_dir() else there.parent, os.W_OK):
                raise UsageError(f"{folder} cannot be written to", "a folder that you may write to", action)
        except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, ~nobody, a null byte
            raise UsageError(f"--output {output}: {error}", "a path to a folder", action) from error
        return cls(file=path) if is_file else cls(folder=path)


class Reject(NamedTuple):
    """A row without a prediction; ``row`` counts through all files, ``source_row`` through its own, both from 0."""

    row: int
    source: str
    source_row: int
    ids: dict[str, str | None]  # its values in the columns that are passed through
    reason: str


class PartFooter(PersistedRecord):
    """What a part says about itself: its model, its shard of the job, and how many of its rows are rejected."""

    job: str
    shard: Shard
    model: dict[str, Any]
    provider: str
    rows: int  # that have a prediction
    rejects: int
    first_rejects: tuple[Reject, ...]  # no default: parts without it do not hold their rejected rows

    @classmethod
    def read(cls, folder: Path, job: Job, shard: Shard) -> Self | None:
        """The footer of a shard's part; None unless the part is complete and belongs to that shard of that job."""
        try:
            metadata = pq.read_metadata(artifact_paths.part(folder, shard.number))
            footer = cls.model_validate_json(metadata.metadata[FOOTER])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
            return None
        agrees = (
            footer.job == job.job
            and footer.shard == shard
            and footer.model["sha256"] == job.model.sha256
            and footer.rows + footer.rejects == metadata.num_rows == shard.stop - shard.start
        )
        return footer if agrees else None


def explain_job_file_errors(path: Path) -> contextlib.AbstractContextManager[None]:
    """Read, in the block, what the job itself has written; if that is gone or damaged, raise a ``DataError``."""
    return explain_file_errors(path, "the file as it was written", "run the command again, or with --restart")


def acquire_output(folder: Path, job: Job, restart: bool) -> tuple[Job | None, list[Path]]:
    """The job that the folder holds, if it is ``job`` and to be kept, and the files that a new one has to remove.

    Nothing is touched except the scratch folder of a finished job. The job's document comes first among the files, so
    that it never describes files that are gone.

    Raises:
        UsageError: the folder holds another job, or something that no job wrote.
        DataError: the document of the folder's job is damaged or lost.
    """
    existing: Job | None = None
    with contextlib.suppress(DataError):  # it is raised below, once it is known whose folder this is
        existing = predictions.find(folder)
    if existing and existing.job == job.job and not restart and _is_complete(folder, existing):
        clean_up(folder)  # after a kill that came right after the job's end
        return existing, []
    has_scratch, ours = predictions.has_scratch(folder), artifact_paths.scratch(folder)
    is_job = existing or has_scratch or folder.parent == artifact_paths.all_predictions()
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    entries = [path for path in found if not has_scratch or path != ours]
    for path in entries:
        part = PART.fullmatch(path.name)
        is_named = path.name in NAMES or (part and (existing is None or int(part[1]) < len(existing.shards)))
        if not (is_job and is_named and path.is_file() and not path.is_symlink()):
            raise UsageError(
                f"{folder} holds something else ({path.name})",
                "an empty folder, or one of a prediction",
                "move it elsewhere, or choose another --output",
            )
    if restart or not entries:
        return None, entries
    existing = Job.read(folder / JOB, predictions.RESTART)
    if existing.job != job.job:
        other = f"{folder} holds job {existing.job}, which has {_name_difference(existing, job)}"
        raise UsageError(other, f"job {job.job}, or none", "choose another --output, or replace it with --restart")
    return existing.model_copy(update={"status": "running"}), [path for path in entries if path.name == OLD_REJECTS]


def _name_difference(held: Job, job: Job) -> str:
    """In which of model, input and options a job differs first from another one, in words."""
    if held.model != job.model:
        return f"another model, {held.model.name} version {held.model.version}"
    if held.input.digest != job.input.digest:
        return f"another input, {held.input.path}{' as it was before' * (held.input.path == job.input.path)}"
    return "other options"


def _is_complete(folder: Path, job: Job) -> bool:
    """Whether a job is done, and everything that it wrote is still there."""
    return job.status == "done" and all(PartFooter.read(folder, job, shard) for shard in job.shards)


@contextlib.contextmanager
def begin_output(folder: Path, is_new: bool) -> Iterator[None]:
    """Make the folder and its scratch; where the block fails before there is a job, nothing of them stays.

    Raises:
        UsageError: something else has the name of the scratch folder.
        OSError: something else has the name of a folder.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    predictions.make_scratch(folder)
    if is_new:
        predictions.empty_scratch(folder)  # a plan that was killed may have unpacked another input
    try:
        yield
    except BaseException:
        if not (folder / JOB).exists():
            predictions.remove_scratch(folder)
            with contextlib.suppress(OSError):  # others have begun to use the folder
                for each in missing:
                    each.rmdir()
        raise


def write_document(folder: Path, job: Job) -> None:
    """Write the document of a job that begins, or is done.

    While the job runs, a note says where it is if pruning would not find it and might remove its version.
    """
    predictions.make_scratch(folder)
    if job.status == "running" and folder.parent != artifact_paths.all_predictions():
        atomic.write_bytes(_note(folder), artifact_paths.relative(folder).encode())
    predictions.write(folder, job)
    if job.status == "done":
        clean_up(folder)


def clean_up(folder: Path) -> None:
    """Remove what is only useful while a job runs."""
    predictions.remove_scratch(folder)
    _note(folder).unlink(missing_ok=True)


def _note(folder: Path) -> Path:
    return artifact_paths.jobs_elsewhere() / locks.of_job(folder).name


# One file for the whole job: every row of the input in order, first its own columns, then those that the model adds


def check_file(path: Path, tables: tuple[DataFile, ...] | None, added: list[str], restart: bool) -> None:
    """Check that a job may write the file ``path``, and add the columns ``added`` to those of ``tables``.

    Raises:
        UsageError: what is there was not written by a prediction, or two columns would have the same name.
        DataError: a table of the input has no header.
    """
    own = ["row", "source"] if tables is None else _unify_schemas(tables).names
    if clash := sorted({*own} & {*added, REJECTED}):
        raise UsageError(
            f"the input already has a column {', '.join(clash)}, so {path.name} would have it twice",
            f"columns that are not called {', '.join([*added, REJECTED])}",
            "rename it, or name a folder with --output: its parts have none of the input's columns",
        )
    jobs = (job for _, job in predictions.list_jobs() if job)
    if path.exists() and not restart and atomic.file_digest(path) not in {x for job in jobs for x in job.file_digests}:
        raise UsageError(
            f"{path} already exists, and its content was not written by any prediction that is kept",
            "no such file, or one that a prediction wrote",
            "choose another --output, or replace it with --restart",
        )


def write_file(path: Path, folder: Path, job: Job, tables: tuple[DataFile, ...] | None) -> Job:
    """Put the file of a finished job in place when it is whole; the job notes its digest before.

    Raises:
        DataError: the input or a part is damaged or has changed.
    """
    paths = tuple(sorted({*job.file_paths, str(path.resolve())}))
    if path.exists() and atomic.file_digest(path) in job.file_digests:
        print_message(f"{path} is there already")
        if paths != job.file_paths:
            write_document(folder, job := job.model_copy(update={"file_paths": paths}))
        return job
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.sweep(path.parent, depth=0)
    with atomic.replace_file(path) as temporary:
        rows = _join_rows(folder, job, tables)
        first = next(rows)
        open_writer = pq.ParquetWriter if path.suffix.lower() == ".parquet" else pyarrow.csv.CSVWriter
        with open_writer(temporary, first.schema) as writer:
            for table in itertools.chain([first], rows):
                writer.write_table(table)
        check_unchanged(each.fingerprint for each in tables or ())
        digest = atomic.file_digest(temporary)
        digests = tuple(sorted({*job.file_digests, digest}))
        job = job.model_copy(update={"file_digests": digests, "file_paths": paths})
        write_document(folder, job)
    print_message(f"every row, with its prediction, in {path}", short=path.name)
    return job


def _join_rows(folder: Path, job: Job, tables: tuple[DataFile, ...] | None) -> Iterator[pa.Table]:
    """The rows of the parts, in order, in pieces; of tables their own columns come first, instead of row, file, ids."""
    from pyarrow import dataset  # this imports pandas where it is installed

    with explain_job_file_errors(folder):
        parts, first = dataset.dataset([artifact_paths.part(folder, shard.number) for shard in job.shards]), 0
    for start in range(0, 0 if tables else job.rows, CHUNK_ROWS):
        first = min(job.rows, start + CHUNK_ROWS)
        yield _read_rows(parts, start, first, folder)
    for own in _own_columns(tables) if tables else ():
        answers = _read_rows(parts, first, first + len(own), folder)
        if len(answers) != len(own):
            break
        for name in answers.column_names[2:]:
            if not name.startswith(ID):
                own = own.append_column(name, answers[name])
        yield own
        first += len(own)
    if first != job.rows:
        found = f"from row {first:,} of {job.rows:,} on, {folder} does not match the input"
        raise DataError(found, "each row once, as when it was predicted", "run the job again with --restart")


def _read_rows(parts: Any, start: int, stop: int, folder: Path) -> pa.Table:
    """The rows from ``start`` to ``stop`` of the data set ``parts``."""
    row = pc.field("row")
    with explain_job_file_errors(folder):
        rows = parts.to_table(filter=(row >= start) & (row < stop))  # uses the statistics of ``row``
    return rows.cast(pa.schema([(field.name, _plain_type(field.type)) for field in rows.schema]))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """A type that every format takes: no dictionaries, which differ from part to part, and no string views."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_string_view(kind) else kind


def _unify_schemas(tables: tuple[DataFile, ...]) -> pa.Schema:
    """The columns of all files except lists, objects and bytes; text for text files, and where types differ.

    Raises:
        DataError: a file is broken.
    """
    types: dict[str, pa.DataType] = {}
    for file in tables:
        batches = table_batches(file, Selection(), "reject")
        header = batches if file.suffix in JSON_SUFFIXES else [next(batches)]  # any row of JSON may have more
        for field in itertools.chain.from_iterable(batch.schema for batch in header):
            kind = _plain_type(field.type) if file.suffix in TYPED_SUFFIXES else pa.string()
            if field.name and kind_of(field.type) != "unsupported":
                known = types.get(field.name, kind)
                types[field.name] = kind if known in (kind, pa.null()) else known if kind == pa.null() else pa.string()
    return pa.schema(list(types.items()))


def _own_columns(tables: tuple[DataFile, ...]) -> Iterator[pa.Table]:
    """All rows of the input in order; a row that cannot be read is null."""
    schema = _unify_schemas(tables)
    names = frozenset(schema.names)
    selection = Selection(as_text=names, only=names, missing=("",), is_again=True)  # NA may be a country
    for file in tables:
        for batch in table_batches(file, selection, "reject"):
            known = {
                each.name for each in batch.schema if kind_of(each.type) != "unsupported"
            }  # JSON has a type a block
            missing = pa.nulls(batch.num_rows)
            arrays = [pc.cast(batch[each.name] if each.name in known else missing, each.type) for each in schema]
            if batch.num_rows:
                yield pa.table(arrays, schema=schema)
