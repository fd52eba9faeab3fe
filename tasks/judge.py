"""A separate stage: judge a kept version on rows with new labels. It imports no torch and trains nothing."""

import tempfile
from pathlib import Path

from tasks.judging.evaluation_result import EvaluationResult
from tasks.judging.labelled_rows import evaluate_version
from tasks.machine.run_messages import Event, print_message
from tasks.machine.words import format_number, pluralize
from tasks.parameters import EvaluateParameters
from tasks.stage import live_progress, stage
from tasks.store import atomic, model_folder
from tasks.store.run_folder import RunFolder


@stage()
def judge(run: RunFolder, parameters: EvaluateParameters) -> EvaluationResult:
    """Write ``judged.json`` into the run's folder: figures with intervals, by period, beside those at publication.

    Raises:
        UsageError: the model or the version does not exist, or takes other rows.
        DataError: the rows cannot be read or are unfit, or the version is damaged.
    """
    number, model = model_folder.load_model(parameters.name, parameters.version)
    manifest = model_folder.find_manifest(parameters.name, number)
    if parameters.data is None:  # rows that refit weights were fitted to
        model = model_folder.read_evaluated_model(parameters.name, number)
    with tempfile.TemporaryDirectory(prefix="rows-", dir=run.path) as scratch:
        result = evaluate_version(manifest, model, parameters, Path(scratch))
    atomic.write_json(run.file("judged.json"), result.model_dump(mode="json"))
    _report_result(run, result)
    return result


def _report_result(run: RunFolder, result: EvaluationResult) -> None:
    """Print the result, and send it as an event to subscribers of the model."""
    figures = ", ".join(f"{name} {format_number(value)}" for name, value in result.metrics.items())
    told = f"{pluralize(result.rows, 'row')} by {result.name} version {result.version}: {figures}"
    print_message(told, short=told)
    if result.worse:
        print_message(f"worse than at publication, beyond chance (95 %): {', '.join(result.worse)}")
    for change in result.changes:
        print_message(f"warning: {change.sentence}")
    facts = result.model_dump(include={"version", "rows", "metrics", "published", "worse"})
    live_progress.emit_from_task(Event.EVALUATED, result.name, facts | {"sha256": result.model_sha256})
    if any(change.rule == "drift" for change in result.changes):
        live_progress.emit_changed_data(result.name, run.path, result.changes, is_stopped=False)
