"""Parquet parts: one a shard, each of which tells in its footer what it holds.

No compression, no dictionaries and no statistics for the probabilities: their digits are close to random, so all
three cost more time than they save space (measured; docs/speed.md). Row numbers are delta-encoded to almost nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch.counts import Counts
from tasks.batch.version import Version
from tasks.data.readers import Chunk, Source
from tasks.data.readers.formats import CHUNK_ROWS, Array
from tasks.errors import DataError
from tasks.serving.contract import LABEL, Signature
from tasks.serving.task import LABEL_NAME
from tasks.store import artifact_paths, atomic
from tasks.store.predictions import Job, Shard

FOOTER = b"gradmill"
BUFFER_BYTES = 2**16  # collects small writes; a column of probabilities goes to the file as it is, uncopied


class Footer(Counts):
    """What a part says of itself; ``rows`` are in it, ``rejects`` are in _rejects.parquet."""

    job: str
    shard: Shard
    model: dict[str, Any]
    provider: str

    @classmethod
    def of_shard(cls, counts: Counts, job: Job, shard: Shard) -> "Footer":
        """What was counted, and what it belongs to."""
        model = job.model.model_dump(mode="json")
        return cls(job=job.job, shard=shard, model=model, provider=job.provider, **dict(counts))


def nothing(signature: Signature, ids: tuple[str, ...]) -> tuple[Chunk, dict[str, Array]]:
    """No rows, and what a model says of them."""
    outputs = {tensor.name: np.empty((*tensor.shape, 0), tensor.dtype) for tensor in signature.outputs}
    number, extra = np.empty(0, np.int64), pa.schema([(name, pa.string()) for name in ids]).empty_table()
    return Chunk(number, number, [], number.astype(np.int32), number, [], [], extra), outputs


def table(chunk: Chunk, outputs: dict[str, Array], version: Version, has_all: bool = True) -> pa.Table:
    """One row group: row number, file, then label, its name and a probability a class, or the prediction, then ids.

    Outputs are ``(…, n)``, probabilities ``(classes, n)``; only where ``has_all`` are these in it. Copies nothing.
    """
    columns = {"row": pa.array(chunk.rows), "source": _named(chunk.source_index, chunk.sources)}
    for name, values in version.task.columns(outputs, version.labels, has_all).items():
        columns[name] = _named(values, version.labels) if name == LABEL_NAME else pa.array(values)
    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    if chunk.extra is not None:
        columns |= {f"id_{name}": chunk.extra[name] for name in chunk.extra.column_names}
        fields += [pa.field(f"id_{name}", pa.string()) for name in chunk.extra.column_names]
    return pa.table(columns, schema=pa.schema(fields))


def _named(index: Array, names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(names, pa.string()), safe=False)


@contextmanager
def writer(path: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer with the encodings that were measured to be best."""
    with (
        pa.output_stream(path, buffer_size=BUFFER_BYTES) as stream,
        pq.ParquetWriter(
            stream,
            columns,
            compression="none",
            use_dictionary=["source", LABEL_NAME, LABEL],
            column_encoding={"row": "DELTA_BINARY_PACKED"},
            write_statistics=["row"],
            write_batch_size=CHUNK_ROWS,
        ) as part,
    ):
        yield part


@contextmanager
def written_back(path: Path) -> Iterator[Callable[[], None]]:
    """Yield what has the disk begin to write what was appended since the last call: the last sync then waits less."""
    descriptor, done = os.open(path, os.O_RDONLY), 0

    def hand_to_disk() -> None:
        nonlocal done
        size = os.fstat(descriptor).st_size
        os.posix_fadvise(descriptor, done, size - done, os.POSIX_FADV_DONTNEED)
        done = size

    try:
        yield hand_to_disk
    finally:
        os.close(descriptor)


def add_footer(part: pq.ParquetWriter, footer: Footer) -> None:
    """Note in the file's own metadata what it holds."""
    part.add_key_value_metadata({FOOTER: footer.model_dump_json().encode()})


def read_footer(folder: Path, job: Job, shard: Shard) -> Footer | None:
    """The footer of a shard's part, or None unless part and rejects are whole and of just that shard of that job."""
    footer = _written(folder, job, shard)
    if footer and footer.rejects and _num_rows(rejects_path(folder, shard)) != footer.rejects:
        return None
    return footer


def is_whole(folder: Path, job: Job) -> bool:
    """Whether everything that a finished job wrote is still there, under the names of today or of old."""
    rejects = (
        _num_rows(folder / name) for name in (artifact_paths.REJECTS, artifact_paths.OLD_NAMES[artifact_paths.REJECTS])
    )
    return job.rejects in rejects and all(_written(folder, job, shard) for shard in job.shards)


def is_ours(path: Path, otherwise: bool) -> bool:
    """Whether a Parquet file has our footer; ``otherwise`` if it cannot be read."""
    try:
        return FOOTER in (pq.read_metadata(path).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return otherwise


def _written(folder: Path, job: Job, shard: Shard) -> Footer | None:
    try:
        metadata = pq.read_metadata(artifact_paths.part(folder, shard.number))
        footer = Footer.model_validate_json(metadata.metadata[FOOTER])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None
    agrees = (
        footer.job == job.job
        and footer.shard == shard
        and footer.model["sha256"] == job.model.sha256
        and footer.rows == metadata.num_rows == shard.stop - shard.start - footer.rejects
    )
    return footer if agrees else None


def _num_rows(path: Path) -> int | None:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid):
        return None


def rejects_path(folder: Path, shard: Shard) -> Path:
    """The rejects of one shard, until the job is done."""
    return artifact_paths.part(artifact_paths.shard_rejects(folder), shard.number)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read, in the block, a Parquet file that the job itself has written.

    Raises:
        DataError: it is gone or damaged; pyarrow's own errors name no file.
    """
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        action = "run the command again, or with --restart"
        raise DataError(f"{path} cannot be read: {error}", "the file as it was written", action) from error


# The files of the input


def write_sources(folder: Path, sources: list[Source]) -> None:
    """Write which file holds which rows, for the shards to look up."""
    columns = [list(column) for column in zip(*sources, strict=True)]
    with atomic.replacing(artifact_paths.sources(folder)) as temporary:
        pq.write_table(pa.table(columns, names=list(Source._fields)), temporary)


def read_sources(folder: Path, shard: Shard) -> list[Source]:
    """The files that hold the rows of a shard.

    Raises:
        DataError: what ``write_sources`` wrote cannot be read.
    """
    rows = pa.compute.field("first_row")
    overlaps = (rows < shard.stop) & (rows + pa.compute.field("rows") > shard.start)
    with reading(artifact_paths.sources(folder)):
        found = pq.read_table(artifact_paths.sources(folder), filters=overlaps)
    return [Source(**row) for row in found.to_pylist()]
