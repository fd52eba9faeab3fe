"""Our deployments and their runs on a Prefect server: parameters, schedules, starting and skipping runs."""

import asyncio
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse, SetStateStatus
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort, TaskRunSort
from prefect.server.schemas.schedules import SCHEDULE_TYPES
from prefect.utilities.callables import parameter_schema
from prefect.utilities.collections import deep_merge
from prefect.utilities.urls import url_for
from pydantic import BaseModel, TypeAdapter, ValidationError

from flows.server import api
from flows.tags import QUEUED, REFUSED, SKIPPED, TAG
from tasks.errors import EnvironmentProblem, GateFailed, GradmillError, UsageError, without_credentials
from tasks.machine.words import suggest_spelling
from tasks.parameters import FLOWS, LearningParameters, ModelName, narrow_form
from tasks.parameters.addresses import SQLITE
from tasks.parameters.form import ParameterModel, as_usage_error

OURS = {"all_": [TAG]}
LATE = timedelta(minutes=1)  # a worker looks for runs every few seconds
ASK_SECONDS = 2.0
SEE_THE_FORM = "see gradmill trigger {} --list-params"
FORMS: dict[str | None, type[ParameterModel]] = {f"flows.{flow}.{flow}": form for flow, form in FLOWS.items()}
HORIZON = timedelta(days=5 * 365)  # in which a schedule must have a date
FROM = datetime(2026, 1, 1, tzinfo=UTC)  # of the days in which a schedule's longest interval is searched
TIMING: TypeAdapter[Any] = TypeAdapter(SCHEDULE_TYPES)
ERROR = re.compile(r"\b(\w+): ")


# The parameters of flows


def find_form(entrypoint: str | None, given: dict[str, Any]) -> type[ParameterModel] | None:
    """The form of a deployment's flow, narrowed to the ``given`` model and data; None for flows of others."""
    form = FORMS.get(entrypoint)
    return narrow_form(form, given) if form and issubclass(form, LearningParameters) else form


def describe_form(form: type[BaseModel]) -> dict[str, Any]:
    """The schema of Prefect's form for our flows, which take one ``form``, without importing them (and torch)."""

    def flow(parameters: Any) -> None: ...

    flow.__annotations__["parameters"] = form
    flow.__defaults__ = (form(),)
    return parameter_schema(flow).model_dump(exclude_unset=True)


def own_parameters(deployment: DeploymentResponse) -> dict[str, Any]:
    """The value, as set on the server, of the one argument that its flow takes."""
    return dict((deployment.parameters or {}).get("parameters", {}))


