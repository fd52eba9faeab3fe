"""Evaluation of a kept version on rows whose labels came later; trains nothing and imports no torch."""

from prefect import flow

from flows.pages import run_artifacts, run_names
from tasks.judge import judge
from tasks.judging.evaluation_result import EvaluationResult
from tasks.parameters import EvaluateParameters

PLACES = {"data"}  # no document keeps the location of own data


@flow(flow_run_name=run_names.name_runs(EvaluateParameters), log_prints=True, timeout_seconds=run_names.time_limit())
def evaluate(parameters: EvaluateParameters = EvaluateParameters()) -> EvaluationResult:  # noqa: B008  (frozen)
    """Judge the champion (or another version) on labelled rows."""
    run_names.require_own_store()
    with run_names.open_run(f"evaluate-{parameters.name}", parameters, PLACES) as run:
        judged = judge(run, parameters)
    run_artifacts.show_evaluation(judged)
    return judged
