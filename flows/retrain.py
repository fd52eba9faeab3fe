"""The whole pipeline, one call per stage, top to bottom."""

from prefect import flow

from flows.pages import run_artifacts, run_names
from flows.pages.report import RetrainReport, describe_retrain
from tasks.download import download
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.machine import devices
from tasks.mirror import mirror
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.predict import predict
from tasks.preprocess import preprocess
from tasks.publish import publish
from tasks.serving import runtime
from tasks.serving.task import find_task
from tasks.store import mirror_sync, own_data, tuning_result
from tasks.store.own_data import NOT_KEPT
from tasks.train import train
from tasks.validate import validate


@flow(name="retrain", flow_run_name=run_names.name_retrain, log_prints=True, timeout_seconds=run_names.time_limit())
@run_names.end_as_refused
def retrain(parameters: RetrainParameters = RetrainParameters()) -> RetrainReport:  # noqa: B008  (frozen)
    """Train a candidate, let the gates judge it, publish it as ONNX and label the test split with the champion.

    The champion is the newest version that passed the gates, until somebody promotes another version or rolls back.
    """
    run_names.require_own_store()
    run_names.require_own_name(parameters.name)
    parameters = tuning_result.take_found(parameters, is_told=True)
    own_data.require_same_kind(parameters)
    devices.require(parameters.training.device)
    runtime.tell_device(parameters.training.device)
    mirror_sync.save_given_url()
    asked, parameters = parameters, run_names.with_seed(parameters)
    with (
        run_names.open_run(parameters.name, parameters, NOT_KEPT) as run,
        run_artifacts.retrain_shown(run, parameters),
    ):
        if parameters.publish and parameters.data.forget_accepted:
            own_data.forget_accepted(parameters.name, by=run.path.name)
        raw = download(run, parameters.dataset, parameters.data)
        unchanged = own_data.find_by_files(run, asked, raw)
        if unchanged is None:
            task = find_task(parameters.training.model).name
            own_data.require_same_kind(parameters)  # another first run of the name may have finished earlier
            fixed = own_data.find_fixed(parameters.name)
            champion = own_data.of_champion(parameters.name, parameters.data.forget_accepted)
            validated = validate(run, raw, parameters.data, task, fixed, champion)
            prepared = preprocess(run, validated, parameters.data, parameters.training.seed_number)
            own_data.remember_files(asked, raw, prepared)
            unchanged = own_data.find_by_rows(run, asked, prepared)
        if unchanged is None:
            kept_fit = own_data.find_kept_fit(parameters.name, parameters.training, parameters.data.new_recipe)
            trained = train(run, prepared, parameters.training, kept_fit)
            prepared = trained.with_statistics(prepared)
            evaluated = evaluate(run, prepared, trained, parameters.training, parameters.gates)
            exported = export(run, prepared, trained, parameters.training, parameters.gates)
            kept = asked if asked.data.source else parameters  # so that auto stays auto in later retrains
            publish(run, kept, prepared, trained, evaluated, exported)
        if not parameters.publish:
            return describe_retrain(run, parameters)
        own_data.remember(parameters.name, parameters.data)
        if destination := mirror_sync.find_url():
            mirror(run, parameters.name, destination)
        if parameters.predict:
            wanted = PredictParameters(name=parameters.name, device=parameters.training.device)
            with run_artifacts.failed_prediction_shown(wanted):
                predict(run, wanted)
    return describe_retrain(run, parameters)
