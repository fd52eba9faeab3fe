"""Stage 8: batch prediction with onnxruntime, on CUDA if there is a GPU. Imports no torch."""

from pathlib import Path
from typing import Any

from tasks.batch import output_dir
from tasks.batch.plan import open_job
from tasks.batch.results import check_rejects, describe_reject, finish, judge_again, read_footers, to_prediction
from tasks.machine.run_messages import Event, print_message
from tasks.machine.words import format_number, pluralize
from tasks.parameters import PredictParameters
from tasks.records import Prediction
from tasks.stage import gpu_lock, live_progress, shards, stage
from tasks.store.predictions import Job
from tasks.store.run_folder import RunFolder


@stage()
def predict(run: RunFolder, parameters: PredictParameters) -> Prediction:
    """Predict the input with a version, and write Parquet parts and ``_job.json``, or one file.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output holds something else.
        DataError: the input or the job's document is broken, or too many rows cannot be predicted.
        EnvironmentProblem: no Dask scheduler answers at the address.
        DeviceMissing: CUDA was requested and is not available.
    """
    shards.check_runner(parameters.runner, parameters.dask_address)
    with gpu_lock.hold(parameters.device), open_job(parameters) as (folder, job, file, tables):
        if job.status == "done":
            job = _reuse_job(folder, job, parameters)
        else:
            print_message(
                f"{pluralize(job.rows, 'row')} in {pluralize(job.input.files, 'file')} through {job.model.name} "
                f"version {job.model.version} on {job.provider}: {pluralize(len(job.shards), 'part')}, "
                f"{pluralize(job.workers, 'worker')}",
                short=pluralize(job.rows, "row"),
            )
            job = finish(folder, job, parameters, shards.label_shards(folder, job, parameters))
            _report_job(folder, job)
        if file:
            job = output_dir.write_file(file, folder, job, tables)
        return to_prediction(folder, job, file)


def _reuse_job(folder: Path, job: Job, parameters: PredictParameters) -> Job:
    """A finished job, judged by the bounds that are given now."""
    print_message(f"nothing has changed: job {job.job} is done, predictions in {folder}", short="done already: reused")
    for sentence in job.note_sentences:
        print_message(sentence)
    if parameters.max_rejects is not None:
        bounded = job.model_copy(update={"max_rejects": parameters.max_rejects})
        check_rejects(folder, bounded, read_footers(folder, job).values())
    judged = judge_again(folder, job, parameters.max_drift)
    if judged.drift != job.drift:
        _report_drift(folder, judged)
    return judged


def _report_job(folder: Path, job: Job) -> None:
    """Print the result; an event announces the files."""
    for sentence in job.note_sentences:
        print_message(sentence)
    rejects = job.rejects or 0
    done = f"{pluralize(job.rows - rejects, 'row')} predicted, {rejects:,} rejected"
    print_message(f"{done}; predictions in {folder}", short=done)
    if rejects:
        first = min(reject for part in read_footers(folder, job).values() for reject in part.first_rejects)
        print_message(f"the first rejected is {describe_reject(first, job)}")
    if job.metrics and job.accuracy is None:
        print_message(
            "by the target's column: "
            + ", ".join(f"{name} {format_number(value)}" for name, value in job.metrics.items())
        )
    _emit(Event.PREDICTIONS_WRITTEN, folder, job, {"rows": job.rows - rejects, "rejects": rejects})
    _report_drift(folder, job)


def _report_drift(folder: Path, job: Job) -> None:
    """Print, and announce by an event, that the input has drifted or the predictions are worse."""
    told, drift = list[str](), job.drift
    if drift and drift.verdict == "drift":
        index = f"population stability index {drift.describe()} (limit {drift.maximum})"
        told.append(f"the input has drifted from the test split: {index}")
    if job.worse:
        told.append(f"worse than at publication, beyond chance: {job.worse}")
    for sentence in told:
        print_message(sentence)
    if told and drift:
        _emit(Event.DRIFT, folder, job, {"message": "; ".join(told), "index": drift.index, "maximum": drift.maximum})


def _emit(event: str, folder: Path, job: Job, facts: dict[str, Any]) -> None:
    described = {"version": job.model.version, "sha256": job.model.sha256, "path": str(folder), "job": job.job}
    live_progress.emit_from_task(event, job.model.name, described | facts)
