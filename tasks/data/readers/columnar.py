"""Files of a table for training that keep their types: Parquet, and Arrow's own format, which is Feather's too."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.readers.columns import Selection, kind_of
from tasks.data.readers.formats import broken_table as broken
from tasks.data.readers.text import check_names, none
from tasks.errors import GradmillError

Reader = Callable[[Any, str, Selection], Iterator[pa.RecordBatch]]
BATCH_ROWS = 2**17
BUFFER_BYTES = 2**20


def parquet_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file, and first none, whose schema has the columns that no model can take, too.

    That has also the columns that are not selected, but for those to ignore.

    Raises:
        DataError: the file is broken.
    """
    with _whole(name, "Parquet"):
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER_BYTES)
        schema = _without(file.schema_arrow, name, selection.ignore)
        yield none(schema)
        columns = _fit(schema, selection)
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            yield _checked(batch)


def arrow_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of an Arrow file or stream, and first none, as of Parquet.

    Raises:
        DataError: the file is broken, or Feather's first version.
    """
    with _whole(name, "Arrow or Feather"):
        try:
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        except pa.ArrowInvalid:
            stream.seek(0)
            file = batches = pa.ipc.open_stream(stream)
        schema = _without(file.schema, name, selection.ignore)
        yield none(schema)
        columns = _fit(schema, selection)
        is_mapped = isinstance(stream, pa.MemoryMappedFile)
        for batch in batches:
            for first in range(0, batch.num_rows, BATCH_ROWS):  # a file may be one batch
                part = batch.select(columns).slice(first, BATCH_ROWS)
                yield _checked(_copied(part) if is_mapped else part)


OF_BATCHES: dict[str, Reader] = {
    **dict.fromkeys((".feather", ".arrow", ".ipc"), arrow_batches),
}  # by suffix, to train on and to label


def _copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in memory of its own: a file that is mapped may be cut short by others once it was read."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_next_batch()


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, whose text has been looked at: no file says whether it is UTF-8, and its codes are levels it has."""
    for column in batch.columns:
        if kind_of(column.type) == "text":
            column.validate(full=True)
    return batch


def is_unfit(kind: pa.DataType) -> bool:
    """Whether no column of a model can be of this type: what holds several values, bytes, or is somebody's own."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return bool(pa.types.is_nested(kind) or is_bytes or isinstance(kind, pa.BaseExtensionType))


def _fit(schema: pa.Schema, selection: Selection) -> list[str]:
    return [field.name for field in schema if selection.takes(field.name) and not is_unfit(field.type)]


def _without(schema: pa.Schema, name: str, ignore: frozenset[str]) -> pa.Schema:
    check_names(schema.names, name)
    return pa.schema([field for field in schema if field.name not in ignore])


@contextlib.contextmanager
def _whole(name: str, kind: str) -> Iterator[None]:
    """Take whatever pyarrow raises in the block for the file's fault."""
    try:
        yield
    except GradmillError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise broken(name, reason, f"a whole {kind} file") from error
