"""One shard of a job from its files to its part: read, run, encode, batch by batch.

Parts have no compression, no dictionaries and no statistics for the probabilities: their digits are close to random,
so all three cost more time than they save space (measured; docs/speed.md). Row numbers are delta-encoded to almost
nothing.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import add
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch.output_dir import FOOTER, rejects_path
from tasks.batch.plan import Version, read_inputs, read_version
from tasks.batch.results import ID, Counts, Footer, rejects_schema
from tasks.batch.session_pool import Buffers, SessionPool, open_pool
from tasks.data.io import inputs
from tasks.data.io.batches import CHUNK_ROWS, Batch
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
    version, files = read_version(model.parent), read_inputs(folder, shard)
    inputs.check_unchanged(files)
    name = artifact_paths.part(folder, shard.number).name
    with contextlib.suppress(_TooManyRejects), scratch.placing(folder, name) as temporary:  # syncs when no core is held
        with (
            atomic.replacing(rejects_path(folder, shard), is_kept=False) as beside,  # the part's footer counts them
            pq.ParquetWriter(beside, rejects_schema(job)) as rejects,
            pool.working() as buffers,
        ):
            batches = _predict_batches(job, shard, version, files, pool, buffers)
            footer = _write_part(temporary, job, shard, batches, rejects)
        inputs.check_unchanged(files)
        if footer.rejects > job.max_rejects:
            raise _TooManyRejects
    return footer


def _predict_batches(
    job: Job, shard: Shard, version: Version, files: list[InputFile], pool: SessionPool, buffers: Buffers
) -> Iterator[tuple[Batch, pa.Table, Counts]]:
    """Batch by batch what was read, the rows of the part, which hold until the next batch, and what is counted."""
    for batch in inputs.batches(files, shard.start, shard.stop, version.read_spec(job)):
        outputs = pool.run(batch.X, job.batch_size, buffers)
        counts = Counts.count(batch, outputs, version, job.rows)
        yield batch, to_table(batch, outputs, version, job.written == "all"), counts


def _write_part(
    path: Path,
    job: Job,
    shard: Shard,
    batches: Iterator[tuple[Batch, pa.Table, Counts]],
    rejects: pq.ParquetWriter,
) -> Footer:
    """Write the part at ``path``, and the rejected rows apart; it ends early where these are too many."""
    found: list[Counts] = []
    with contextlib.ExitStack() as opened:
        for batch, table, counts in batches:
            if not found:  # there is always a batch, though it may hold nothing but rejected rows
                part = opened.enter_context(part_writer(path, table.schema))
                hand_to_disk = opened.enter_context(written_back(path))
            if len(table):
                part.write_table(table)
                hand_to_disk()
            if batch.rejects:
                columns = zip(*((*facts, *ids) for *facts, ids in batch.rejects), strict=True)
                arrays = [pa.array(column, each.type) for column, each in zip(columns, rejects.schema, strict=True)]
                rejects.write_table(pa.table(arrays, schema=rejects.schema))
            found.append(counts)
            if sum(each.rejects for each in found) > job.max_rejects:
                break
        model = job.model.model_dump(mode="json")
        footer = Footer(job=job.job, shard=shard, model=model, provider=job.provider, **dict(reduce(add, found)))
        part.add_key_value_metadata({FOOTER: footer.model_dump_json().encode()})
    return footer


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


def _to_dictionary(index: Array, names: Iterable[str]) -> pa.DictionaryArray:
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
