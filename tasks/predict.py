"""Stage 7: batch prediction through onnxruntime, on CUDA where there is a GPU. Imports no torch."""

from tasks.batch import report
from tasks.batch.finishing import finish, judged_by, prediction
from tasks.batch.planning import planned
from tasks.batch.running import check_runner, label_shards
from tasks.machine.telling import tell
from tasks.parameters import PredictParameters
from tasks.records import Prediction
from tasks.stage import gpu, stage
from tasks.store.run_folder import RunFolder


@stage()
def predict(run: RunFolder, parameters: PredictParameters) -> Prediction:
    """Run a version over its input and write Parquet parts, ``_job.json`` and the rejected rows.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output folder holds something else.
        DataError: the input or the job's document is broken, or too many rows cannot be read.
        EnvironmentProblem: no Dask scheduler answers at the address.
        DeviceMissing: CUDA was asked for and is not there.
    """
    check_runner(parameters)
    with gpu.turn(parameters.device), planned(parameters) as (folder, job):
        if job.status == "done":
            tell(f"nothing has changed: job {job.job} is done, predictions in {folder}")
            judged = judged_by(folder, job, parameters.max_drift)
            if judged.drift != job.drift:
                report.drift(folder, judged)
            return prediction(folder, judged)
        report.started(folder, job)
        seconds = label_shards(folder, job, parameters)
        job = finish(folder, job, parameters, seconds)
        report.finished(folder, job)
        return prediction(folder, job)
