"""Rejected rows: a file for each shard that has some, and _rejects.parquet, which gathers them. Never all in memory."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch import parts
from tasks.data.io.pictures import SUFFIXES
from tasks.data.readers import Reject
from tasks.errors import DataError
from tasks.machine.words import counted
from tasks.store import artifact_paths, atomic, scratch
from tasks.store.predictions import Job

SCHEMA = pa.schema([("row", pa.int64()), ("source", pa.string()), ("source_row", pa.int64()), ("reason", pa.string())])
ID = "id_"  # before the name of a column that goes along


class ShardRejects(contextlib.ExitStack):
    """Writes the rejects of a shard of a job as they come, and no file if none come.

    To be closed before the part appears, whose footer counts them.
    """

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__()
        self._path, self._schema = path, _schema(job)
        self._writer: pq.ParquetWriter | None = None

    def add(self, rejects: list[Reject]) -> None:
        """Write a few."""
        if not rejects:
            return
        if self._writer is None:
            temporary = self.enter_context(atomic.replacing(self._path))
            self._writer = self.enter_context(pq.ParquetWriter(temporary, self._schema))
        columns = zip(*((*facts, *ids) for *facts, ids in rejects), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=self._schema))


def _schema(job: Job) -> pa.Schema:
    """The columns of the rejects of a job, its ids as they are called in its parts."""
    return pa.schema([*SCHEMA, *((f"{ID}{name}", pa.string()) for name in job.id_columns)])


def merge(folder: Path, job: Job) -> int:
    """Gather the rejects of all shards in ``_rejects.parquet``, in order, and return how many there are.

    Raises:
        DataError: those of a shard are damaged.
    """
    total, empty = 0, _schema(job).empty_table()
    with (
        scratch.placing(folder, artifact_paths.REJECTS) as temporary,
        pq.ParquetWriter(temporary, empty.schema) as merged,
    ):
        for shard in job.shards:
            path = parts.rejects_path(folder, shard)
            if path.is_file():
                for batch in _batches(path):
                    part = pa.Table.from_batches([batch])  # of a job begun by an older gradmill without ids
                    merged.write_table(pa.concat_tables([empty, part], promote_options="default"))
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
    ids = ", ".join(f"{name.removeprefix(ID)} {value}" for name, value in row.items() if name.startswith(ID))
    number = f"row {row['source_row']}{f' ({ids})' if ids else ''} of "
    return f"{'' if row['source'].lower().endswith(SUFFIXES) else number}{row['source']}: {row['reason']}"