def merge_parameters(
    deployment: str, entrypoint: str | None, own: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Merge ``given`` into a deployment's ``own`` parameters; refuse values that only the server's schema would accept.

    Raises:
        UsageError: the form refuses a value, a worker would look for a path in another folder, or the deployment of
            a name would train another.
    """
    places = {name: given.get(name) for name in ("input", "output", "data")}
    if isinstance(data := places["data"], dict):
        places["data.source"] = data.get("source")
    for name, place in places.items():
        if not isinstance(place, str):
            continue
        path = place.removeprefix(SQLITE)
        if "://" not in path and not Path(path).is_absolute():
            raise UsageError(f"{name}={place}", "an absolute path, or a URL", "give the path as the worker sees it")
    search = given.get("search")
    if isinstance(search, dict) and isinstance(search.get("space"), str):  # in the notation of gradmill tune
        given = given | {"search": search | {"space": search["space"].split(",")}}
    wanted: dict[str, Any] = deep_merge(own, given)
    model, other = own.get("name"), wanted.get("name")
    if other != model and deployment == f"retrain-{model}":
        action = f"give another model a schedule of its own: gradmill schedule {other} --cron"
        raise UsageError(f"name={other} for {deployment}", f"name={model}", action)
    try:
        if form := FORMS.get(entrypoint):
            form.model_validate(wanted)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in list(ModelName))  # a union's member
        value = "" if isinstance(first["input"], dict) else f": {first['input']!r}"  # a document may hold secrets
        found = f"{deployment} refuses {where or 'these parameters'}{value}"
        raise as_usage_error(error, found, SEE_THE_FORM.format(deployment)) from error
    return wanted


# Times of runs


def require_time(cron: str, timezone: str) -> None:
    """Refuse an invalid time of a schedule.

    Raises:
        UsageError: the time is invalid.
    """
    try:
        if not _plan_dates(CronSchedule(cron=cron, timezone=timezone).model_dump_json()):
            raise ValueError("there is no such day")
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        found = f"--cron {cron!r} --timezone {timezone}: {reason.removeprefix('Value error, ')}"
        raise UsageError(
            found, "five fields, such as '0 3 * * *', and a zone, such as Europe/Berlin", "correct it"
        ) from error


def is_on_schedule(deployment: DeploymentResponse) -> bool:
    """Whether a schedule starts runs of it."""
    return bool(_list_active(deployment))


def longest_pause(deployment: DeploymentResponse) -> timedelta | None:
    """The longest time between two runs of the most frequent schedule; None if no schedule is on.

    It is always computed over the same days, which include weekends and ends of months.
    """
    planned = [_plan_dates(each, 1000, FROM) for each in _list_active(deployment)]
    pauses = [max(after - before for before, after in pairwise(each)) for each in planned if len(each) > 1]
    return min(pauses, default=None)


def _list_active(deployment: DeploymentResponse) -> list[str]:
    """The schedules that start runs, as JSON; a paused deployment has none."""
    active = [each.schedule for each in deployment.schedules if each.active and not deployment.paused]
    return [schedule.model_dump_json() for schedule in active]


@lru_cache(maxsize=256)  # since many names share a schedule
def _plan_dates(schedule: str, most: int = 1, start: datetime | None = None) -> list[datetime]:
    """When a schedule starts runs, as the server plans them; empty if it never does, as on 31 February."""
    planned = TIMING.validate_json(schedule)
    try:
        return list(asyncio.run(planned.get_dates(most, start, start and start + HORIZON)))
    except (ValueError, KeyError):
        return []


def next_runs() -> list[tuple[datetime, str]]:
    """When each deployment runs next (UTC), soonest first; the server is made to plan the runs of a new one."""
    with api.client() as client:
        first = [(run, each.name) for each in list_deployments(client) for run in _plan_runs(client, each)[:1]]
    return sorted((run.expected_start_time, name) for run, name in first if run.expected_start_time)


# Requests to a server


def list_deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """The deployments of ``prefect.yaml``, by name; a server may also have others."""
    only = DeploymentFilter.model_validate({"tags": OURS})
    return api.read_pages(client.read_deployments, deployment_filter=only, sort=DeploymentSort.NAME_ASC)


def find_deployment(client: SyncPrefectClient, deployment: str) -> DeploymentResponse:
    """The deployment of this name.

    Raises:
        UsageError: none of ours has this name.
    """
    known = {each.name: each for each in list_deployments(client)}
    if deployment not in known:
        names = ", ".join(sorted(known)) or "none yet"
        to_do = suggest_spelling(deployment, known, "name one of these" if known else "run gradmill up")
        raise UsageError(f"no deployment {deployment}", f"one of: {names}", to_do)
    return known[deployment]


def list_runs(
    client: SyncPrefectClient,
    *states: str,
    sort: FlowRunSort = FlowRunSort.EXPECTED_START_TIME_ASC,
    limit: int | None = None,
    **wanted: Any,
) -> list[FlowRun]:
    """List the runs in one of these states, of our deployments and without skipped ones unless ``wanted`` says other.

    Args:
        client: a client of the server.
        states: types of states.
        sort: the order of the first ones; all are listed by when they are due.
        limit: the maximum number, at most ``api.PAGE``; without it all are listed.
        wanted: further conditions, as in Prefect's filter.
    """
    state = {"type": {"any_": states}, "name": {"not_any_": [SKIPPED]}}
    only = FlowRunFilter.model_validate({"state": state, "tags": OURS} | wanted)
    if limit:
        return client.read_flow_runs(flow_run_filter=only, sort=sort, limit=limit)
    # Times are not unique, so that a run might be on two pages, and another on none.
    runs = api.read_pages(client.read_flow_runs, flow_run_filter=only, sort=FlowRunSort.ID_DESC)
    return sorted({run.id: run for run in runs}.values(), key=lambda run: run.expected_start_time or FROM)


def find_first_runs(
    client: SyncPrefectClient, known: Sequence[DeploymentResponse], *states: str, **wanted: Any
) -> dict[UUID | None, FlowRun]:
    """The first run of each of these deployments, by its id, under the conditions of ``list_runs``.

    Most are among the first of all runs, which take one request; only the others are requested one by one.
    """
    among, few = {"any_": [each.id for each in known]}, min(2 * len(known), api.PAGE)
    first = list_runs(client, *states, deployment_id=among, limit=few, **wanted) if known else []
    found = {run.deployment_id: run for run in reversed(first)}
    for each in known if len(first) == few else ():  # otherwise these were all
        if each.id not in found:
            for run in list_runs(client, *states, deployment_id={"any_": [each.id]}, limit=1, **wanted):
                found[each.id] = run
    return found


def trigger(client: SyncPrefectClient, deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Start a run of a deployment now; ``parameters`` replace some of its own.

    Raises:
        UsageError: there is no such deployment, or it does not take these parameters.
    """
    known = find_deployment(client, deployment)
    wanted = merge_parameters(deployment, known.entrypoint, own_parameters(known), parameters)
    try:
        return client.create_flow_run_from_deployment(known.id, parameters={"parameters": wanted})
    except HTTPStatusError as error:
        if error.response.status_code not in (codes.CONFLICT, codes.UNPROCESSABLE_ENTITY):
            raise
        raise UsageError(
            f"the server refuses these parameters: {error.response.json().get('detail', error)}",
            "values that the deployment's form accepts",
            SEE_THE_FORM.format(deployment),
        ) from error


def skip(client: SyncPrefectClient, deployment: str) -> tuple[datetime, datetime | None]:
    """Cancel the next scheduled run; return its time, and that of the one after it (UTC).

    Raises:
        UsageError: no run is scheduled.
        EnvironmentProblem: the run has just begun.
    """
    known = find_deployment(client, deployment)
    planned = _plan_runs(client, known)
    if not planned:
        reason = "paused" if known.paused else "none is planned"
        raise UsageError(f"{deployment} has no upcoming run: {reason}", "a schedule", "see gradmill status")
    if not leave_out(client, planned[0], f"left out by gradmill skip {deployment}"):
        raise EnvironmentProblem(f"the run {planned[0].name} has begun", "one that waits", "cancel it in the UI")
    moments = [run.expected_start_time for run in planned if run.expected_start_time]
    return moments[0], moments[1] if moments[1:] else None


def _plan_runs(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    """Let the server plan at least two runs of a deployment that is on; return all that are planned.

    By itself it plans only the next three dates of a schedule, even if runs on these dates were skipped.
    """
    if not _list_active(deployment):
        return []
    now, ours = datetime.now(UTC), {"any_": [deployment.id]}
    skipped = list_runs(
        client, state={"name": {"any_": [SKIPPED]}}, deployment_id=ours, expected_start_time={"after_": now}
    )
    ahead = {"min_runs": len(skipped) + 2, "end_time": (now + HORIZON).isoformat()}
    client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment.id}, json=ahead)
    return [run for run in list_runs(client, "SCHEDULED", deployment_id=ours) if run.auto_scheduled]


