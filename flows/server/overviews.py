"""``<name>-overview`` in the Prefect UI: written after each run and change, beside ``gradmill up`` by that alone."""

import sys
import time
from asyncio import CancelledError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from flows.pages.overview import draw_overview
from flows.server import api, artifacts, connection, deployments, service
from tasks.errors import DataError, EnvironmentProblem, GradmillError, without_credentials
from tasks.machine.words import printable
from tasks.store import artifact_paths, locks, reading, state
from tasks.store.page import markdown_line, render_markdown
from tasks.store.run_folder import read_folder
from tasks.store.state import NameState

AGAIN_SECONDS = 15.0  # between two questions to the server, and until a page that could not be written is tried again
WRITING_SECONDS = 20.0  # that a server has for a page: on a loaded machine five would never be enough
LINKED = ("verdict", "pictures", "data", "card", "predictions", "judgement", "tuning")
QUIET = timedelta(minutes=1)  # in which a run that has let go of its folder may still write its pages
AGO = timedelta(minutes=10)  # the clocks of server and runs differ
DIED = ("CRASHED", "CANCELLED")  # whoever says so: a worker, the automation for lost heartbeats, a person


def key(name: str) -> str:
    """What the Prefect UI finds the page under."""
    return f"{name}-{artifacts.OVERVIEW}"


def list_names() -> Iterator[str]:
    """The names that have a page."""
    return filter(reading.versions, reading.names())


def publish(*names: str) -> None:
    """Let the pages of names be written anew, after a run or a change; without a server that stays nothing is done.

    Beside ``gradmill up`` that writes them: nobody waits for a picture, and no newer page is replaced by an older one.
    Nothing that goes wrong is a fault of whoever calls: it is said.
    """
    with _report_failures(*names), service.in_use():
        if _is_seen() and artifact_paths.pages_asked().is_dir() and service.is_configured():
            for name in names:
                (artifact_paths.pages_asked() / name).touch()
        else:
            write(*names)


@contextmanager
def published(name: str) -> Iterator[None]:
    """Write the page anew when the block has ended, whether it has failed (by its time limit, too) or not."""
    try:
        yield
    except (Exception, CancelledError):
        publish(name)
        raise
    publish(name)


def write(*names: str) -> list[str]:
    """Write the pages of names anew here and now; return the names of which that has failed."""
    with _report_failures(*names) as failed:
        if names and _is_seen():
            found = state.read(names[0] if len(names) == 1 else None).names
            for name in names:
                if name in found and found[name].is_known:  # one that is misspelt would keep its page for good
                    with _report_failures(name) as missed:
                        _write(found[name])
                    failed += missed
    return failed


def write_of_runs(runs: Iterable[UUID]) -> None:
    """Write the pages of the names that these runs are of; runs of other artifacts are left alone."""
    names = set()
    for folder in (folder for run in runs for folder in _find_folders(run)):
        with suppress(DataError, OSError):
            names.add(read_folder(folder)[0])
    publish(*sorted(filter(None, names)))


