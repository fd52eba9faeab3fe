"""Deployments of the configured Prefect server: when each runs next, and a run of one now."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
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
from tasks.machine.words import nearest
from tasks.parameters import (
    EvaluateParameters,
    MaintainParameters,
    ModelName,
    PredictParameters,
    RetrainParameters,
    TuneParameters,
)
from tasks.parameters.form import expected

TAG = "gradmill"  # prefect.yaml gives it to every deployment, and so to their runs and these runs' events
UNSCHEDULED = "unscheduled"  # a tag of those that people or automations start
SKIPPED = "Skipped"  # the name of a state whose type is cancelled
OURS = {"all_": [TAG]}
SCHEDULER_SECONDS = 30.0
SAID_AFTER_SECONDS = 3.0
SEE_THE_FORM = "see gradmill trigger {} --list-params"
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
    return None if is_scheduled(deployment) or UNSCHEDULED in deployment.tags else "no active schedule"


def is_scheduled(deployment: DeploymentResponse) -> bool:
    """Whether any of its schedules is on."""
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
            deployments = {each.id: each.name for each in ours(client) if is_scheduled(each) and not each.paused}
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
        own = (known.parameters or {}).get("parameters", {})
        wanted = accepted(deployment, FORMS.get(known.entrypoint), own, parameters)
        try:
            return client.create_flow_run_from_deployment(known.id, parameters={"parameters": wanted})
        except HTTPStatusError as error:
            if error.response.status_code not in (codes.CONFLICT, codes.UNPROCESSABLE_ENTITY):
                raise
            raise UsageError(
                f"the server refuses these parameters: {error.response.json().get('detail', error)}",
                "values that the form of the deployment would take",
                SEE_THE_FORM.format(deployment),
            ) from error


def named(client: SyncPrefectClient, deployment: str) -> DeploymentResponse:
    """The deployment of this name.

    Raises:
        UsageError: there is none of ours.
    """
    known = {each.name: each for each in ours(client)}
    if deployment not in known:
        names = ", ".join(sorted(known)) or "none yet"
        to_do = nearest(deployment, known, "name one of these" if known else "run gradmill up")
        raise UsageError(f"no deployment {deployment}", f"one of: {names}", to_do)
    return known[deployment]


def accepted(
    deployment: str, form: type[BaseModel] | None, own: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """A deployment's ``own`` parameters with those ``given``; refuses what the server's schema would take.

    Raises:
        UsageError: values that do not go together, or places that a worker would look for in another folder.
    """
    data = given.get("data")
    source = {"data.source": data.get("source")} if isinstance(data, dict) else {"data": data}
    for name, place in ({each: given.get(each) for each in ("input", "output")} | source).items():
        if isinstance(place, str) and "://" not in place and not Path(place).is_absolute():
            raise UsageError(f"{name}={place}", "an absolute path, or a URL", "name it as the worker finds it")
    search = given.get("search")
    if isinstance(search, dict) and isinstance(search.get("space"), str):  # as it is typed for gradmill tune
        given = given | {"search": search | {"space": search["space"].split(",")}}
    wanted: dict[str, Any] = deep_merge(own, given)
    try:
        if form is not None:
            form.model_validate(wanted)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in list(ModelName))  # the kind
        value = "" if isinstance(first["input"], dict) else f": {first['input']!r}"  # all of them may hold a secret
        found = f"{deployment} refuses {where or 'these parameters'}{value}"
        raise UsageError(found, expected(error), SEE_THE_FORM.format(deployment)) from error
    return wanted
