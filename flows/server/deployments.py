"""Deployments: what ``prefect.yaml`` and ``gradmill schedule`` declare, and what is done to those of a Prefect server.

A deployment is made once from what is declared. Later registrations bring up to date what is code (entrypoint, pull
steps, form) and leave all else as somebody has set it; ``gradmill register --reset NAME`` takes the defaults.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import yaml
from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import ConcurrencyOptions, FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse, SetStateStatus
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort
from prefect.server.schemas.schedules import SCHEDULE_TYPES
from prefect.states import Crashed
from prefect.utilities.callables import parameter_schema
from prefect.utilities.collections import deep_merge
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from flows.server import api
from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine.words import nearest
from tasks.parameters import (
    EvaluateParameters,
    Learned,
    MaintainParameters,
    ModelName,
    PredictParameters,
    RetrainParameters,
    TuneParameters,
    narrow_form,
)
from tasks.parameters.form import expected
from tasks.store.schedules import Schedule

TAG = "gradmill"  # prefect.yaml gives it to every deployment, and so to their runs and these runs' events
UNSCHEDULED = "unscheduled"  # a tag of those that people or automations start
SKIPPED = "Skipped"  # the name of a state whose type is cancelled
OURS = {"all_": [TAG]}
PAGE = 200  # deployments, the most that a server answers with at a time
SCHEDULER_SECONDS = 30.0
SAID_AFTER_SECONDS = 3.0
SEE_THE_FORM = "see gradmill trigger {} --list-params"
REFUSALS = (codes.BAD_REQUEST, codes.NOT_FOUND, codes.CONFLICT, codes.UNPROCESSABLE_ENTITY)
FORMS: dict[str | None, type[BaseModel]] = {
    "flows.retrain.retrain": RetrainParameters,
    "flows.predict.predict": PredictParameters,
    "flows.evaluate.evaluate": EvaluateParameters,
    "flows.maintain.maintain": MaintainParameters,
    "flows.tune.tune": TuneParameters,
}
ABOUT = {
    "retrain": "Retrains {0} as gradmill schedule was told; gradmill unschedule {0} ends it.",
    "tune": "Searches settings for {0}; gradmill unschedule {0} --tune ends it.",
}
SLUG = "scheduled"  # of the one schedule that gradmill schedule makes
FROM = datetime(2026, 1, 1, tzinfo=UTC)  # of the days in which a schedule's longest pause is looked for
KINDS: dict[str, Any] = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}
VARIABLE = re.compile(r"\{\{ *\$(\w+) *\}\}")  # of the environment, as ``prefect deploy`` takes it
TIMING: TypeAdapter[Any] = TypeAdapter(SCHEDULE_TYPES)


class DeploymentSpec(NamedTuple):
    """A deployment as it is declared; of ``code`` nobody but us knows what is right."""

    flow: str
    name: str
    code: dict[str, Any]
    settings: dict[str, Any]
    schedules: list[DeploymentScheduleCreate]

    def code_of(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """What only we know where these are its parameters, which somebody may have set: the form is narrowed to them.

        Args:
            parameters: of the flow: ``{"parameters": {…}}``.
        """
        form = find_form(self.code["entrypoint"], parameters.get("parameters", {}))
        return self.code | {"parameter_openapi_schema": describe_form(form or BaseModel)}

    def for_schedule(self, schedule: Schedule) -> "DeploymentSpec":
        """The deployment of an own name, made after this one, which is of the same flow."""
        settings = {
            "description": ABOUT[self.flow].format(schedule.name),
            "tags": [TAG, self.flow, f"model:{schedule.name}", *([] if schedule.cron else [UNSCHEDULED])],
            "parameters": {"parameters": schedule.parameters},
            "paused": schedule.paused,
        }
        when = CronSchedule(cron=schedule.cron, timezone=schedule.timezone) if schedule.cron else None
        timing = [DeploymentScheduleCreate(slug=SLUG, schedule=when, active=schedule.active)] if when else []
        return self._replace(name=schedule.deployment, settings=self.settings | settings, schedules=timing)


def find_form(entrypoint: str | None, given: dict[str, Any]) -> type[BaseModel] | None:
    """What the flow of a deployment takes, narrowed to the model and data that are ``given``; None of others' flows."""
    form = FORMS.get(entrypoint)
    return narrow_form(form, given) if form and issubclass(form, Learned) else form


