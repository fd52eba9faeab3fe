"""The output of a finished run in the Prefect UI: pages, words in its name and tags, events for automations."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.pages import run_names, run_pages
from flows.pages.report import RetrainReport, attach_report, describe_retrain
from flows.tags import DRIFT_TAG, MODEL_TAG, VERDICT_TAG
from tasks.judging.evaluation_result import EvaluationResult
from tasks.machine.run_messages import Event, print_message
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.records import Prediction
from tasks.stage import live_progress
from tasks.store import artifact_paths, atomic, folders, predictions, version_page
from tasks.store.page_rendering import Page, PagePicture, Section, markdown_line, render_markdown
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder, RunRecord
from tasks.store.tuning_result import SearchResult

SEARCH_PICTURES = {
    artifact_paths.TUNING_HISTORY: "History",
    artifact_paths.TUNING_IMPORTANCES: "What mattered",
    artifact_paths.TUNING_SLICES: "Each setting by itself",
    artifact_paths.TUNING_PARALLEL: "All settings together",
}


@contextmanager
def retrain_shown(run: RunFolder, parameters: RetrainParameters) -> Iterator[None]:
    """Show the result of a retrain when it ends, whatever became of the candidate; other failures show nothing."""
    try:
        with attach_report(run, parameters):
            yield
    finally:
        with _never_in_the_way():
            if (record := run.read()).is_decided:
                _show_retrain(record, describe_retrain(run, parameters))
        with _never_in_the_way():
            predicted = run.read().find_result("predict", Prediction)
            if predicted and not _is_shown(predicted):
                _show_prediction(predicted)
        warn_of_full_disk()


@contextmanager
def failed_prediction_shown(parameters: PredictParameters) -> Iterator[None]:
    """If the prediction in the block fails, show a page with the reason and what to do."""
    try:
        yield
    except Exception as error:
        with _never_in_the_way():
            page = run_pages.failed_prediction_page(parameters.name, error, parameters.input)
            _show(f"{parameters.name}-predictions", page, "nothing was predicted")
        raise


def show_prediction(result: Prediction) -> None:
    """Show the result of a batch prediction."""
    with _never_in_the_way():
        _show_prediction(result)
        _mark(run_pages.name_prediction(result), MODEL_TAG + result.name, DRIFT_TAG + result.drift.verdict)
    warn_of_full_disk()


def show_evaluation(result: EvaluationResult) -> None:
    """Show the evaluation of a kept version on labelled rows."""
    with _never_in_the_way():
        _show(f"{result.name}-judgement", run_pages.evaluation_page(result), "a kept version on labelled rows")
        verdict = VERDICT_TAG + ("worse" if result.worse else "as published")
        _mark(run_pages.name_evaluation(result), MODEL_TAG + result.name, verdict)
    warn_of_full_disk()


def show_search(run: RunFolder, searched: SearchResult) -> None:
    """Write the page of a search into the run's folder, and show it."""
    with _never_in_the_way():
        paths = [file.path for file in searched.pictures]
        pictures = [PagePicture(SEARCH_PICTURES[path.name], path.read_bytes(), path.name) for path in paths]
        page = run_pages.search_page(run.name, searched, pictures)
        atomic.write_bytes(run.file(artifact_paths.TUNING_PAGE), render_markdown(page, embed=False).encode())
        _show(f"{run.name}-tuning", page, "a search for settings")
        _mark(None, MODEL_TAG + run.name)
    warn_of_full_disk()


def warn_of_full_disk() -> None:
    """Warn in the log, and by an event for the alerts, if the disk of artifacts/ is nearly full."""
    with _never_in_the_way():
        left, host = folders.read_disk_space(), socket.gethostname()
        if left.is_little:
            print_message(message := f"the disk of {artifact_paths.root()} on {host} is nearly full: {left}")
            resource = {"prefect.resource.id": f"gradmill.disk.{host}", "prefect.resource.name": host}
            emit_event(Event.DISK, resource, payload={"message": message, "free": left.free, "total": left.total})


def _show(key: str, page: Page, about: str) -> None:
    create_markdown_artifact(render_markdown(page), key=key, description=markdown_line(about))


def _show_prediction(result: Prediction) -> None:
    page = run_pages.prediction_page(result)
    _show(f"{result.name}-predictions", page, page.title)


def _is_shown(result: Prediction) -> bool:
    """Whether an earlier run made these predictions, and showed them: they existed before this run began."""
    job, context = predictions.find(result.path), FlowRunContext.get()
    return bool(job and job.finished_at and context and datetime.fromisoformat(job.finished_at) < context.start_time)


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    """Report errors of showing: they must not fail the run of a published model, or hide why a run has failed."""
    try:
        yield
    except Exception as error:
        print(f"the run's result could not be shown in Prefect: {type(error).__name__}: {error}")


def _show_retrain(record: RunRecord, result: RetrainReport) -> None:
    """Show the pages of a retrain; pictures and card only of a candidate: the server has those of unchanged models."""
    if result.outcome == "refused":
        payload = {"version": None, "sha256": None, "path": None, "run": result.run, "refused_by": result.refused_by}
        live_progress.emit_model_event(Event.REFUSED, result.name, payload)
    _show(f"{result.name}-verdict", run_pages.retrain_page(result), result.describe())
    if result.outcome != "unchanged":
        trained, evaluated = record.stages.get("train", {}), record.stages.get("evaluate", {})
        drawn = map(FileRef.model_validate, (*filter(None, [trained.get("picture")]), *evaluated.get("pictures", ())))
        contents = {file.path.name: file.path.read_bytes() for file in drawn if file.path.is_file()}
        pictures = Page(f"{result.name}: pictures", "", (Section("", version_page.find_pictures(contents)),))
        _show(f"{result.name}-pictures", pictures, "learning curve and test split")
    if result.outcome == "published" and result.version:
        card = version_page.read_version(result.name, result.version)
        _show(f"{result.name}-card", card, f"model card of version {result.version}")
    _mark(run_pages.name_retrain(result), MODEL_TAG + result.name, VERDICT_TAG + result.outcome)


def _mark(words: str | None, *tags: str) -> None:
    """Add ``words`` on the outcome to this run's name; ``tags`` serve as filters in the UI.

    The verdict of a retry replaces the first one.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        known = {tag for tag in run.tags if not tag.startswith(run_names.REPLACED_TAGS)}
        name = run_names.with_verdict(run.name, words) if words else run.name
        client.update_flow_run(flow_run.id, name=name, tags=sorted(known | {*tags}))
