"""Columns of a file that go to the output as they are (``--id-column``)."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.readers import columns, pixels
from tasks.data.readers.formats import Piece, Wanted
from tasks.errors import DataError

KINDS = {"text", "number", "boolean", "date", "null"}


def of_images(path: Path, schema: pa.Schema, wanted: Wanted) -> tuple[str, ...]:
    """Those of a file of images.

    Raises:
        DataError: some are not there, stand twice, or hold something else than single values.
    """
    kinds = {field.name: columns.kind_of(field.type) for field in schema}
    if faults := [name for name in wanted.ids if schema.names.count(name) != 1 or kinds[name] not in KINDS]:
        found = f"{path} has columns {pixels.named(schema)}"
        raise DataError(found, f"one column {faults[0]} of single values", "name another with --id-column")
    return wanted.ids


def along(done: Piece, batch: pa.RecordBatch, wanted: Wanted) -> Piece:
    """Rows that were read of a batch, and with them, rejected ones too, what goes along."""
    if not wanted.ids:
        return done
    ids = {name: pc.cast(batch.column(name), pa.string()) for name in wanted.ids}
    return done._replace(extra=pa.RecordBatch.from_pydict(ids))