def describe_form(form: type[BaseModel]) -> dict[str, Any]:
    """What Prefect's form asks for: that of our flows, which take one ``form``, without importing them (and torch)."""

    def flow(parameters: Any) -> None: ...

    flow.__annotations__["parameters"] = form
    flow.__defaults__ = (form(),)
    return parameter_schema(flow).model_dump(exclude_unset=True)


# What prefect.yaml declares


class _Strict(BaseModel):
    """What we do not know, as a build step, is refused instead of left out in silence."""

    model_config = ConfigDict(extra="forbid")


class _Schedule(BaseModel):
    """Further fields, as ``cron``, are those of one of Prefect's schedules."""

    model_config = ConfigDict(extra="allow")
    slug: str
    active: bool = True
    parameters: dict[str, Any] = {}

    def declared(self) -> DeploymentScheduleCreate:
        timing = self.model_extra or {}
        kinds = [kind for key, kind in KINDS.items() if key in timing]
        if len(kinds) != 1:
            raise ValueError(f"schedule {self.slug} needs one of {', '.join(KINDS)}")
        when = kinds[0].model_validate(timing)
        return DeploymentScheduleCreate(slug=self.slug, active=self.active, parameters=self.parameters, schedule=when)


class _Limit(ConcurrencyOptions):
    limit: int


class _Pool(_Strict):
    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = {}


class _Deployment(_Strict):
    name: str
    entrypoint: str
    work_pool: _Pool
    description: str | None = None
    tags: list[str] = []
    parameters: dict[str, Any] = {}
    enforce_parameter_schema: bool = True
    schedules: list[_Schedule] = []
    concurrency_limit: _Limit | int | None = None

    def declared(self, pull_steps: list[dict[str, Any]]) -> DeploymentSpec:
        if self.entrypoint not in FORMS:
            raise ValueError(f"{self.name}: entrypoint {self.entrypoint} is none of {', '.join(map(str, FORMS))}")
        limit = self.concurrency_limit
        settings = {
            "description": self.description,
            "tags": list(dict.fromkeys([*self.tags, TAG])),
            "parameters": self.parameters,
            "paused": False,
            "enforce_parameter_schema": self.enforce_parameter_schema,
            "work_pool_name": self.work_pool.name,
            "work_queue_name": self.work_pool.work_queue_name,
            "job_variables": self.work_pool.job_variables,
            "concurrency_limit": limit.limit if isinstance(limit, _Limit) else limit,
            "concurrency_options": limit.model_dump(mode="json", exclude={"limit"}, exclude_none=True)
            if isinstance(limit, _Limit)
            else None,
        }
        return DeploymentSpec(
            flow=self.entrypoint.rpartition(".")[2],
            name=self.name,
            code={"entrypoint": self.entrypoint, "pull_steps": pull_steps},
            settings={key: value for key, value in settings.items() if value is not None},
            schedules=[each.declared() for each in self.schedules],
        )


class _File(_Strict):
    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.replace("_", "-"))
    name: str | None = None
    prefect_version: str | None = None
    definitions: Any = None
    pull: list[dict[str, Any]]
    deployments: list[_Deployment]


def read_declared(home: Path) -> list[DeploymentSpec]:
    """The deployments of the ``prefect.yaml`` in ``home``; its pull step names that folder, or GRADMILL_HOME.

    Raises:
        UsageError: it is not as we or Prefect take it.
    """
    path = home / "prefect.yaml"
    environment = {"GRADMILL_HOME": str(home)} | os.environ
    try:
        text = json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str)
        if missing := set(VARIABLE.findall(text)) - environment.keys():
            raise ValueError(f"{', '.join(sorted(missing))} is not set in the environment")
        file = _File.model_validate_json(VARIABLE.sub(lambda found: json.dumps(environment[found[1]])[1:-1], text))
        return [each.declared(file.pull) for each in file.deployments]
    except (yaml.YAMLError, ValueError) as error:  # no YAML, not in UTF-8, or not as we take it
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UsageError(
            f"{path} is not as gradmill register takes it: {reason}",
            "what a prefect.yaml of Gradmill has, with a slug for every schedule",
            "correct it; prefect deploy registers deployments of other kinds",
        ) from error


# What is done to the deployments of a server


