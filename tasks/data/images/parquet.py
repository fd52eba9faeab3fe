"""Parquet as Hugging Face writes image data sets: a struct of ``bytes`` and ``path``, a label, names in the schema."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.images.arrays import BLOCK_BYTES, Array, Piece, side_of, source_of
from tasks.data.images.source import JOB, Source
from tasks.data.readers.formats import reading
from tasks.errors import DataError
from tasks.store import regular_files

METADATA = b"huggingface"
MOST_IMAGES = 10**8  # a footer may promise any number
LABELS = ("label", "labels", "class")


def find(path: Path) -> Source | None:
    """The images of a file or of a folder of files; None where the first of them has no column of images.

    Raises:
        DataError: a file is broken, differs from the first one, or has no labels.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if not files:
        return None
    with _opened(files[0]) as file:
        image, features = _image(file.schema_arrow), _features(file.schema_arrow)
        if image is None:
            return None
        label = _label(files[0], file.schema_arrow, features)
    names = features.get(label, {}).get("names")
    pieces = [_piece(file, image, label) for file in files]
    return source_of(path, files, pieces, tuple(map(str, names)) if isinstance(names, list) else None)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with regular_files.opened(path) as stream:
        with reading(path):
            file = pq.ParquetFile(pa.PythonFile(stream, mode="r"))
        yield file


def _image(schema: pa.Schema) -> str | None:
    """The first column of pictures."""
    for field in schema:
        kinds = {inner.name: inner.type for inner in field.type} if pa.types.is_struct(field.type) else {}
        if "bytes" in kinds and (pa.types.is_binary(kinds["bytes"]) or pa.types.is_large_binary(kinds["bytes"])):
            return str(field.name)
    return None


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the library ``datasets`` says of columns, by name."""
    try:
        found = json.loads((schema.metadata or {}).get(METADATA, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def _label(path: Path, schema: pa.Schema, features: dict[str, Any]) -> str:
    """The column of classes."""
    classes = [name for name, each in features.items() if each.get("_type") == "ClassLabel" and name in schema.names]
    found = classes or [name for name in LABELS if name in schema.names]
    if not found:
        expected = f"a column of classes, called {' or '.join(LABELS)}"
        raise DataError(f"{path} has columns {', '.join(schema.names)}", expected, "rename the column")
    return found[0]


def _piece(path: Path, image: str, label: str) -> Piece:
    with _opened(path) as file, reading(path):
        if (rows := file.metadata.num_rows) > MOST_IMAGES:
            raise ValueError(f"it promises {rows} rows")
        labels = file.read(columns=[label]).column(label)
        if labels.null_count:
            raise ValueError(f"{labels.null_count} rows without a {label}")
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
