"""Deployments of the configured Prefect server: when each runs next, and a run of one now."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter, WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort
from prefect.states import Crashed
from prefect.utilities.collections import deep_merge
from pydantic import BaseModel, ValidationError

from flows.server import api
from tasks.errors import UsageError
from tasks.parameters import (
    EvaluateParameters,
    MaintainParameters,
    ModelName,
    PredictParameters,
    RetrainParameters,
    TuneParameters,
)

TAG = "gradmill"  # prefect.yaml gives it to every deployment, and so to their runs and these runs' events
UNSCHEDULED = "unscheduled"  # a tag of those that people or automations start
SKIPPED = "Skipped"  # the name of a state whose type is cancelled
OURS = {"all_": [TAG]}
SCHEDULER_SECONDS = 30.0
SAID_AFTER_SECONDS = 3.0
SEE_THE_FORM = "see gradmill trigger DEPLOYMENT --list-params"
FORMS: dict[str | None, type[BaseModel]] = {
    "flows.retrain.retrain": RetrainParameters,
    "flows.predict.predict": PredictParameters,
    "flows.evaluate.evaluate": EvaluateParameters,
    "flows.maintain.maintain": MaintainParameters,
    "flows.tune.tune": TuneParameters,
}


def ours(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """The deployments of ``prefect.yaml``, by name; a server may have others'."""
    only = DeploymentFilter.model_validate({"tags": OURS})
    return client.read_deployments(deployment_filter=only, sort=DeploymentSort.NAME_ASC)


def path(deployment: UUID) -> str:
    """Its place in the UI."""
    return f"/deployments/deployment/{deployment}"


def runs(
    client: SyncPrefectClient,
    *states: str,
    tagged: Sequence[str] = (),
    sort: FlowRunSort | None = None,
    **more: Any,
) -> list[FlowRun]:
    """The runs of our deployments that are in one of these states, with one of these tags if any are given.

    One that was skipped is none.
    """
    state = {"type": {"any_": states}, "name": {"not_any_": [SKIPPED]}}
    tags = OURS | ({"any_": list(tagged)} if tagged else {})
    wanted = FlowRunFilter.model_validate({"state": state, "tags": tags})
    return client.read_flow_runs(flow_run_filter=wanted, sort=sort, **more)


def why_idle(deployment: DeploymentResponse) -> str | None:
    """Why a deployment will start no run by itself; None where it will, or is not to."""
    if deployment.paused:
        return "paused"
    return None if _is_scheduled(deployment) or UNSCHEDULED in deployment.tags else "no active schedule"


def _is_scheduled(deployment: DeploymentResponse) -> bool:
    return any(each.active for each in deployment.schedules)


def idle(pool: str) -> list[tuple[str, str]]:
    """What will start no run by itself, and why: deployments, or all of them where their work pool is paused."""
    with api.client() as client:
        found = [(each.name, why) for each in ours(client) if (why := why_idle(each))]
        if client.read_work_pool(pool).is_paused:
            found.insert(0, (f"work pool {pool}", "paused, so no run begins"))
    return found


def next_runs() -> list[tuple[datetime, str]]:
    """When each deployment runs next (UTC), soonest first; waits a little for a new server to plan them."""
    started = time.monotonic()
    said = False
    while True:
        with api.client() as client:
            deployments = {each.id: each.name for each in ours(client) if _is_scheduled(each) and not each.paused}
            planned = runs(client, "SCHEDULED", sort=FlowRunSort.EXPECTED_START_TIME_ASC)
        waited = time.monotonic() - started
        if deployments.keys() <= {run.deployment_id for run in planned} or waited > SCHEDULER_SECONDS:
            break
        if not said and waited > SAID_AFTER_SECONDS:
            said = True
            print("waiting for the server to plan the next runs", file=sys.stderr)
        time.sleep(0.5)
    soonest: dict[str, datetime] = {}
    for run in planned:
        if run.deployment_id in deployments and run.expected_start_time is not None:
            soonest.setdefault(deployments[run.deployment_id], run.expected_start_time)
    return sorted((moment, name) for name, moment in soonest.items())


def give_up_what_never_began(pool: str) -> None:
    """Mark the runs of a work pool as crashed that a worker was about to start when it ended: none frees its place.

    For a pool that no worker looks at yet. Such a run sends no heartbeats, so the automation does not see it either.
    """
    of_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool]))
    with api.client() as client:
        for run in runs(client, "PENDING", work_pool_filter=of_pool):
            client.set_flow_run_state(run.id, Crashed(message="its worker ended before it began"))
            print(f"crashed     {run.name}: its worker ended before it began", file=sys.stderr)


def trigger(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a run of a deployment now, with ``parameters`` in place of some of its own.

    Raises:
        UsageError: there is no such deployment, or it does not take these parameters.
    """
    with api.client() as client:
        known = named(client, deployment)
        wanted = deep_merge((known.parameters or {}).get("parameters", {}), parameters)
        require_accepted(deployment, FORMS.get(known.entrypoint), wanted)
        try:
            return client.create_flow_run_from_deployment(known.id, parameters={"parameters": wanted})
        except HTTPStatusError as error:
            if error.response.status_code not in (codes.CONFLICT, codes.UNPROCESSABLE_ENTITY):
                raise
            raise UsageError(
                f"the server refuses these parameters: {error.response.json().get('detail', error)}",
                "values that the form of the deployment would take",
                SEE_THE_FORM,
            ) from error


def named(client: SyncPrefectClient, deployment: str) -> DeploymentResponse:
    """The deployment of this name.

    Raises:
        UsageError: there is none of ours.
    """
    known = {each.name: each for each in ours(client)}
    if deployment not in known:
        names = ", ".join(sorted(known)) or "none yet"
        raise UsageError(f"no deployment {deployment}", f"one of: {names}", "run gradmill up")
    return known[deployment]


def require_accepted(deployment: str, form: type[BaseModel] | None, parameters: dict[str, Any]) -> None:
    """Refuse also what the server's schema cannot: values that do not go together.

    Raises:
        UsageError: the form does not take these parameters.
    """
    try:
        if form is not None:
            form.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in list(ModelName))  # the kind
        raise UsageError(
            f"{deployment} refuses {where or 'these parameters'}: {first['input']!r}", first["msg"], SEE_THE_FORM
        ) from error
