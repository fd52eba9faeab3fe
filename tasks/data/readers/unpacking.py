"""Files of tables that have no middle to start from, made into Parquet: the columns that a recipe names."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.data.readers import named
from tasks.data.readers.columnar import OF_BATCHES
from tasks.data.readers.columns import Selection
from tasks.data.readers.csv import csv_to_parquet
from tasks.data.readers.formats import Wanted, reading, unpacked
from tasks.data.readers.text import json_batches
from tasks.data.recipe import Pixels
from tasks.data.schema import Schema
from tasks.errors import DataError, GradmillError
from tasks.machine.words import listed
from tasks.store import atomic

JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")


def of_csv(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack CSV: columns of text, and the faults of rows."""
    _refuse_pixels(path, wanted)
    csv_to_parquet(path, target, lambda names: named.needed(path, names, wanted))


def of_batches(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack a file of ``OF_BATCHES``, whose columns keep their types."""
    _refuse_pixels(path, wanted)
    with unpacked(path) as stream:
        batches = OF_BATCHES[path.suffix.lower()](stream, str(path), Selection())
        schema = next(batches).schema
        columns = named.check(path, schema, wanted)
        _write(target, pa.schema([schema.field(name) for name in columns]), (each.select(columns) for each in batches))


def of_json(path: Path, target: Path, wanted: Wanted) -> None:
    """Unpack JSON lines: columns of text; one that only some rows have is missing in the others."""
    _refuse_pixels(path, wanted)
    columns, seen = named.wished(wanted), dict[str, None]()
    selection = Selection(as_text=frozenset({*named.categories(wanted), *wanted.ids}))

    def texts() -> Iterator[pa.RecordBatch]:
        for batch in json_batches(stream, str(path), selection):
            seen.update(dict.fromkeys(batch.schema.names))
            yield _texts(path, batch, columns)
        named.needed(path, seen, wanted)

    with unpacked(path) as stream:
        _write(target, pa.schema([(name, pa.string()) for name in columns]), texts())


def header(path: Path) -> list[str]:
    """The names of the columns; of JSON those that any of the first rows has."""
    batches = OF_BATCHES.get(path.suffix.lower(), json_batches)  # the suffix of what is packed is no format's
    with unpacked(path) as stream:
        return list(next(batches(stream, str(path), Selection())).schema.names)


def _texts(path: Path, batch: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
    nothing = pa.nulls(batch.num_rows, pa.string())
    with reading(path):  # nothing makes text of an object in an object
        texts = {name: pc.cast(arrays[name], pa.string()) if name in arrays else nothing for name in columns}
    return pa.RecordBatch.from_pydict(texts)


def _write(target: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(target) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _refuse_pixels(path: Path, wanted: Wanted) -> None:
    if isinstance(wanted.recipe, Pixels):
        found = f"{path} is a table of {path.suffix.lower().removeprefix('.')}"
        action = f"name a model of tables with --name{_models_of_tables()}, or convert it"
        raise DataError(found, "images (IDX, .npy, Parquet, PNG …)", action)


def _models_of_tables() -> str:
    """Which there are, in words; nothing where there are none, or one's documents are damaged."""
    from tasks.store import own_data, reading

    with suppress(GradmillError):
        names = [name for name in reading.names() if isinstance(own_data.fixed(name), Schema)]
        return f" ({listed(names, 10)})" if names else ""
    return ""
