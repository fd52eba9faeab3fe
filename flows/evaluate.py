"""A kept version on rows whose labels came later; trains nothing and imports no torch."""

from prefect import flow

from flows import story
from flows.story import limit, overview, run_names
from tasks.judge import judge
from tasks.judging.evaluation_result import EvaluationResult
from tasks.machine import memory
from tasks.parameters import EvaluateParameters
from tasks.store.run_folder import RunFolder

PLACES = {"data"}  # no document keeps where own data are


@flow(flow_run_name=run_names.of(EvaluateParameters), log_prints=True, timeout_seconds=run_names.time_limit())
@limit.heard
def evaluate(parameters: EvaluateParameters = EvaluateParameters()) -> EvaluationResult:  # noqa: B008  (frozen)
    """Judge the champion (or another version) on labelled rows."""
    memory.keep_imports()
    kept = parameters.model_dump(mode="json", exclude=PLACES)
    run = RunFolder.open(run_names.folder(f"evaluate-{parameters.name}"), kept)
    with overview.rewritten(parameters.name):
        with run.in_use():
            judged = judge(run, parameters)
        story.told_of_judgement(judged)  # the overview links to it
    return judged
