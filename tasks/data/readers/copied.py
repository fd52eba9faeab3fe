"""Columns of a file that go to the output as they are (``--id-column``)."""

import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.readers.formats import Piece, Wanted

KINDS = {"text", "number", "boolean", "date", "null"}


def along(done: Piece, batch: pa.RecordBatch, wanted: Wanted) -> Piece:
    """Rows that were read of a batch, and with them, rejected ones too, what goes along."""
    if not wanted.ids:
        return done
    ids = {name: pc.cast(batch.column(name), pa.string()) for name in wanted.ids}
    return done._replace(extra=pa.RecordBatch.from_pydict(ids))
