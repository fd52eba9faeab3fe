"""Evaluation of a kept version on rows whose labels came later; trains nothing and imports no torch."""

from prefect import flow

from flows.pages import run_artifacts, run_names
from tasks.judge import judge
from tasks.judging.evaluation_result import EvaluationResult
from tasks.machine import resources
from tasks.parameters import EvaluateParameters
from tasks.store.run_folder import RunFolder

PLACES = {"data"}  # no document keeps the location of own data


@flow(flow_run_name=run_names.name_runs(EvaluateParameters), log_prints=True, timeout_seconds=run_names.time_limit())
def evaluate(parameters: EvaluateParameters = EvaluateParameters()) -> EvaluationResult:  # noqa: B008  (frozen)
    """Judge the champion (or another version) on labelled rows."""
    run_names.require_own_store()
    resources.keep_imports()
    kept = parameters.model_dump(mode="json", exclude=PLACES)
    run = RunFolder.open(run_names.name_run_folder(f"evaluate-{parameters.name}"), kept)
    with run.in_use():
        judged = judge(run, parameters)
    run_artifacts.show_evaluation(judged)
    return judged