def make(client: SyncPrefectClient, spec: DeploymentSpec) -> UUID:
    """Make a deployment as it is declared, in one request.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    with _refusals_explained(spec.name):
        code = spec.code_of(spec.settings.get("parameters", {}))
        made = client.create_deployment(
            flow_id=client.create_flow_from_name(spec.flow),
            name=spec.name,
            schedules=spec.schedules,
            **code | spec.settings,
        )
    print(f"{spec.name}: created", file=sys.stderr)
    return made


def update_code(client: SyncPrefectClient, spec: DeploymentSpec, deployment: DeploymentResponse) -> None:
    """Bring up to date what only we know; a deployment that is up to date is not touched, for that plans its runs anew.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    fields = {
        name: value
        for name, value in spec.code_of(deployment.parameters or {}).items()
        if getattr(deployment, name) != value
    }
    if TAG not in deployment.tags:  # or none of us would find it
        fields["tags"] = [*deployment.tags, TAG]
    if fields:
        with _refusals_explained(spec.name):
            client.update_deployment(deployment.id, DeploymentUpdate(**fields))
        print(f"{spec.name}: changed {', '.join(fields)}", file=sys.stderr)


def reset(client: SyncPrefectClient, spec: DeploymentSpec, deployment: DeploymentResponse) -> None:
    """Set everything as it is declared; schedules that were added in the UI are gone then.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    defaults: dict[str, Any] = {"description": None, "concurrency_limit": None, "parameters": {}, "job_variables": {}}
    fields = defaults | spec.code_of(spec.settings.get("parameters", {})) | spec.settings
    with _refusals_explained(spec.name):
        for each in spec.schedules:
            _set_schedule(client, deployment, each)
        declared = {each.slug for each in spec.schedules}
        for schedule in deployment.schedules:
            if schedule.slug not in declared:
                client.delete_deployment_schedule(deployment.id, schedule.id)
        client.update_deployment(deployment.id, DeploymentUpdate(**fields))
    print(f"{spec.name}: as declared", file=sys.stderr)


def change(
    client: SyncPrefectClient,
    spec: DeploymentSpec,
    deployment: DeploymentResponse,
    *,
    cron: str | None = None,
    timezone: str | None = None,
    parameters: dict[str, Any] | None = None,
    are_all: bool = False,
    paused: bool | None = None,
) -> DeploymentResponse:
    """Set for good what is given of a deployment, and return it as it is then; all else is left as it is.

    A time is that of the schedule that we declare, or of a new one; a cron switches it on.

    Args:
        client: of the server.
        spec: what is declared of it.
        deployment: what is there.
        cron: five fields.
        timezone: whose hours these are.
        parameters: to be merged onto those that are there, ``{"name": …}``.
        are_all: take them in the place of those that are there.
        paused: whether its schedules are to start no run.

    Raises:
        UsageError: there is no such time, or its form does not take these parameters.
        EnvironmentProblem: the server does not accept them.
    """
    fields: dict[str, Any] = {} if paused is None else {"paused": paused}
    if parameters:
        own = {} if are_all else (deployment.parameters or {}).get("parameters", {})
        merged = merge_parameters(deployment.name, FORMS.get(deployment.entrypoint), own, parameters)
        fields |= {"parameters": {"parameters": merged}} | spec.code_of({"parameters": merged})
    with _refusals_explained(deployment.name):
        if cron or timezone:
            slug = spec.schedules[0].slug if spec.schedules else SLUG
            before = next((each for each in deployment.schedules if each.slug == slug), None)
            old = before.schedule if before and isinstance(before.schedule, CronSchedule) else None
            time, zone = cron or (old and old.cron), timezone or (old and old.timezone) or "UTC"
            if not time:
                found = f"{deployment.name} has no time of which {timezone} were the zone"
                raise UsageError(found, "--cron", "give both")
            require_time(time, zone)
            is_active = cron is not None or (before is not None and before.active)
            when = CronSchedule(cron=time, timezone=zone)
            wanted = DeploymentScheduleCreate(slug=slug, schedule=when, active=is_active)
            _set_schedule(client, deployment, wanted)
            fields["tags"] = [each for each in deployment.tags if each != UNSCHEDULED]
        # Also where nothing else is given: the server then plans anew what it may have planned with the old time.
        client.update_deployment(deployment.id, DeploymentUpdate(**fields))
    return client.read_deployment(deployment.id)


def _set_schedule(client: SyncPrefectClient, deployment: DeploymentResponse, wanted: DeploymentScheduleCreate) -> None:
    """Change the schedule of a slug, or add it; all the others are left alone."""
    known = {each.slug: each.id for each in deployment.schedules}
    if wanted.slug in known:
        client.update_deployment_schedule(
            deployment.id, known[wanted.slug], wanted.active, wanted.schedule, parameters=wanted.parameters
        )
    else:
        client.create_deployment_schedules(deployment.id, [wanted])


@contextmanager
def _refusals_explained(name: str) -> Iterator[None]:
    try:
        yield
    except HTTPStatusError as error:
        if error.response.status_code not in REFUSALS:
            raise
        is_new = "Work pool" in error.response.text  # to a server to which nobody has registered
        raise EnvironmentProblem(
            f"deployment {name} is not accepted: {error.response.text[:300]}",
            "prefect.yaml, and what is set on the server, as the server takes them",
            "run gradmill register" if is_new else "correct prefect.yaml, or the deployment in the UI",
        ) from error


def merge_parameters(
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


# Times


def require_time(cron: str, timezone: str) -> None:
    """Refuse what is no time of a schedule.

    Raises:
        UsageError: there is no such time.
    """
    try:
        if not _dates(CronSchedule(cron=cron, timezone=timezone), 1):
            raise ValueError("there is no such day")
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        found = f"--cron {cron!r} --timezone {timezone}: {reason.removeprefix('Value error, ')}"
        raise UsageError(found, "five fields, as '0 3 * * *', and a zone, as Europe/Berlin", "correct it") from error


def longest_pause(deployment: DeploymentResponse) -> timedelta | None:
    """The longest time between two runs of its most frequent schedule; None where none is on.

    It is looked for in the same days whenever we register: weekends and a month's ends are among them.
    """
    active = [each.schedule for each in deployment.schedules if each.active and not deployment.paused]
    dates = (_dates(schedule, 1000, FROM) for schedule in active)
    pauses = [max(after - before for before, after in pairwise(each)) for each in dates if len(each) > 1]
    return min(pauses, default=None)


def _dates(schedule: Any, most: int, start: datetime | None = None) -> list[datetime]:
    """When a schedule starts runs, as the server plans them; none where it never does, as on 31 February."""
    return _plan_dates(schedule.model_dump_json(), most, start)


@lru_cache(maxsize=256)  # since many names have the same
def _plan_dates(schedule: str, most: int, start: datetime | None) -> list[datetime]:
    planned = TIMING.validate_json(schedule)
    try:
        return list(asyncio.run(planned.get_dates(most, start, start and start + timedelta(days=5 * 365))))
    except (ValueError, KeyError):
        return []


# What a server knows of our deployments and their runs


def ours(client: SyncPrefectClient) -> list[DeploymentResponse]:
    """The deployments of ``prefect.yaml``, by name; a server may have others'."""
    only = DeploymentFilter.model_validate({"tags": OURS})
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(
        deployment_filter=only, sort=DeploymentSort.NAME_ASC, limit=PAGE, offset=len(found)
    ):
        found += page
        if len(page) < PAGE:
            break
    return found


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
        wanted = merge_parameters(deployment, FORMS.get(known.entrypoint), own, parameters)
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


