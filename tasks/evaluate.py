"""Stage 5: measure the candidate and let the gates judge it, the book's assertions among them."""

from tasks.data.report import DataReport
from tasks.judging import gates
from tasks.machine.run_messages import print_message
from tasks.parameters import Gates, Training
from tasks.records import Evaluation, PreparedDataset, TrainedModel
from tasks.stage import stage
from tasks.store import atomic, verified_files
from tasks.store.run_folder import RunFolder


@stage()
def evaluate(
    run: RunFolder, prepared: PreparedDataset, trained: TrainedModel, training: Training, bounds: Gates
) -> Evaluation:
    """Write ``evaluation.json`` and pictures into the run's folder, then pass or refuse the candidate.

    Raises:
        GateFailed: at least one gate refused; the evidence is written all the same.
    """
    from tasks.judging.task import Candidate, choose_task

    candidate, task = Candidate.read(prepared, trained, training), choose_task(prepared)
    sentence = task.describe(candidate)
    print_message(sentence, short=sentence.partition("; ")[0])
    evaluation = Evaluation(
        metrics=candidate.metrics,
        gates=tuple(task.judge(candidate, bounds)),
        pictures=candidate.draw(run),
    )
    atomic.write_json(run.file("evaluation.json"), evaluation.model_dump(mode="json"), is_durable=False)
    gates.raise_if_failed(evaluation, evaluation.gates, run, prepared.left_out, _list_extremes(prepared))
    return evaluation


def _list_extremes(prepared: PreparedDataset) -> list[str]:
    """What validation said of test rows far beyond the training rows."""
    if prepared.report is None:
        return []
    report = DataReport.model_validate_json(verified_files.read(prepared.report))
    return [finding.sentence for finding in report.findings if finding.rule == "extreme-value"]
