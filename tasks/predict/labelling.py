"""One shard from its files to its part: read, run, encode, chunk by chunk."""

from collections import Counter
from pathlib import Path

import numpy as np

from tasks import artifact_paths, atomic, contract, drift
from tasks.errors import DataError
from tasks.predict import inputs, parts
from tasks.predict.inputs import Chunk, Reject
from tasks.predict.inputs.formats import Array
from tasks.predict.jobs import Job
from tasks.predict.lanes import Lanes, open_lanes
from tasks.predict.parts import Footer
from tasks.predict.shards import Shard
from tasks.predict.version import read_version


def label_shard(folder: Path, shard: Shard) -> Footer:
    """Predict every row of a shard and write its part, which appears whole or not at all.

    Raises:
        DataError: the job's plan, an input or the model is gone or has changed.
    """
    job = Job.read(folder)
    if job is None:
        raise DataError(f"{folder} holds no job", "the job.json that planning wrote", "run gradmill predict again")
    lanes = open_lanes(job.model.path, job.model.sha256, job.provider, job.batch_size, job.workers)
    with atomic.replacing(artifact_paths.part(folder, shard.number)) as temporary:  # syncs when no core is held
        with lanes.working():
            tally = _write(temporary, folder, job, shard, lanes)
        if tally.rejects:
            parts.write_rejects(parts.rejects_path(folder, shard), tally.rejects)
    return tally.footer(job, shard)


def _write(path: Path, folder: Path, job: Job, shard: Shard, lanes: Lanes) -> "Tally":
    version = read_version(job.model.path.parent)
    wanted = version.wanted(lanes.signature, job.columns)
    columns = parts.schema(lanes.signature.outputs, version.labels)
    tally = Tally(version.reference)
    with parts.writer(path, columns) as part:
        for chunk in inputs.chunks(parts.read_sources(folder, shard), shard.start, shard.stop, wanted):
            outputs = lanes.run(chunk.values)
            if len(chunk.rows):
                part.write_table(parts.table(chunk, outputs, version.labels, columns))
            tally.add(chunk, outputs)
        parts.add_footer(part, tally.footer(job, shard))
    return tally


class Tally:
    """What is counted of a shard along the way."""

    def __init__(self, reference: drift.Profile) -> None:
        self._profile = {name: drift.of(np.empty(0), each) for name, each in reference.items()}
        self._rows, self._correct, self._all_have_truth = 0, 0, True
        self._notes: Counter[str] = Counter()
        self.rejects: list[Reject] = []

    def add(self, chunk: Chunk, outputs: dict[str, Array]) -> None:
        """Count one chunk."""
        self._rows += len(chunk.rows)
        self.rejects += chunk.rejects
        self._notes.update(chunk.notes)
        observed = drift.observed(outputs)
        self._profile = {name: held + drift.of(observed[name], held) for name, held in self._profile.items()}
        if chunk.truth is not None and contract.LABEL in outputs:
            self._correct += int(np.count_nonzero(outputs[contract.LABEL] == chunk.truth))
        else:
            self._all_have_truth = False

    def footer(self, job: Job, shard: Shard) -> Footer:
        """The counts, and what they belong to."""
        return Footer(
            job=job.job,
            shard=shard,
            rows=self._rows,
            rejects=len(self.rejects),
            model=job.model.model_dump(mode="json", exclude={"path"}),
            provider=job.provider,
            profile=self._profile,
            correct=self._correct if self._all_have_truth else None,
            notes=dict(self._notes),
        )
