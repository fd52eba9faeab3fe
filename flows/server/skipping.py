"""Leave out a deployment's next run: cancelled before it begins, it is planned no second time."""

import time
from datetime import datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort

from flows.server import api, deployments
from tasks.errors import EnvironmentProblem, UsageError


def skip(deployment: str) -> tuple[datetime, datetime | None]:
    """Cancel the next scheduled run; return when it was to be, and when the next is then (UTC).

    Raises:
        UsageError: none is to come.
        EnvironmentProblem: it has begun just now.
    """
    with api.client() as client:
        found = [each for each in deployments.ours(client) if each.name == deployment]
        if not found or found[0].paused or not deployments.is_scheduled(found[0]):
            reason = (deployments.why_idle(found[0]) or "no active schedule") if found else "not known to the server"
            raise UsageError(f"no run of {deployment} is to come: {reason}", "a schedule", "see gradmill status")
        until = time.monotonic() + deployments.SCHEDULER_SECONDS
        while not (planned := _planned(client, deployment)) and time.monotonic() < until:
            time.sleep(0.5)  # the server plans anew after a change
        if not planned:
            raise UsageError(f"no run of {deployment} is planned", "a schedule", "see gradmill status")
        (due, run), *later = planned
        state = State(
            type=StateType.CANCELLED, name=deployments.SKIPPED, message=f"left out by gradmill skip {deployment}"
        )
        if client.set_flow_run_state(run.id, state).status != SetStateStatus.ACCEPT:
            raise EnvironmentProblem(f"the run {run.name} has begun", "one that waits", "cancel it in the UI")
        return due, later[0][0] if later else None


def _planned(client: SyncPrefectClient, deployment: str) -> list[tuple[datetime, FlowRun]]:
    only = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    runs = deployments.runs(client, "SCHEDULED", sort=FlowRunSort.EXPECTED_START_TIME_ASC, deployment_filter=only)
    return [(run.expected_start_time, run) for run in runs if run.auto_scheduled and run.expected_start_time]