def skip(deployment: str) -> tuple[datetime, datetime | None]:
    """Cancel the next scheduled run; return when it was to be, and when the next is then (UTC).

    Raises:
        UsageError: none is to come.
        EnvironmentProblem: it has begun just now.
    """
    with api.client() as client:
        found = [each for each in ours(client) if each.name == deployment]
        if not found or found[0].paused or not is_scheduled(found[0]):
            reason = (why_idle(found[0]) or "no active schedule") if found else "not known to the server"
            raise UsageError(f"no run of {deployment} is to come: {reason}", "a schedule", "see gradmill status")
        until = time.monotonic() + SCHEDULER_SECONDS
        while not (planned := _planned(client, deployment)) and time.monotonic() < until:
            time.sleep(0.5)  # the server plans anew after a change
        if not planned:
            raise UsageError(f"no run of {deployment} is planned", "a schedule", "see gradmill status")
        (due, run), *later = planned
        state = State(type=StateType.CANCELLED, name=SKIPPED, message=f"left out by gradmill skip {deployment}")
        if client.set_flow_run_state(run.id, state).status != SetStateStatus.ACCEPT:
            raise EnvironmentProblem(f"the run {run.name} has begun", "one that waits", "cancel it in the UI")
        return due, later[0][0] if later else None


def _planned(client: SyncPrefectClient, deployment: str) -> list[tuple[datetime, FlowRun]]:
    only = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    due = runs(client, "SCHEDULED", sort=FlowRunSort.EXPECTED_START_TIME_ASC, deployment_filter=only)
    return [(run.expected_start_time, run) for run in due if run.auto_scheduled and run.expected_start_time]
