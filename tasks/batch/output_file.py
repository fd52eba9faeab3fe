"""One file of a job: every row of the input in order, its own columns first, then what the model adds."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.batch import output_dir
from tasks.data.io.batches import CHUNK_ROWS, table_batches
from tasks.data.io.discovery import JSON_SUFFIXES, TYPED_SUFFIXES, DataFile
from tasks.data.io.inputs import check_unchanged
from tasks.data.io.tabular import Selection, kind_of
from tasks.errors import DataError, UsageError
from tasks.machine.telling import tell
from tasks.store import artifact_paths, atomic, predictions
from tasks.store.artifact_paths import REJECTS
from tasks.store.predictions import Job

REJECTED = "rejected"  # the last column: why a row has no prediction


def check(path: Path, tables: tuple[DataFile, ...] | None, added: list[str], restart: bool) -> None:
    """Whether a job may write the file ``path``, and its columns ``added`` to those of ``tables``.

    Raises:
        UsageError: no prediction wrote what is there, or two columns would have one name.
        DataError: a table of the input has no header.
    """
    own = ["row", "source"] if tables is None else _unify_schemas(tables).names
    if clash := sorted({*own} & {*added, REJECTED}):
        raise UsageError(
            f"the input has a column {', '.join(clash)}, and so would {path.name} twice",
            f"columns that are not called {', '.join([*added, REJECTED])}",
            "rename it, or name a folder with --output: its parts have none of the input's columns",
        )
    jobs = (job for _, job in predictions.list_jobs() if job)
    if path.exists() and not restart and atomic.file_digest(path) not in {x for job in jobs for x in job.file_digests}:
        raise UsageError(
            f"{path} is there, and no prediction that is kept has written it as it is",
            "no such file, or one of a prediction",
            "choose another --output, or replace it with --restart",
        )


def write(path: Path, folder: Path, job: Job, tables: tuple[DataFile, ...] | None) -> Job:
    """Put the file of a finished job in place when it is whole; the job notes its digest before.

    Raises:
        DataError: the input or a part is damaged or has changed.
    """
    if path.exists() and atomic.file_digest(path) in job.file_digests:
        tell(f"{path} is there already")
        return job
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.sweep(path.parent, depth=0)
    with atomic.replacing(path) as temporary:
        _write_rows(temporary, path.suffix.lower(), _join_rows(folder, job, tables))
        check_unchanged(each.fingerprint for each in tables or ())
        digest = atomic.file_digest(temporary)
        job = job.model_copy(update={"file_digests": tuple(sorted({*job.file_digests, digest}))})
        output_dir.write_document(folder, job)
    tell(f"every row, with its prediction, in {path}", short=path.name)
    return job


def _join_rows(folder: Path, job: Job, tables: tuple[DataFile, ...] | None) -> Iterator[pa.Table]:
    """All rows in order, some at a time: own columns, those of the answer, and why a row was rejected."""
    from pyarrow import dataset  # which imports pandas where that is installed

    parts = [artifact_paths.part(folder, shard.number) for shard in job.shards]
    with output_dir.reading(folder):
        answers, rejects, first = dataset.dataset(parts), dataset.dataset(folder / REJECTS), 0
    starts = range(0, job.rows, CHUNK_ROWS)
    row_numbers = (pa.table({"row": np.arange(at, min(job.rows, at + CHUNK_ROWS))}) for at in starts)
    for own in _own_columns(tables) if tables else row_numbers:
        numbers = pa.array(np.arange(first, first + len(own)))
        with output_dir.reading(folder):
            good, bad = _take(answers, numbers), _take(rejects, numbers)
        if good["row"].null_count + bad["row"].null_count != len(own):
            break
        for name in good.column_names[1:]:  # the first is the row's number
            if name not in bad.column_names:
                own = own.append_column(name, good[name])
            elif tables is None:  # the source, and what goes along
                own = own.append_column(name, pc.coalesce(good[name], bad[name]))
        yield own.append_column(REJECTED, bad["reason"])
        first += len(own)
    if first != job.rows:
        found = f"from row {first:,} of {job.rows:,} on {folder} does not go with the input"
        raise DataError(found, "each row once, as when it was predicted", "--restart the job")


def _take(rows: Any, numbers: pa.Array) -> pa.Table:
    """The rows of a data set of such ``numbers``, which are consecutive; wholly null where there are none."""
    row = pc.field("row")
    found = rows.to_table(filter=(row >= numbers[0]) & (row <= numbers[-1]))  # by the statistics of ``row``
    found = found.cast(pa.schema([(field.name, _plain_type(field.type)) for field in found.schema]))
    return found if len(found) == len(numbers) else found.take(pc.index_in(numbers, found["row"]))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of values without a dictionary: these differ from part to part."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _unify_schemas(tables: tuple[DataFile, ...]) -> pa.Schema:
    """The columns of all files but lists, objects and bytes; text files give text, as do those that differ in type.

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
    """All rows of the input in order, null where one cannot be read."""
    schema = _unify_schemas(tables)
    names = frozenset(schema.names)
    for file in tables:
        for batch in table_batches(file, Selection(as_text=names, only=names), "reject"):
            known = {
                each.name for each in batch.schema if kind_of(each.type) != "unsupported"
            }  # JSON has a type a block
            missing = pa.nulls(batch.num_rows)
            arrays = [pc.cast(batch[each.name] if each.name in known else missing, each.type) for each in schema]
            if batch.num_rows:
                yield pa.table(arrays, schema=schema)


def _write_rows(path: Path, suffix: str, rows: Iterator[pa.Table]) -> None:
    first = next(rows)
    if suffix == ".parquet":
        with pq.ParquetWriter(path, first.schema) as writer:
            for table in itertools.chain([first], rows):
                writer.write_table(table)
        return
    header = pa.table([[name] for name in first.column_names], first.column_names)
    with path.open("wb") as stream:
        for table in itertools.chain([header, first], rows):
            stream.write(_csv_lines(table))
            stream.write(b"\n")


def _csv_lines(table: pa.Table) -> pa.Buffer:
    """The rows as CSV without the last line's end; missing is the empty field."""
    fields = [_csv_fields(column) for column in table.columns]
    lines = pc.binary_join_element_wise(*fields, _text(","), null_handling="replace").combine_chunks()
    return pc.binary_join(pa.LargeListArray.from_arrays([0, len(lines)], lines), _text("\n"))[0].as_buffer()


def _csv_fields(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as text, in quotes where they need these."""
    texts = column.cast(pa.large_string())
    if pa.types.is_primitive(column.type):
        return texts
    is_special = pc.match_substring_regex(texts, '[",\r\n]')
    if not pc.any(is_special).as_py():
        return texts
    quoted = pc.binary_join_element_wise(_text(""), pc.replace_substring(texts, '"', '""'), _text(""), _text('"'))
    return pc.if_else(is_special, quoted, texts)


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())
