"""Batch prediction alone, with the champion; imports no torch."""

from prefect import flow

from flows.pages import run_artifacts, run_names
from tasks.machine import devices
from tasks.parameters import PredictParameters
from tasks.predict import predict as predict_stage
from tasks.records import Prediction
from tasks.serving import runtime


@flow(flow_run_name=run_names.name_runs(PredictParameters), log_prints=True, timeout_seconds=run_names.time_limit())
def predict(parameters: PredictParameters = PredictParameters()) -> Prediction:  # noqa: B008  (frozen)
    """Label every row of the input with the champion (or another version)."""
    run_names.require_own_store()
    devices.require(parameters.device)
    runtime.tell_device(parameters.device)
    with (
        run_names.open_run(f"predict-{parameters.name}", parameters) as run,
        run_artifacts.failed_prediction_shown(parameters),
    ):
        done = predict_stage(run, parameters)
    run_artifacts.show_prediction(done)
    return done
