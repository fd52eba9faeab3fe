"""Columns of pictures as Hugging Face writes them: structs of ``bytes`` and ``path``, and a column of classes."""

import io
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data import pictures
from tasks.data.readers import columns
from tasks.data.readers.formats import Array, Piece, Wanted
from tasks.data.readers.labels import classes
from tasks.errors import DataError

METADATA = b"huggingface"
LABELS = ("label", "labels", "class")


def image_column(schema: pa.Schema, among: tuple[str, ...] = ()) -> str | None:
    """The first column of pictures, or the first of those that are named."""
    for field in schema:
        kinds = {inner.name: inner.type for inner in field.type} if pa.types.is_struct(field.type) else {}
        if kinds.get("bytes") in (pa.binary(), pa.large_binary()) and (not among or field.name in among):
            return str(field.name)
    return None


def class_column(schema: pa.Schema) -> tuple[str | None, tuple[str, ...]]:
    """The column of classes, and what its whole numbers stand for, as far as either is known."""
    features = _features(schema)
    found = [name for name, each in features.items() if each.get("_type") == "ClassLabel" and name in schema.names]
    name = next(iter([*found, *(name for name in LABELS if name in schema.names)]), None)
    names = features.get(name or "", {}).get("names")
    return name, tuple(map(str, names)) if isinstance(names, list) else ()


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the library ``datasets`` says of columns, by name."""
    try:
        found = json.loads((schema.metadata or {}).get(METADATA, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def label_column(schema: pa.Schema, wanted: Wanted) -> str | None:
    """The column of classes, where they may be the model's."""
    name, names = class_column(schema)
    if not name or not wanted.truth or not set(names) <= set(wanted.class_names):
        return None
    kind = schema.field(name).type
    return name if pa.types.is_integer(kind) or columns.kind_of(kind) == "text" else None


def piece(first: int, batch: pa.RecordBatch, wanted: Wanted) -> Piece:
    """Rows of pictures, the first column; those that are broken are rejected, by their path where they have one."""
    shape = wanted.recipe.input.shape
    images = np.empty((batch.num_rows, *shape), np.uint8)
    kept: list[int] = []
    notes: list[str] = []
    rejects: list[tuple[int, str]] = []
    for offset, struct in enumerate(batch.column(0)):
        found = struct.as_py() or {}
        try:
            content = io.BytesIO(found.get("bytes") or b"")
            images[len(kept)], done = pictures.decode(content, shape, found.get("path") or "it")
        except DataError as error:
            rejects.append((offset, error.found))
        else:
            kept.append(offset)
            notes += done
    at = np.array(kept, np.int64)
    truth = _truth(batch, wanted)
    return Piece(
        first,
        batch.num_rows,
        images[: len(kept)],
        kept=at,
        rejects=tuple(rejects),
        truth=None if truth is None else truth[at],
        notes=tuple(notes),
    )


def _truth(batch: pa.RecordBatch, wanted: Wanted) -> Array | None:
    name = label_column(batch.schema, wanted)
    if name is None:
        return None
    labels, names = batch.column(name), class_column(batch.schema)[1]
    if pa.types.is_integer(labels.type):
        found = labels.fill_null(-1).to_numpy(zero_copy_only=False)
        return np.where(found < 0, math.nan, classes(found, wanted, names))  # where there is none, -1 is written
    return classes(np.array(pc.cast(labels, pa.string()).fill_null("").to_pylist(), str), wanted)
