"""One file of a job: every row of the input in order, its own columns first, then what the model adds."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.batch import output_dir
from tasks.data.io.batches import CHUNK_ROWS, READERS, table_batches
from tasks.data.io.discovery import JSON_SUFFIXES, DataFile
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
    jobs = (found.job for found in predictions.below_artifacts() if found.job)
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
        rows = _join_rows(folder, job, tables)
        first = next(rows)
        with _opened(temporary, path.suffix.lower(), first.schema) as write_table:
            for table in itertools.chain([first], rows):
                write_table(table)
        check_unchanged(each.fingerprint for each in tables or ())
        digest = atomic.file_digest(temporary)
        job = job.model_copy(update={"file_digests": tuple(sorted({*job.file_digests, digest}))})
        output_dir.update_document(folder, job)
    tell(f"every row, with its prediction, in {path}", short=path.name)
    return job


def _join_rows(folder: Path, job: Job, tables: tuple[DataFile, ...] | None) -> Iterator[pa.Table]:
    """All rows in order, some at a time: own columns, those of the answer, and why a row was rejected."""
    parts = [artifact_paths.part(folder, shard.number) for shard in job.shards]
    answers, rejects = _Rows(parts), _Rows([folder / REJECTS])
    first = 0
    for own in _own_columns(tables) if tables else _row_numbers(job.rows):
        stop = first + len(own)
        good, bad = answers.take_before(stop), rejects.take_before(stop)
        if len(good) + len(bad) != len(own):
            found = f"{folder} holds {len(good) + len(bad)} of the rows {first} to {stop} of the input"
            raise DataError(found, "each of them once", "--restart the job")
        good, bad = (_spread(rows, first, stop) for rows in (good, bad))
        for name in good.column_names[1:]:  # the first is the row's number
            if name not in bad.column_names:
                own = own.append_column(name, good[name])
            elif tables is None:  # the source, and what goes along
                own = own.append_column(name, pc.coalesce(good[name], bad[name]))
        yield own.append_column(REJECTED, bad["reason"])
        first = stop
    if first != job.rows:
        raise DataError(f"{first:,} rows in the input", f"{job.rows:,}, as when it was predicted", "--restart the job")


def _row_numbers(rows: int) -> Iterator[pa.Table]:
    for first in range(0, rows, CHUNK_ROWS):
        yield pa.table({"row": np.arange(first, min(rows, first + CHUNK_ROWS))})


def _spread(rows: pa.Table, first: int, stop: int) -> pa.Table:
    """The rows from ``first`` to ``stop``, wholly null where ``rows`` has none."""
    places = np.full(stop - first, -1)
    places[rows["row"].to_numpy() - first] = np.arange(len(rows))
    return rows.take(pa.array(places, mask=places < 0))


class _Rows:
    """The rows of Parquet files in the order of their column ``row``, taken up to one row after the other."""

    def __init__(self, paths: list[Path]) -> None:
        self._batches = output_dir.read_batches(paths)
        self._rest = _plain(pq.read_schema(paths[0]).empty_table())

    def take_before(self, stop: int) -> pa.Table:
        """Those rows below ``stop`` that were not taken before."""
        tables = [self._rest]
        while not (tables[-1].num_rows and tables[-1]["row"][-1].as_py() >= stop):
            batch = next(self._batches, None)
            if batch is None:
                break
            tables.append(_plain(pa.Table.from_batches([batch])))
        table = pa.concat_tables(tables).combine_chunks()
        count = int(np.searchsorted(table["row"].to_numpy(), stop))
        self._rest = table.slice(count)
        return table.slice(0, count)


def _plain(table: pa.Table) -> pa.Table:
    """A table without dictionaries, which differ from part to part."""
    return table.cast(pa.schema([(field.name, _plain_type(field.type)) for field in table.schema]))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


# The input's own columns


def input_columns(file: DataFile) -> Iterator[pa.RecordBatch]:
    """First no rows, with all columns of a table's file, then all rows in order, null where one cannot be read.

    Text files give text. Columns of lists, objects and bytes are left out.

    Raises:
        DataError: the file is broken.
    """
    if file.suffix in READERS and file.suffix not in JSON_SUFFIXES:
        for batch in table_batches(file, Selection()):
            yield _supported(batch)
        return
    is_json = file.suffix in JSON_SUFFIXES
    first = [next(table_batches(file, Selection(), "reject"))] if not is_json else table_batches(file, Selection())
    names = dict.fromkeys(name for batch in first for name in _supported(batch).schema.names if name)
    schema = pa.schema([(name, pa.string()) for name in names])
    yield pa.RecordBatch.from_pylist([], schema)
    as_text = Selection(as_text=frozenset(names), only=frozenset(names))
    for batch in table_batches(file, Selection() if is_json else as_text, "reject"):
        if batch.num_rows:
            yield _conform(batch, schema)


def _supported(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.select([field.name for field in batch.schema if kind_of(field.type) != "unsupported"])


def _unify_schemas(tables: tuple[DataFile, ...]) -> pa.Schema:
    """The columns of all files; those that differ in type are text."""
    types: dict[str, pa.DataType] = {}
    for field in itertools.chain.from_iterable(next(input_columns(file)).schema for file in tables):
        kind = _plain_type(field.type)
        known = types.get(field.name, kind)
        types[field.name] = kind if known in (kind, pa.null()) else known if kind == pa.null() else pa.string()
    return pa.schema(list(types.items()))


def _own_columns(tables: tuple[DataFile, ...]) -> Iterator[pa.Table]:
    schema = _unify_schemas(tables)
    batches = itertools.chain.from_iterable(map(input_columns, tables))
    return (pa.Table.from_batches([_conform(batch, schema)]) for batch in batches)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    names = set(batch.schema.names)
    nothing = pa.nulls(batch.num_rows)
    arrays = [pc.cast(batch[each.name] if each.name in names else nothing, each.type) for each in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# Writing


@contextmanager
def _opened(path: Path, suffix: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], object]]:
    if suffix == ".parquet":
        with pq.ParquetWriter(path, schema) as writer:
            yield writer.write_table
        return
    with path.open("wb") as stream:
        names = pa.table([[name] for name in schema.names], names=schema.names)
        stream.write(_csv_lines(names))
        yield lambda table: stream.write(_csv_lines(table))


def _csv_lines(table: pa.Table) -> pa.Buffer:
    """The rows as CSV; missing is the empty field."""
    fields = [_csv_fields(column.combine_chunks()) for column in table.columns]
    lines = _join(_join(*fields, between=","), _text(""), between="\n")
    _, offsets, text = lines.buffers()  # of which the text is all lines, one after the other
    return text.slice(0, int(np.frombuffer(offsets, np.int64)[len(lines)]))


def _join(*texts: Any, between: str) -> pa.Array:
    return pc.binary_join_element_wise(*texts, _text(between), null_handling="replace", null_replacement="")


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())


def _csv_fields(array: pa.Array) -> pa.Array:
    """Values as text, in quotes where they need these."""
    kind = array.type
    if pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    texts = array.cast(pa.large_string())
    if pa.types.is_primitive(kind):
        return texts
    is_special = pc.match_substring_regex(texts, '[",\r\n]')
    if not pc.any(is_special).as_py():
        return texts
    quoted = _join(_text(""), pc.replace_substring(texts, '"', '""'), _text(""), between='"')
    return pc.if_else(is_special, quoted, texts)
