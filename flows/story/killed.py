"""What a run that was killed or cancelled cannot do itself: tell the overview and, begun by a command, the server."""

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from flows.server import api, connection
from flows.story import overview
from tasks.errors import DataError, EnvironmentProblem, without_credentials
from tasks.machine.words import printable
from tasks.store import artifact_paths, locks
from tasks.store.runs import read_folder

EVERY_SECONDS = 15.0
QUIET = timedelta(minutes=1)  # in which a run that has let go of its folder may still tell its story
AGO = timedelta(minutes=10)  # the clocks of server and runs differ
DIED = ("CRASHED", "CANCELLED")  # whoever says so: a worker, the automation for lost heartbeats, a person


class Watch:
    """Names runs of the configured server that have ended, and rewrites the overviews of those that died.

    Where it ``marks``, runs of commands on this host are marked as crashed whose folder nobody holds any more: locks
    may not reach from one host to another.
    """

    def __init__(self, marks: bool = True) -> None:
        self._marks = marks
        self._next, self._told = 0.0, set[UUID]()  # ids of states: a retry may die, too
        self._begun = datetime.now(UTC)

    def look(self) -> None:
        """Do so if it is time; whatever goes wrong must not end who looks, and is tried again later."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_SECONDS
        try:
            new = {run.state_id: run for run in _ended(self._marks) if run.state_id and run.state_id not in self._told}
            rewrite(run.id for run in new.values() if run.state_type and run.state_type.value in DIED)
            self._told |= new.keys()
            self._name(new.values())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            print(f"runs that have died could not be told of: {without_credentials(reason)}", file=sys.stderr)

    def _name(self, runs: Iterable[FlowRun]) -> None:
        """A line for each that has ended since: its name says what it came to."""
        for run in runs:
            if run.end_time and run.end_time > self._begun and not run.parent_task_run_id:
                print(printable(f"ended       {run.name}: {(run.state_name or 'unknown').lower()}"), file=sys.stderr)


def rewrite(runs: Iterable[UUID]) -> None:
    """Write the overviews anew of the names that these runs are of; runs of other artifacts are left alone."""
    names = set()
    for folder in (folder for run in runs for folder in _folders(run)):
        with suppress(DataError, OSError):
            names.add(read_folder(folder)[0])
    overview.publish(*sorted(filter(None, names)))


def _folders(run: UUID) -> list[Path]:
    return [notes.parent for notes in artifact_paths.runs().glob(f"*-{str(run)[:8]}/{artifact_paths.RUN}")]


def _ended(marks: bool) -> list[FlowRun]:
    if not PREFECT_API_URL.value():
        return []
    try:
        with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: connection.TELLING_SECONDS}), api.client() as client:
            if marks:
                _mark(client)
            return _runs(client, ["COMPLETED", "FAILED", *DIED], end_time={"after_": datetime.now(UTC) - AGO})
    except EnvironmentProblem:
        return []


def _mark(client: SyncPrefectClient) -> None:
    """Runs of commands send no heartbeats: of these the lock on their folder tells, if it is here."""
    for run in _runs(client, ["RUNNING"], deployment_id={"is_null_": True}):
        begun = run.state.timestamp if run.state else None
        if begun and _is_long_ago(begun) and any(map(_is_left, _folders(run.id))):
            client.set_flow_run_state(run.id, Crashed(message="the run's process is gone"), force=True)


def _is_left(folder: Path) -> bool:
    noted = datetime.fromtimestamp((folder / artifact_paths.RUN).stat().st_mtime, UTC)
    return _is_long_ago(noted) and not locks.is_held(artifact_paths.lock(folder))


def _is_long_ago(moment: datetime) -> bool:
    return moment < datetime.now(UTC) - QUIET


def _runs(client: SyncPrefectClient, states: list[str], **more: Any) -> list[FlowRun]:
    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": states}}, **more})
    return client.read_flow_runs(flow_run_filter=wanted)
