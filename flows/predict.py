"""Batch prediction alone, with the champion; imports no torch."""

from prefect import flow

from flows import run_names, story
from tasks import devices, onnx_session
from tasks.parameters import PredictParameters
from tasks.predict import predict as predict_stage
from tasks.records import Prediction
from tasks.run_folder import RunFolder


@flow(name="predict", flow_run_name=run_names.predict, log_prints=True)
def predict(parameters: PredictParameters = PredictParameters()) -> Prediction:  # noqa: B008  (frozen)
    """Label every row of the input with the champion (or another version)."""
    devices.require(parameters.device)
    onnx_session.introduce(parameters.device)
    run = RunFolder.open(run_names.folder(f"predict-{parameters.name}"), parameters.model_dump(mode="json"))
    with run.in_use():
        done = predict_stage(run, parameters)
    story.told_of_prediction(done)
    return done
