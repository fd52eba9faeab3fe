"""Parquet as Hugging Face writes image data sets: a struct of ``bytes`` and ``path``, a label, names in the schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.images.arrays import BLOCK_BYTES, Piece, side_of, source_of
from tasks.data.images.source import JOB, Source
from tasks.data.readers.columns import kind_of
from tasks.data.readers.formats import reading
from tasks.data.readers.packed_pictures import LABELS, class_column, image_column
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.store import regular_files

NAMED = "text", "boolean"
MOST_IMAGES = 10**8  # a footer may promise any number


def find(path: Path) -> Source | None:
    """The images of a file or of a folder of files; None where the first of them has no column of images.

    Raises:
        DataError: a file is broken, differs from the first one, or has no labels.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if not files:
        return None
    with _opened(files[0]) as file:
        schema = file.schema_arrow
    image, (label, names) = image_column(schema), class_column(schema)
    if image is None:
        return None
    if label is None:
        expected = f"a column of classes, called {' or '.join(LABELS)}"
        raise DataError(f"{files[0]} has columns {', '.join(schema.names)}", expected, "rename the column")
    pieces = [_piece(file, image, label) for file in files]
    return source_of(path, files, pieces, names or None)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with regular_files.opened(path) as stream:
        with reading(path):
            file = pq.ParquetFile(pa.PythonFile(stream, mode="r"))
        yield file


def _piece(path: Path, image: str, label: str) -> Piece:
    with _opened(path) as file, reading(path):
        if (rows := file.metadata.num_rows) > MOST_IMAGES:
            raise ValueError(f"it promises {rows} rows")
        labels = file.read(columns=[label]).column(label)
        if labels.null_count or not (pa.types.is_integer(labels.type) or kind_of(labels.type) in NAMED):
            found = f"{path} has {labels.null_count} of {rows} rows without a {label}, which is {labels.type}"
            raise DataError(found, "a whole number or text in each", "fill them in, or leave these rows out")
        size = max(1, sum(file.metadata.row_group(at).total_byte_size for at in range(file.num_row_groups)))
        step = max(1, min(JOB, BLOCK_BYTES * rows // size))
        values: Array = np.asarray(labels.combine_chunks().to_numpy(zero_copy_only=False))
    return Piece(str(path), side_of(path.name), (rows,), partial(_blocks, path, image, step), values)


def _blocks(path: Path, image: str, step: int) -> Iterator[list[bytes]]:
    with _opened(path) as file:
        batches = file.iter_batches(step, columns=[f"{image}.bytes"], use_threads=False)
        while True:
            with reading(path):
                batch = next(batches, None)
            if batch is None:
                return
            yield [each or b"" for each in batch.column(0).field("bytes").to_pylist()]
