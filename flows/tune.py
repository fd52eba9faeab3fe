"""A search for hyperparameters: the retrain's data, many trials, and their outcome; publishes nothing itself."""

from prefect import flow

from flows.pages import run_artifacts, run_names
from flows.pages.report import TuneReport
from flows.retrain import retrain
from tasks.download import download
from tasks.fitting.search_space import describe_settings
from tasks.machine import devices
from tasks.machine.run_messages import print_message
from tasks.parameters import RetrainParameters, TuneParameters
from tasks.preprocess import preprocess
from tasks.serving.task import find_task
from tasks.store import artifact_paths, own_data
from tasks.store.own_data import NOT_KEPT
from tasks.store.tuning_result import TunedSettings
from tasks.tune import tune as tune_stage
from tasks.validate import validate


@flow(flow_run_name=run_names.name_runs(TuneParameters), log_prints=True, timeout_seconds=run_names.time_limit())
@run_names.end_as_refused
def tune(parameters: TuneParameters = TuneParameters()) -> TuneReport:  # noqa: B008  (frozen)
    """Search for settings by the loss on a validation part, for ``retrain --tuned`` or an immediate retrain.

    Nothing is kept or retrained if no trial is better than the previous settings.
    """
    run_names.require_own_store()
    own_data.require_same_kind(parameters)
    devices.require(parameters.training.device)
    asked, parameters = parameters, run_names.with_seed(parameters)
    with run_names.open_run(f"tune-{parameters.name}", parameters, NOT_KEPT) as run:
        raw = download(run, parameters.dataset, parameters.data)
        task = find_task(parameters.training.model).name
        own_data.require_same_kind(parameters)  # another first run of the name may have finished earlier
        fixed, champion = own_data.find_fixed(parameters.name), own_data.of_champion(parameters.name)
        validated = validate(run, raw, parameters.data, task, fixed, champion)
        prepared = preprocess(run, validated, parameters.data, parameters.training.seed_number)
        searched = tune_stage(run, prepared, parameters.training, parameters.search, parameters.force)
        if searched.tuned.is_better:
            searched.tuned.write(artifact_paths.tuned(parameters.name))
        run_artifacts.show_search(run, searched)
        report = TuneReport.describe(run, searched)
        if asked.then_retrain and searched.tuned.is_better:
            print_message(f"retrain with what was found: {describe_settings(searched.tuned.settings)}")
            with report.carry_search():
                report = report.model_copy(update={"retrained": retrain(_apply_settings(asked, searched.tuned))})
    return report


def _apply_settings(parameters: TuneParameters, settings: TunedSettings) -> RetrainParameters:
    """The parameters of a retrain on the same data; ``training`` has what the search did not decide."""
    training = {
        name: value for name, value in parameters.training.given_values.items() if name not in settings.settings
    }
    document = {
        "name": parameters.name,
        "training": {"model": parameters.training.model} | training,
        "data": parameters.data,
    }
    return RetrainParameters.model_validate(document | {"tuned": True})
