"""A run that somebody waits for: until it ends, and by which exit code it would have ended as a command."""

import re
import sys
import time
from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.utilities.urls import url_for

from flows.server import api
from flows.server.status import LATE, QUEUED
from tasks.errors import EnvironmentProblem, GateFailed, GradmillError, without_credentials
from tasks.stage.live import REFUSED_STATE

ASK_SECONDS = 2.0
ERROR = re.compile(r"\b(\w+): ")


def find_page(run: FlowRun) -> str | None:
    """The address of its page in Prefect's UI."""
    address = url_for("flow-run", obj_id=run.id)
    return address and without_credentials(address)


def wait_for_end(run: UUID, begun: Callable[[str], None]) -> FlowRun:
    """The run once it has ended; calls ``begun`` with each stage, and says once where no worker takes it.

    Raises:
        EnvironmentProblem: the server no longer answers.
    """
    late, said, told = time.monotonic() + LATE.total_seconds(), False, set[str]()
    while True:
        with api.client() as client:
            found = client.read_flow_run(run)
            for stage in _stages(client, run):
                if stage not in told:
                    told.add(stage)
                    begun(stage)
        if found.state and found.state.is_final():
            return found
        is_left = found.state and found.state.is_scheduled() and found.state_name != QUEUED
        if is_left and not said and time.monotonic() > late:
            said = True
            print("no worker has taken it yet; gradmill status shows workers: still waiting", file=sys.stderr)
        time.sleep(ASK_SECONDS)


def _stages(client: SyncPrefectClient, run: UUID) -> list[str]:
    """Those that have begun, in order; the shards of a prediction and the like have blanks in their names."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    found = client.read_task_runs(flow_run_filter=of_run, sort=TaskRunSort.EXPECTED_START_TIME_ASC)
    return [each.name for each in found if each.start_time and " " not in each.name]


def find_exit_code(run: FlowRun) -> int:
    """By the error that its state names: what the same run as a command would have exited with."""
    state = run.state
    if state is None or state.is_completed():
        return 0
    if state.name == REFUSED_STATE:
        return GateFailed.exit_code
    codes = {each.__name__: each.exit_code for each in _kinds(GradmillError)}
    named = (codes[name] for name in ERROR.findall(state.message or "") if name in codes)
    return next(named, EnvironmentProblem.exit_code)


def _kinds(error: type[GradmillError]) -> list[type[GradmillError]]:
    return [error, *(each for inner in error.__subclasses__() for each in _kinds(inner))]
