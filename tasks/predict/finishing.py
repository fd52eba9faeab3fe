"""The end of a job: every row accounted for, drift judged, job.json written last."""

from collections import Counter
from functools import reduce
from operator import add
from pathlib import Path

from tasks import artifact_paths, drift
from tasks.artifact_paths import PREDICTION_GRID
from tasks.errors import DataError
from tasks.predict import inputs, jobs, parts
from tasks.predict.jobs import Job
from tasks.predict.lanes import open_lanes
from tasks.predict.parts import Footer
from tasks.predict.version import Version, read_version
from tasks.records import Prediction

GRID_IMAGES = 18


def finish(folder: Path, job: Job, max_drift: float, seconds: float) -> Job:
    """Check that rows in are rows out and rejects, and write the job's result.

    Raises:
        DataError: a part is missing or does not hold what it should; or too many rows were rejected.
    """
    footers = [_whole(folder, job, index) for index in range(len(job.shards))]
    rejects = parts.merge_rejects(folder, job.shards)
    written = sum(footer.rows for footer in footers)
    if written + len(rejects) != job.rows:
        raise DataError(
            f"{written} rows written and {len(rejects)} rejected of {job.rows}", "every row", "--restart the job"
        )
    check_rejects(folder, job, len(rejects))
    version = read_version(job.model.path.parent)
    profile = {name: reduce(add, (footer.profile[name] for footer in footers)) for name in version.reference}
    correct = [footer.correct for footer in footers if footer.correct is not None]
    notes: Counter[str] = Counter()
    for footer in footers:
        notes.update(footer.notes)
    done = job.model_copy(
        update={
            "status": "done",
            "rejects": len(rejects),
            "accuracy": sum(correct) / written if len(correct) == len(footers) and written else None,
            "profile": profile,
            "drift": drift.judge(version.reference, profile, max_drift),
            "notes": dict(notes),
            "seconds": round(seconds, 3),
            "finished_at": jobs.now(),
        }
    )
    _draw_grid(folder, job, version)
    done.write(folder)
    jobs.clean_up(folder)
    return done


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


def check_rejects(folder: Path, job: Job, rejects: int) -> None:
    """Stop the job when more rows were rejected than are tolerated; rejects.parquet then tells which and why.

    Raises:
        DataError: there are too many.
    """
    if rejects <= job.max_rejects:
        return
    first = parts.merge_rejects(folder, job.shards).slice(0, 1).to_pylist()[0]
    raise DataError(
        f"{rejects} of {job.rows} rows cannot be read, the first is row {first['source_row']} of {first['source']}: "
        f"{first['reason']}",
        f"at most {job.max_rejects} rejected rows",
        f"see {folder / artifact_paths.REJECTS}; repair them, or raise --max-rejects: finished parts are kept",
    )


def prediction(folder: Path, job: Job) -> Prediction:
    """What a finished job came to."""
    if job.rejects is None or job.drift is None:
        raise ValueError(f"job {job.job} is not done")
    picture = folder / PREDICTION_GRID
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
        drift=job.drift,
        seconds=job.seconds or 0,
        picture=picture if picture.is_file() else None,
    )


def _draw_grid(folder: Path, job: Job, version: Version) -> None:
    """The first images under their true and predicted label (the book's ``predict_ch3``)."""
    if not version.labels:
        return
    try:
        from tasks import figures
    except ModuleNotFoundError:
        print("no picture of the predictions: matplotlib is not installed (extra: train)")
        return
    lanes = open_lanes(job.model.path, job.model.sha256, job.provider, job.batch_size, job.workers)
    wanted = version.wanted(lanes.signature, job.columns)
    sources = parts.read_sources(folder, job.shards[0])
    chunk = next(inputs.chunks(sources, 0, min(GRID_IMAGES, job.rows), wanted))
    if not len(chunk.rows):
        return
    label = lanes.run(chunk.values)["label"]
    predicted = [version.labels[index] for index in label]
    true = [version.labels[index] for index in chunk.truth] if chunk.truth is not None else None
    figures.image_grid(chunk.values, predicted, true, folder / PREDICTION_GRID)
