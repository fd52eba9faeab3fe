"""What the Prefect server learns about a stage: a progress artifact, a picture that is redrawn, events about models.

Automations, and services that follow a model, wait for these events (docs/on-duty.md, "Events").
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import SettingsContext, TaskRunContext, get_settings_context
from prefect.events import emit_event
from prefect.runtime import flow_run
from rich.progress import ProgressColumn

from tasks.data.report import Finding
from tasks.machine import progress
from tasks.machine.run_messages import Event, print_message
from tasks.store import identity
from tasks.store.page_rendering import make_data_uri

UPDATE_SECONDS = 5.0  # an update is a request to the server, and often a picture has to be drawn, which takes 0.3 s
PAUSE_SECONDS = 30.0  # after an update that failed
RETRIES = 2  # about six seconds
FLOW = "gradmill.flow"  # a label: the flow that the event comes from, so that a retrain need not start a retrain
STORE = "gradmill.store"  # a label: the id of the store that has the model


def in_a_run() -> bool:
    """Whether this code runs inside a Prefect task; a stage's function called directly has nobody to report to."""
    return TaskRunContext.get() is not None


def model_resource(name: str) -> str:
    """The name by which Prefect knows the model ``name``; automations match it."""
    return f"gradmill.model.{name}"


def emit_model_event(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model ``name``; its payload names the model too."""
    resource = {
        "prefect.resource.id": model_resource(name),
        "prefect.resource.name": name,
        FLOW: flow_run.flow_name or "none",
        STORE: identity.find_id() or "none",
    }
    emit_event(event=event, resource=resource, payload={"name": name} | payload)


def emit_from_task(event: str, name: str, payload: dict[str, Any]) -> None:
    """Send an event about the model ``name``, unless a stage's function was called plainly."""
    if in_a_run():
        emit_model_event(event, name, payload)


def emit_changed_data(name: str, run: Path, changes: Sequence[Finding], is_stopped: bool) -> None:
    """Send an event if findings say that the data differ from the champion's; it says whether this stops the run."""
    if changes:
        findings = [each.model_dump(include={"severity", "rule", "column", "found"}) for each in changes]
        message = "; ".join(each.sentence for each in changes)
        facts = {"message": message, "run": str(run), "stopped": is_stopped, "findings": findings}
        emit_from_task(Event.DATA, name, facts)


def embed_picture(path: Path) -> str:
    """A PNG embedded in Markdown, since the UI cannot show local files."""
    return f"![{path.stem}]({make_data_uri(path.read_bytes())})"


@contextmanager
def _ask_briefly(retries: int) -> Iterator[None]:
    """Keep requests to the server brief: showing the work must neither delay nor end it.

    Only requests that are made once or last are retried (SQLite answers 503 at times while the server writes).
    """
    context = get_settings_context()
    known = context.settings  # temporary_settings would make and check every one of these anew: a tenth of a second
    client = known.client.model_copy(update={"max_retries": retries})
    brief = {"client": client, "api": known.api.model_copy(update={"request_timeout": 5.0})}
    try:
        with SettingsContext(profile=context.profile, settings=known.model_copy(update=brief)):
            yield
    except Exception as error:
        print_message(f"progress could not be reported to Prefect: {type(error).__name__}")


class Progress:
    """A progress artifact of this task, updated at most once in 5 seconds and at the end."""

    def __init__(self, total: float, description: str, done: float) -> None:
        self._total = total
        self._artifact: UUID | None = None
        self._next = time.monotonic() + UPDATE_SECONDS
        if in_a_run():
            with _ask_briefly(RETRIES):
                self._artifact = cast("UUID", create_progress_artifact(100 * done / total, description=description))

    def update(self, done: float) -> bool:
        """Show how far the work has come, if an update is due; returns whether it was."""
        due = self._artifact is not None and time.monotonic() > self._next
        if due:
            self.show(done, retries=0)
        return due

    def show(self, done: float, retries: int = RETRIES) -> None:
        """Update the artifact now."""
        self._next = time.monotonic() + PAUSE_SECONDS
        if self._artifact is not None:
            with _ask_briefly(retries):
                update_progress_artifact(self._artifact, 100 * done / self._total)
                self._next = time.monotonic() + UPDATE_SECONDS


@contextmanager
def count_progress(
    task: str, total: int, what: str, done: int, *columns: ProgressColumn
) -> Iterator[Callable[..., bool]]:
    """A bar at the terminal and an artifact in the Prefect UI; yields a function that counts one more item, or more.

    The function returns whether the artifact was updated.
    """
    artifact = Progress(total, what, done)
    with progress.make_bar(*columns) as bar:
        task_id = bar.add_task(task, total=total, completed=done)

        def advance(more: int = 1) -> bool:
            bar.advance(task_id, more)
            return artifact.update(bar.tasks[0].completed)

        yield advance
    artifact.show(bar.tasks[0].completed)


class LivePage:
    """A markdown artifact of this task, replaced by every ``show``."""

    def __init__(self, key: str, description: str) -> None:
        self._key, self._description = key, description
        self._artifact: UUID | None = None

    def show(self, markdown: str, retries: int = RETRIES) -> None:
        """Show this text, where the code runs inside a Prefect task."""
        if not in_a_run():
            return
        with _ask_briefly(retries):
            if self._artifact is None:
                created = create_markdown_artifact(markdown, key=self._key, description=self._description)
                self._artifact = cast("UUID", created)
            else:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._artifact, ArtifactUpdate(data=markdown))
