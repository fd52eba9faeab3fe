"""One shard from its files to its part: read, run, encode, chunk by chunk."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from tasks.batch import parts
from tasks.batch.counts import Counts
from tasks.batch.lanes import Lanes, Memory, open_lanes
from tasks.batch.parts import Footer
from tasks.batch.rejects import ShardRejects
from tasks.batch.version import Version, read_version
from tasks.data import readers
from tasks.data.readers import Chunk, Source
from tasks.data.readers.formats import Array
from tasks.store import artifact_paths, scratch
from tasks.store.artifact_paths import JOB
from tasks.store.predictions import Job, Shard


class _TooManyRejects(Exception):
    """The shard alone holds more rejected rows than the job tolerates: no need to read on."""


def label_shard(folder: Path, shard: Shard, model: Path, threads: int) -> Footer:
    """Predict every row of a shard with the file ``model`` and write its part, which appears whole or not at all.

    ``threads`` do so in this process side by side.

    A shard with too many rejected rows ends where that shows, and leaves no part; its rejects are then those so far.

    Raises:
        DataError: the job's plan, an input or the model is gone or has changed.
    """
    job = Job.read(folder / JOB, "run gradmill predict again")
    lanes = open_lanes(model, job.model.sha256, job.provider, job.batch_size, threads)
    work = _Work(job, shard, read_version(model.parent), parts.read_sources(folder, shard))
    readers.check_unchanged(work.sources)
    name = artifact_paths.part(folder, shard.number).name
    with contextlib.suppress(_TooManyRejects), scratch.placing(folder, name) as temporary:  # syncs when no core is held
        with ShardRejects(parts.rejects_path(folder, shard), job) as rejects, lanes.working() as memory:
            footer = work.write(temporary, lanes, memory, rejects)
        readers.check_unchanged(work.sources)
        if footer.rejects > job.max_rejects:
            raise _TooManyRejects
    return footer


class _Work(NamedTuple):
    """A shard, and all that is known of it before its rows are read."""

    job: Job
    shard: Shard
    version: Version
    sources: list[Source]

    def write(self, path: Path, lanes: Lanes, memory: Memory, rejects: ShardRejects) -> Footer:
        """Write the part at ``path``."""
        chunk, outputs = parts.nothing(lanes.signature, self.job.id_columns)
        counts, wanted = self._counts(chunk, outputs), self.version.wanted(self.job)
        columns = self._table(chunk, outputs).schema
        with parts.writer(path, columns) as part, parts.written_back(path) as hand_to_disk:
            for chunk in readers.chunks(self.sources, self.shard.start, self.shard.stop, wanted):
                outputs = lanes.run(chunk.values, memory)
                if len(chunk.rows):
                    part.write_table(self._table(chunk, outputs))
                    hand_to_disk()
                rejects.add(chunk.rejects)
                counts += self._counts(chunk, outputs)
                if counts.rejects > self.job.max_rejects:
                    break
            footer = Footer.of_shard(counts, self.job, self.shard)
            parts.add_footer(part, footer)
        return footer

    def _counts(self, chunk: Chunk, outputs: dict[str, Array]) -> Counts:
        return Counts.of(chunk, outputs, self.version, self.job.rows)

    def _table(self, chunk: Chunk, outputs: dict[str, Array]) -> pa.Table:
        return parts.table(chunk, outputs, self.version, self.job.written == "all")
