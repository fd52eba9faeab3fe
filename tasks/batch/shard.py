"""One shard of a job from its files to its part: read, run, encode, chunk by batch.

Parts have no compression, no dictionaries and no statistics for the probabilities: their digits are close to random,
so all three cost more time than they save space (measured; docs/speed.md). Row numbers are delta-encoded to almost
nothing.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch.output_dir import FOOTER, rejects_path
from tasks.batch.plan import Version, read_inputs, read_version
from tasks.batch.results import ID, Counts, Footer, rejects_schema
from tasks.batch.session_pool import Buffers, SessionPool, empty_outputs, open_pool
from tasks.data.io import inputs
from tasks.data.io.batches import CHUNK_ROWS, Batch, Reject
from tasks.data.io.inputs import InputFile
from tasks.machine.arrays import Array
from tasks.serving.contract import LABEL
from tasks.serving.task import LABEL_NAME
from tasks.store import artifact_paths, atomic, scratch
from tasks.store.artifact_paths import JOB
from tasks.store.predictions import Job, Shard

BUFFER_BYTES = 2**16  # collects small writes; a column of probabilities goes to the file as it is, uncopied


class _TooManyRejects(Exception):
    """The shard alone holds more rejected rows than the job tolerates: no need to read on."""


def predict_shard(folder: Path, shard: Shard, model: Path, threads: int) -> Footer:
    """Predict every row of a shard with the file ``model`` and write its part, which appears whole or not at all.

    ``threads`` do so in this process side by side. A shard with too many rejected rows ends where that shows, and
    leaves no part; its rejects are then those so far.

    Raises:
        DataError: the job's plan, an input or the model is gone or has changed.
    """
    job = Job.read(folder / JOB, "run gradmill predict again")
    pool = open_pool(model, job.model.sha256, job.provider, threads)
    work = _Work(job, shard, read_version(model.parent), read_inputs(folder, shard))
    inputs.check_unchanged(work.inputs)
    name = artifact_paths.part(folder, shard.number).name
    with contextlib.suppress(_TooManyRejects), scratch.placing(folder, name) as temporary:  # syncs when no core is held
        with ShardRejects(rejects_path(folder, shard), job) as rejects, pool.working() as buffers:
            footer = work.write(temporary, pool, buffers, rejects)
        inputs.check_unchanged(work.inputs)
        if footer.rejects > job.max_rejects:
            raise _TooManyRejects
    return footer


class _Work(NamedTuple):
    """A shard, and all that is known of it before its rows are read."""

    job: Job
    shard: Shard
    version: Version
    inputs: list[InputFile]

    def write(self, path: Path, pool: SessionPool, buffers: Buffers, rejects: "ShardRejects") -> Footer:
        """Write the part at ``path``."""
        job, version = self.job, self.version
        spec, has_all = version.read_spec(job), job.written == "all"
        batch, outputs = _empty_batch(job.id_columns), empty_outputs(pool.signature.outputs)
        counts = Counts.count(batch, outputs, version, job.rows)
        schema = to_table(batch, outputs, version, has_all).schema
        with part_writer(path, schema) as part, written_back(path) as hand_to_disk:
            for batch in inputs.batches(self.inputs, self.shard.start, self.shard.stop, spec):
                outputs = pool.run(batch.X, job.batch_size, buffers)
                if len(batch.row_ids):
                    part.write_table(to_table(batch, outputs, version, has_all))
                    hand_to_disk()
                rejects.add(batch.rejects)
                counts += Counts.count(batch, outputs, version, job.rows)
                if counts.rejects > job.max_rejects:
                    break
            model = job.model.model_dump(mode="json")
            footer = Footer(job=job.job, shard=self.shard, model=model, provider=job.provider, **dict(counts))
            part.add_key_value_metadata({FOOTER: footer.model_dump_json().encode()})
        return footer


def _empty_batch(ids: tuple[str, ...]) -> Batch:
    number, extra = np.empty(0, np.int64), pa.schema([(name, pa.string()) for name in ids]).empty_table()
    return Batch(number, number, y_true=number, passthrough=extra, source_index=number.astype(np.int32))


def to_table(batch: Batch, outputs: dict[str, Array], version: Version, has_all: bool = True) -> pa.Table:
    """One row group: row number, file, then label, its name and a probability a class, or the prediction, then ids.

    Outputs are ``(…, n)``, probabilities ``(classes, n)``; only where ``has_all`` are these in it. Copies nothing.
    """
    columns = {"row": pa.array(batch.row_ids), "source": _to_dictionary(batch.source_index, batch.sources)}
    for name, values in version.task.columns(outputs, version.labels, has_all).items():
        columns[name] = _to_dictionary(values, version.labels) if name == LABEL_NAME else pa.array(values)
    fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
    if batch.passthrough is not None:
        columns |= {f"{ID}{name}": batch.passthrough[name] for name in batch.passthrough.column_names}
        fields += [pa.field(f"{ID}{name}", pa.string()) for name in batch.passthrough.column_names]
    return pa.table(columns, schema=pa.schema(fields))


def _to_dictionary(index: Array, names: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array([*names], pa.string()), safe=False)


@contextmanager
def part_writer(path: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
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


class ShardRejects(contextlib.ExitStack):
    """Writes the rejects of a shard of a job as they come, and no file if none come.

    To be closed before the part appears, whose footer counts them.
    """

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__()
        self._path, self._schema = path, rejects_schema(job)
        self._writer: pq.ParquetWriter | None = None

    def add(self, rejects: Sequence[Reject]) -> None:
        """Write a few."""
        if not rejects:
            return
        if self._writer is None:
            temporary = self.enter_context(atomic.replacing(self._path))
            self._writer = self.enter_context(pq.ParquetWriter(temporary, self._schema))
        columns = zip(*((*facts, *ids) for *facts, ids in rejects), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=self._schema))