class Watch:
    """What ``gradmill up`` does for others: it writes pages that are asked for, and what runs that died cannot.

    A run that was killed or cancelled has not written its name's page. One of a command sends no heartbeats either: it
    is marked as crashed where it ``marks``, which only a process on the host of the runs may do.
    """

    def __init__(self, marks: bool = True) -> None:
        self._marks, self._begun, self._next, self._next_page = marks, datetime.now(UTC), 0.0, 0.0
        self._known = set[UUID]()  # ids of states: a retry may die, too

    def look(self) -> None:
        """Do what it is time for; whatever goes wrong is said, and tried again later."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + AGAIN_SECONDS
            try:
                self._follow_runs()
            except EnvironmentProblem:  # the server does not answer now
                pass
            except Exception as error:
                reason = without_credentials(f"{type(error).__name__}: {error}")
                print(f"runs that have ended are not known: {reason}", file=sys.stderr)
        if time.monotonic() >= self._next_page:
            asked = {each.name: each for each in sorted(artifact_paths.pages_asked().glob("*"))}
            with _report_failures(*asked) as failed:
                for each in asked.values():
                    each.unlink()  # before it is read how things are: what changes then is asked for anew
                failed += write(*asked)
            for name in failed:
                asked[name].touch()
                self._next_page = time.monotonic() + AGAIN_SECONDS

    def _follow_runs(self) -> None:
        if not PREFECT_API_URL.value():
            return
        since = {"after_": datetime.now(UTC) - AGO}
        with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: connection.TELLING_SECONDS}), api.client() as client:
            if self._marks:
                _mark_dead_commands(client)
            ended = _read_runs(client, ["COMPLETED", "FAILED", *DIED], end_time=since)
        new = {run.state_id: run for run in ended if run.state_id and run.state_id not in self._known}
        write_of_runs(run.id for run in new.values() if run.state_type and run.state_type.value in DIED)
        self._known |= new.keys()
        for run in new.values():
            if run.end_time and run.end_time > self._begun and not run.parent_task_run_id:
                print(printable(f"ended       {run.name}: {(run.state_name or 'unknown').lower()}"), file=sys.stderr)


def _mark_dead_commands(client: SyncPrefectClient) -> None:
    """Of a run that no deployment started the lock on its folder tells, where that is here."""
    for run in _read_runs(client, ["RUNNING"], deployment_id={"is_null_": True}):
        if run.state and _is_long_ago(run.state.timestamp) and any(map(_is_left, _find_folders(run.id))):
            client.set_flow_run_state(run.id, Crashed(message="the run's process is gone"), force=True)


def _is_left(folder: Path) -> bool:
    noted = datetime.fromtimestamp((folder / artifact_paths.RUN).stat().st_mtime, UTC)
    return _is_long_ago(noted) and not locks.is_held(artifact_paths.lock(folder))


def _is_long_ago(moment: datetime) -> bool:
    return moment < datetime.now(UTC) - QUIET


def _find_folders(run: UUID) -> list[Path]:
    return [notes.parent for notes in artifact_paths.runs().glob(f"*-{str(run)[:8]}/{artifact_paths.RUN}")]


def _read_runs(client: SyncPrefectClient, states: list[str], **more: Any) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": states}}, **more})
    )


def _is_seen() -> bool:
    return bool(PREFECT_API_URL.value()) and not connection.is_temporary()


@contextmanager
def _report_failures(*names: str) -> Iterator[list[str]]:
    """Say what goes wrong in the block on stderr; yields the names of which something did."""
    failed: list[str] = []
    try:
        yield failed
    except Exception as error:
        failed += names
        reason = error.found if isinstance(error, GradmillError) else f"{type(error).__name__}: {error}"
        pages = ", ".join(map(key, names))
        print(f"{pages} could not be written: {without_credentials(reason)}", file=sys.stderr)


def _write(facts: NameState) -> None:
    page = draw_overview(facts)  # before the talk, whose seconds are counted
    with _connect(WRITING_SECONDS) as client:
        page = page._replace(links=tuple(_list_links(client, facts.name)))
        artifacts.rewrite(client, key(facts.name), render_markdown(page), markdown_line(page.headline))


@contextmanager
def _connect(seconds: float) -> Iterator[SyncPrefectClient]:
    """A client as runs have it; elsewhere nobody is kept waiting for longer than ``seconds``."""
    if flow_run.id:
        with get_client(sync_client=True) as client:
            yield client
        return
    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: seconds}), api.client() as client:
        yield client


def _list_links(client: SyncPrefectClient, name: str) -> Iterator[tuple[str, str]]:
    """The newest of the other pages of a name, its deployments, and where the UI has them.

    When these run, and whether they are paused, is set there, too: only their own pages are right about it.
    """
    for page, artifact in artifacts.newest(client, [f"{name}-{kind}" for kind in LINKED]).items():
        yield page.removeprefix(f"{name}-"), artifacts.path(artifact)
    for each in deployments.ours(client):
        if f"model:{name}" in each.tags:
            yield f"deployment {each.name}", deployments.path(each.id)
