"""Rejected rows: a file for each shard that has some, and _rejects.parquet, which gathers them. Never all in memory."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch import parts
from tasks.data.pictures import SUFFIXES
from tasks.data.readers import Reject
from tasks.errors import DataError
from tasks.machine.words import counted
from tasks.store import artifact_paths, atomic, scratch
from tasks.store.predictions import Job

SCHEMA = pa.schema([("row", pa.int64()), ("source", pa.string()), ("source_row", pa.int64()), ("reason", pa.string())])


class ShardRejects(contextlib.ExitStack):
    """Writes the rejects of a shard as they come, and no file if none come.

    To be closed before the part appears, whose footer counts them.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, rejects: list[Reject]) -> None:
        """Write a few."""
        if not rejects:
            return
        if self._writer is None:
            temporary = self.enter_context(atomic.replacing(self._path))
            self._writer = self.enter_context(pq.ParquetWriter(temporary, SCHEMA))
        columns = zip(*rejects, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=SCHEMA))


def merge(folder: Path, job: Job) -> int:
    """Gather the rejects of all shards in ``_rejects.parquet``, in order, and return how many there are.

    Raises:
        DataError: those of a shard are damaged.
    """
    total = 0
    with (
        scratch.placing(folder, artifact_paths.REJECTS) as temporary,
        pq.ParquetWriter(temporary, SCHEMA) as merged,
    ):
        for shard in job.shards:
            path = parts.rejects_path(folder, shard)
            if path.is_file():
                for batch in _batches(path):
                    merged.write_batch(batch)
                    total += batch.num_rows
        model = job.model.model_dump(mode="json")
        merged.add_key_value_metadata({parts.FOOTER: json.dumps({"job": job.job, "model": model, "rejects": total})})
    return total


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with parts.reading(path), pq.ParquetFile(path) as file:
        yield from file.iter_batches()


def check(folder: Path, job: Job, count: int) -> None:
    """Stop the job when more rows were rejected than are tolerated; _rejects.parquet then tells which and why.

    Raises:
        DataError: there are too many.
    """
    if count > job.max_rejects:
        merge(folder, job)
        raise too_many(folder, job, count)


def too_many(folder: Path, job: Job, count: int) -> DataError:
    """That more rows were rejected than the job tolerates."""
    return DataError(
        f"at least {count:,} of {counted(job.rows, 'row')} cannot be read, the first is {first(folder)}",
        f"at most {counted(job.max_rejects, 'rejected row')}",
        f"repair them, or raise --max-rejects (finished parts are kept); all are in {folder / artifact_paths.REJECTS}",
    )


def first(folder: Path) -> str:
    """The first rejected row of a job, and why it was."""
    with pq.ParquetFile(folder / artifact_paths.REJECTS) as file:
        row: dict[str, Any] = next(file.iter_batches(1)).to_pylist()[0]
    place = "" if row["source"].lower().endswith(SUFFIXES) else f"row {row['source_row']} of "
    return f"{place}{row['source']}: {row['reason']}"
