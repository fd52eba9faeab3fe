"""One shard from its files to its part: read, run, encode, chunk by chunk."""

import contextlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.batch import parts
from tasks.batch.lanes import Lanes, open_lanes
from tasks.batch.parts import Footer
from tasks.batch.rejects import ShardRejects
from tasks.batch.version import Version, read_version
from tasks.data import readers
from tasks.data.readers import Chunk, Source
from tasks.data.readers.formats import Array
from tasks.serving import drift
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
        with ShardRejects(parts.rejects_path(folder, shard)) as rejects, lanes.working():
            tally = work.write(temporary, lanes, rejects)
        readers.check_unchanged(work.sources)
        if tally.rejects > job.max_rejects:
            raise _TooManyRejects
    return tally.footer(job, shard)


class _Work(NamedTuple):
    """A shard, and all that is known of it before its rows are read."""

    job: Job
    shard: Shard
    version: Version
    sources: list[Source]

    def write(self, path: Path, lanes: Lanes, rejects: ShardRejects) -> "Tally":
        """Write the part at ``path``."""
        tally, wanted = Tally(self.version), self.version.wanted(self.job.columns)
        with parts.writer(path, parts.schema(lanes.signature, self.version)) as part:
            for chunk in readers.chunks(self.sources, self.shard.start, self.shard.stop, wanted):
                outputs = lanes.run(chunk.values)
                if len(chunk.rows):
                    part.write_table(parts.table(chunk, outputs, self.version))
                rejects.add(chunk.rejects)
                tally.add(chunk, outputs)
                if tally.rejects > self.job.max_rejects:
                    break
            parts.add_footer(part, tally.footer(self.job, self.shard))
        return tally


class Tally:
    """What is counted of a shard along the way."""

    def __init__(self, version: Version) -> None:
        self._task = version.task
        self._profile = {name: drift.of(np.empty(0), each) for name, each in version.reference.items()}
        self._rows, self.rejects, self._correct, self._all_have_truth = 0, 0, 0, True
        self._notes: Counter[str] = Counter()

    def add(self, chunk: Chunk, outputs: dict[str, Array]) -> None:
        """Count one chunk."""
        self._rows += len(chunk.rows)
        self.rejects += len(chunk.rejects)
        self._notes.update(chunk.notes)
        observed = self._task.observed(outputs)
        self._profile = {name: held + drift.of(observed[name], held) for name, held in self._profile.items()}
        correct = None if chunk.truth is None else self._task.num_correct(outputs, chunk.truth)
        self._correct += correct or 0
        self._all_have_truth &= correct is not None

    def footer(self, job: Job, shard: Shard) -> Footer:
        """The counts, and what they belong to."""
        return Footer(
            job=job.job,
            shard=shard,
            rows=self._rows,
            rejects=self.rejects,
            model=job.model.model_dump(mode="json"),
            provider=job.provider,
            profile=self._profile,
            correct=self._correct if self._all_have_truth else None,
            notes=dict(self._notes),
        )
