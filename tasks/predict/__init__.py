"""Stage 7: batch prediction through onnxruntime, on CUDA where there is a GPU. Imports no torch."""

from tasks.parameters import PredictParameters
from tasks.predict import report
from tasks.predict.finishing import finish, prediction
from tasks.predict.planning import planned
from tasks.predict.running import label_shards
from tasks.records import Prediction
from tasks.run_folder import RunFolder
from tasks.stage import gpu, stage


@stage()
def predict(run: RunFolder, parameters: PredictParameters) -> Prediction:
    """Run a version over its input and write Parquet parts, ``job.json`` and the rejected rows.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output folder holds another job.
        DataError: the input is broken, does not fit the model, or too many of its rows cannot be read.
        DeviceMissing: CUDA was asked for and is not there.
    """
    with gpu.turn(parameters.device), planned(parameters) as (folder, job):
        if job.status == "done":
            print(f"nothing has changed: job {job.job} is done, predictions in {folder}")
            return prediction(folder, job)
        report.started(folder, job)
        seconds = label_shards(folder, job, parameters)
        job = finish(folder, job, parameters.max_drift, seconds)
        report.finished(folder, job)
        return prediction(folder, job)
