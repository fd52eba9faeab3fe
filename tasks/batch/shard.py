"""One shard of a job from its files to its part: read, run, encode, batch by batch.

Parts have no compression, no dictionaries and no statistics for the probabilities: their digits are close to random, so
all three cost more time than they save space (measured; docs/speed.md). Row numbers are delta-encoded to almost
nothing.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.batch.output_dir import FOOTER, ID, REJECTED
from tasks.batch.plan import Version, read_inputs, read_version
from tasks.batch.results import Counts, Footer
from tasks.batch.session_pool import open_pool
from tasks.data.io import inputs
from tasks.data.io.batches import CHUNK_ROWS, Batch
from tasks.serving.contract import LABEL
from tasks.serving.task import LABEL_NAME, Outputs
from tasks.store import artifact_paths, predictions
from tasks.store.artifact_paths import JOB
from tasks.store.predictions import Job, Shard

ENCODINGS: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": ["source", LABEL_NAME, LABEL, REJECTED],
    "column_encoding": {"row": "DELTA_BINARY_PACKED"},
    "write_statistics": ["row", REJECTED],
    "write_batch_size": CHUNK_ROWS,
}
OVERFLOW = "its prediction is not a finite number, because a value of the row is too large"
BUFFER_BYTES = 2**16  # collects small writes; a column of probabilities goes to the file directly, without a copy


class _TooManyRejects(Exception):
    """The shard alone holds more rejected rows than the job tolerates: no need to read on."""


def predict_shard(folder: Path, shard: Shard, model: Path, threads: int) -> Footer:
    """Predict every row of a shard with the file ``model`` and write its part, which appears whole or not at all.

    ``threads`` threads of this process predict side by side. Where too many rows are rejected, the rest of the shard is
    not read, and it leaves no part; the footer then counts the rows up to there.

    Raises:
        DataError: the job's plan, an input or the model is gone or has changed.
    """
    job = Job.read(folder / JOB, "run gradmill predict again")
    pool = open_pool(model, job.model.sha256, job.provider, threads)
    version, files = read_version(model.parent), read_inputs(folder, shard)
    inputs.check_unchanged(files)
    name = artifact_paths.part(folder, shard.number).name
    # The part is synced to disk as the outer block ends, when this thread no longer holds a core.
    with contextlib.suppress(_TooManyRejects), predictions.place_file(folder, name) as temporary:
        with pool.hold_worker() as worker:
            batches = inputs.read_batches(files, shard.start, shard.stop, version.read_spec(job))
            answers = ((batch, pool.run(batch.X, job.batch_size, worker)) for batch in batches)
            footer = _write_part(temporary, job, shard, version, answers)
        inputs.check_unchanged(files)
        if footer.rejects > job.max_rejects:
            raise _TooManyRejects
    return footer


def _write_part(
    path: Path, job: Job, shard: Shard, version: Version, answers: Iterable[tuple[Batch, Outputs]]
) -> Footer:
    """Write the part at ``path``; it ends before the next batch if too many rows are rejected.

    Each batch of outputs is valid until the next one.
    """
    counts: Counts | None = None
    with contextlib.ExitStack() as opened:
        for batch, outputs in answers:
            batch = _reject_overflows(batch, outputs, version)
            table = to_table(batch, outputs, version, job.written == "all")
            if counts is None:
                stream = opened.enter_context(pa.output_stream(path, buffer_size=BUFFER_BYTES))
                part = opened.enter_context(pq.ParquetWriter(stream, table.schema, **ENCODINGS))
                written = opened.enter_context(path.open("rb")).fileno()
            part.write_table(table)
            os.posix_fadvise(written, 0, 0, os.POSIX_FADV_DONTNEED)  # starts writing: the last sync waits less
            more = Counts.count(batch, outputs, version)
            counts = counts + more if counts else more
            if counts.rejects > job.max_rejects:
                break
        model = job.model.model_dump(mode="json")
        footer = Footer(job=job.job, shard=shard, model=model, provider=job.provider, **dict(counts or {}))
        part.add_key_value_metadata({FOOTER: footer.model_dump_json().encode()})
    return footer


def _reject_overflows(batch: Batch, outputs: Outputs, version: Version) -> Batch:
    """The batch with those rows rejected for which the model's float32 does not suffice."""
    observed = version.task.list_observed(outputs).values()  # of one NaN among probabilities, the confidence is NaN
    is_finite = np.logical_and.reduce([np.isfinite(each) for each in observed])
    if is_finite.all():
        return batch
    overflows = dict.fromkeys(np.flatnonzero(~is_finite).tolist(), OVERFLOW)
    return batch._replace(reasons=overflows | dict(batch.reasons))


def to_table(batch: Batch, outputs: Outputs, version: Version, has_all: bool) -> pa.Table:
    """One row group: row number, file, then label, its name and a probability per class, or the prediction, then ids.

    The last column has the reason why a row is rejected; what the model says of such a row is null. Outputs are
    ``(…, n)``, probabilities ``(classes, n)``, which are included only if ``has_all``; they are not copied.
    """
    rows, mask = np.arange(batch.first_row, batch.first_row + batch.num_rows), None
    columns = {"row": pa.array(rows), "source": _to_dictionary(pa.array(batch.source_index), batch.sources)}
    reasons = pa.nulls(batch.num_rows, pa.string())
    if batch.reasons:
        mask = ~batch.is_accepted
        reasons = pa.array(map(batch.reasons.get, range(batch.num_rows)), pa.string())
    for name, values in version.task.columns(outputs, version.labels, has_all).items():
        array = pa.array(values, mask=mask)
        columns[name] = _to_dictionary(array, version.labels) if name == LABEL_NAME else array
    if batch.passthrough is not None:
        columns |= {f"{ID}{name}": batch.passthrough[name] for name in batch.passthrough.column_names}
    columns[REJECTED] = reasons
    fields = [pa.field(name, column.type, nullable=name not in ("row", "source")) for name, column in columns.items()]
    return pa.table(columns, schema=pa.schema(fields))


def _to_dictionary(index: pa.Array, names: Iterable[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(index, pa.array([*names], pa.string()), safe=False)
