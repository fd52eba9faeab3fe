"""The end of a job: every row accounted for, drift judged, _job.json written last."""

import contextlib
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tasks.batch import columns, output, parts, rejects
from tasks.batch.counts import UNKNOWN_CLASS, total
from tasks.batch.lanes import open_lanes
from tasks.batch.parts import Footer
from tasks.batch.version import Version, read_version
from tasks.data import readers
from tasks.data.recipe import Pixels
from tasks.errors import DataError
from tasks.judging import painter
from tasks.machine.telling import tell
from tasks.parameters import PredictParameters, Runner
from tasks.records import Prediction
from tasks.serving import drift
from tasks.store import artifact_paths, predictions, scratch
from tasks.store.artifact_paths import OLD_NAMES, PREDICTION_GRID, REJECTS
from tasks.store.predictions import Job

GRID_IMAGES = 18


def finish(folder: Path, job: Job, parameters: PredictParameters, seconds: float) -> Job:
    """Check that rows in are rows out and rejects, and write the job's result.

    Raises:
        DataError: a part is missing or does not hold what it should; or too many rows were rejected.
    """
    footers = [_whole(folder, job, index) for index in range(len(job.shards))]
    rejected = rejects.merge(folder, job)
    counts = total(footers)
    if counts.rows + rejected != job.rows:
        raise DataError(
            f"{counts.rows} rows written and {rejected} rejected of {job.rows}", "every row", "--restart the job"
        )
    rejects.check(folder, job, rejected)
    version = read_version(job.model.path.parent)
    metrics = counts.score.metrics if counts.score else {}
    done = job.model_copy(
        update={
            "status": "done",
            "rejects": rejected,
            "accuracy": metrics.get("accuracy"),
            "metrics": metrics,
            "profile": counts.profile,
            "drift": drift.judge(version.reference, counts.profile, parameters.max_drift),
            "column_counts": counts.columns,
            "column_drift": columns.moved(counts.columns, version),
            "notes": counts.notes,
            "seconds": round(seconds, 3),
            "finished_at": predictions.now(),
        }
    )
    _draw_grid(folder, job, version, job.workers if parameters.runner is Runner.THREADS else 1)
    for name in (REJECTS, PREDICTION_GRID):
        (folder / OLD_NAMES[name]).unlink(missing_ok=True)
    predictions.write(folder, done)
    output.clean_up(folder)
    return done


def judged_by(folder: Path, job: Job, max_drift: float) -> Job:
    """A finished job, its drift judged by the bound that is asked for now; its document follows where it can."""
    if job.drift is None or job.drift.maximum == max_drift:
        return job
    judged = job.model_copy(update={"drift": drift.judge_again(job.drift, max_drift)})
    with contextlib.suppress(OSError), output.begun(folder, job):
        predictions.write(folder, judged)
    with contextlib.suppress(OSError):
        output.clean_up(folder)
    return judged


def _whole(folder: Path, job: Job, index: int) -> Footer:
    footer = parts.read_footer(folder, job, job.shards[index])
    if footer is None:
        raise DataError(
            f"{artifact_paths.part(folder, index)} does not hold rows {job.shards[index].start} to "
            f"{job.shards[index].stop} of job {job.job}",
            "the part as it was written",
            "run the command again: it writes the missing parts anew",
        )
    return footer


def prediction(folder: Path, job: Job) -> Prediction:
    """What a finished job came to."""
    if job.rejects is None or job.drift is None:
        raise ValueError(f"job {job.job} is not done")
    pictures = (folder / name for name in (PREDICTION_GRID, OLD_NAMES[PREDICTION_GRID]))
    return Prediction(
        path=folder,
        job=job.job,
        rows=job.rows - job.rejects,
        rejects=job.rejects,
        parts=len(job.shards),
        name=job.model.name,
        version=job.model.version,
        model_sha256=job.model.sha256,
        provider=job.provider,
        accuracy=job.accuracy,
        metrics=job.metrics or {},
        unknown_class=(job.notes or {}).get(UNKNOWN_CLASS, 0),
        drift=job.drift,
        seconds=job.seconds or 0,
        picture=next((path for path in pictures if path.is_file()), None),
    )


def _draw_grid(folder: Path, job: Job, version: Version, threads: int) -> None:
    """The first images under their true and predicted label (the book's ``predict_ch3``).

    ``threads`` as in this process they labelled shards, if they did: then its sessions are used again.
    """
    if not isinstance(version.recipe, Pixels):
        return
    if find_spec("matplotlib") is None:
        tell("no picture of the predictions: matplotlib is not installed (extra: train)")
        return
    lanes = open_lanes(job.model.path, job.model.sha256, job.provider, job.batch_size, threads)
    sources = parts.read_sources(folder, job.shards[0])
    chunk = next(readers.chunks(sources, 0, min(GRID_IMAGES, job.rows), version.wanted(job)))
    if not len(chunk.rows):
        return
    images = np.asarray(chunk.values)
    predicted = [version.labels[index] for index in lanes.run(images)[version.task.answer]]
    true = [_name(version.labels, index) for index in chunk.truth.tolist()] if chunk.truth is not None else None
    with scratch.placing(folder, PREDICTION_GRID) as temporary:
        painter.drawn("tasks.judging.image_figures", "image_grid", images, predicted, true, temporary)


def _name(labels: list[str], index: float) -> str:
    """The name of a label, or the number of one that the model does not know; nothing of none."""
    if math.isnan(index):
        return ""
    return labels[int(index)] if 0 <= index < len(labels) else str(int(index))
