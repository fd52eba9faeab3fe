"""What a run tells in the Prefect UI: a verdict with every gate, pictures, the model card; tags and events."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.story import judgement, pages, predicted, run_names
from flows.story.blocks import escaped
from flows.story.report import Outcome, reported
from tasks.judging.evaluation_result import EvaluationResult
from tasks.machine.telling import Event, tell
from tasks.parameters import PredictParameters
from tasks.records import Prediction
from tasks.stage import live
from tasks.store import artifact_paths, disk
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Searched


@contextmanager
def told(outcome: Outcome) -> Iterator[None]:
    """Tell the story of a retrain when it ends, whatever became of the candidate; other failures have none."""
    try:
        with reported(outcome):
            yield
    finally:
        if outcome.is_decided:
            with _never_in_the_way():
                _tell(outcome)
        if outcome.predicted:
            with _never_in_the_way():
                _show_prediction(outcome.predicted)
        told_of_disk()


@contextmanager
def predicting(parameters: PredictParameters) -> Iterator[None]:
    """Show, where the prediction in the block fails, a page that says of what, and what to do."""
    try:
        yield
    except Exception as error:
        with _never_in_the_way():
            page = predicted.failed(parameters.name, error, parameters.input)
            _show(f"{parameters.name}-predictions", page, "nothing was predicted")
        raise


def told_of_prediction(result: Prediction) -> None:
    """Tell what a batch prediction came to."""
    with _never_in_the_way():
        _show_prediction(result)
        _mark(predicted.in_words(result), f"model:{result.name}", f"drift:{result.drift.verdict}")
    told_of_disk()


def told_of_judgement(result: EvaluationResult) -> None:
    """Tell what a kept version came to on labelled rows."""
    with _never_in_the_way():
        _show(f"{result.name}-judgement", judgement.page(result), "a kept version on labelled rows")
        verdict = "verdict:worse" if result.worse else "verdict:as published"
        _mark(judgement.in_words(result), f"model:{result.name}", verdict)
    told_of_disk()


def told_of_search(run: RunFolder, searched: Searched) -> None:
    """Tell what a search has found, and draw how."""
    with _never_in_the_way():
        from flows.story import tuning  # and with it what draws, which predictions never need

        _show(f"{run.name}-tuning", tuning.told(run, searched), "a search for settings")
        _mark(None, f"model:{run.name}")
    told_of_disk()


def told_of_disk() -> None:
    """Say that the disk of artifacts/ is nearly full, if it is, in the log and by an event for the alerts."""
    with _never_in_the_way():
        left, host = disk.read_room(), socket.gethostname()
        if left.is_little:
            tell(message := f"the disk of {artifact_paths.root()} on {host} is nearly full: {left}")
            resource = {"prefect.resource.id": f"gradmill.disk.{host}", "prefect.resource.name": host}
            emit_event(Event.DISK, resource, payload={"message": message, "free": left.free, "total": left.total})


def _show(key: str, page: str, about: str) -> None:
    create_markdown_artifact(page, key=key, description=escaped(about))  # which is read as Markdown, too


def _show_prediction(result: Prediction) -> None:
    _show(f"{result.name}-predictions", predicted.page(result), predicted.headline(result))


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    """What cannot be told must not turn a published model into a failed run, nor hide why a run has failed."""
    try:
        yield
    except Exception as error:
        print(f"the run's story could not be told to Prefect: {type(error).__name__}: {error}")


def _tell(outcome: Outcome) -> None:
    result = outcome.report()
    if result.outcome == "refused":
        refused_by = [gate.name for gate in result.gates if not gate.passed]
        payload = {"version": None, "sha256": None, "path": None, "run": result.run, "refused_by": refused_by}
        live.emit_model_event(Event.REFUSED, result.name, payload)
    _show(f"{result.name}-verdict", pages.verdict(result), pages.headline(result))
    if result.was_trained:
        _show(f"{result.name}-pictures", pages.pictures(outcome.pictures), "learning curve and test split")
    if result.version is not None:
        card = artifact_paths.version(result.name, result.version) / artifact_paths.CARD
        _show(f"{result.name}-card", pages.card(card), f"model card of version {result.version}")
    _mark(pages.in_words(result), f"model:{result.name}", f"verdict:{result.outcome}")


def _mark(words: tuple[str, str] | None, *tags: str) -> None:
    """Let this run's name and its first tag say in ``words`` what it came to; other tags are for the UI's filters.

    A retry's verdict takes the place of the first one's.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        known = {tag for tag in run.tags if not run_names.OF_VERDICT.match(tag)}
        known -= {tag for tag in known if tag.startswith("model:")}  # of the deployment, whose run may be another's
        name = run_names.with_verdict(run.name, words[0]) if words else run.name
        first = words[1:] if words else ()
        client.update_flow_run(flow_run.id, name=name, tags=[*first, *sorted(known | {*tags})])