def leave_out(client: SyncPrefectClient, run: FlowRun, reason: str) -> bool:
    """Cancel a run that has not begun; return whether it had not."""
    state_now = client.read_flow_run(run.id).state
    if state_now is None or not state_now.is_scheduled():  # the server would cancel a run that is going on
        return False
    state = State(type=StateType.CANCELLED, name=SKIPPED, message=reason)
    return client.set_flow_run_state(run.id, state).status == SetStateStatus.ACCEPT


# Waiting for a run


def find_page(run: FlowRun) -> str | None:
    """The address of a run's page in Prefect's UI."""
    address = url_for("flow-run", obj_id=run.id)
    return address and without_credentials(address)


def wait_for_end(run: UUID, begun: Callable[[str], None]) -> FlowRun:
    """Wait until a run has ended and return it; call ``begun`` with each stage, and report once if no worker takes it.

    Raises:
        EnvironmentProblem: the server no longer answers.
    """
    late, stages = time.monotonic() + LATE.total_seconds(), set[str]()
    of_run = FlowRunFilter.model_validate({"id": {"any_": [run]}})
    while True:
        with api.client() as client:
            found = client.read_flow_run(run)
            for task in client.read_task_runs(flow_run_filter=of_run, sort=TaskRunSort.EXPECTED_START_TIME_ASC):
                # The names of a prediction's shards and the like contain spaces.
                if task.start_time and " " not in task.name and task.name not in stages:
                    stages.add(task.name)
                    begun(task.name)
        if found.state and found.state.is_final():
            return found
        if found.state and found.state.is_scheduled() and found.state_name != QUEUED and time.monotonic() > late:
            late = float("inf")
            print("no worker has taken it yet; still waiting (gradmill status lists the workers)", file=sys.stderr)
        time.sleep(ASK_SECONDS)


def find_exit_code(run: FlowRun) -> int:
    """The exit code with which the same run would have ended as a command, by the error that its state names."""
    state = run.state
    if state is None or state.is_completed():
        return 0
    if state.name == REFUSED:
        return GateFailed.exit_code
    kinds, codes_by_name = [GradmillError], dict[str, int]()
    for kind in kinds:  # the list grows meanwhile
        kinds += kind.__subclasses__()
        codes_by_name[kind.__name__] = kind.exit_code
    found = (codes_by_name[name] for name in ERROR.findall(state.message or "") if name in codes_by_name)
    return next(found, EnvironmentProblem.exit_code)
