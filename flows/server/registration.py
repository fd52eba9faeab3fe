"""What a Prefect server needs before scheduled runs: pool, deployments, automations. All idempotent.

A deployment is created once as declared, in ``prefect.yaml`` or by ``gradmill schedule``. Later registrations update
what belongs to the code (entrypoint, pull steps, form) and keep everything else as somebody has set it; ``gradmill
register --reset NAME`` restores the defaults.
"""

import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import yaml
from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    DeploymentCreate,
    DeploymentScheduleCreate,
    DeploymentUpdate,
    VariableCreate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import BaseModel, Field, ValidationError, model_validator

import flows
from flows.server import alerts, api
from flows.server.deployments import (
    FORMS,
    describe_form,
    find_form,
    list_deployments,
    merge_parameters,
    own_parameters,
    require_time,
)
from flows.tags import MODEL_TAG, TAG, UNSCHEDULED
from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine.words import suggest_spelling
from tasks.store import artifact_paths, schedules
from tasks.store.schedules import Schedule, Schedules

POOL = "gradmill"
REGISTERED = "gradmill_registered"  # a variable of a server on which all deployments were created once
OF_BEFORE = "gradmill_registered_"  # the prefix of variables left by older versions
REFUSALS = (codes.BAD_REQUEST, codes.NOT_FOUND, codes.CONFLICT, codes.UNPROCESSABLE_ENTITY)
ABOUT = {
    "retrain": "Retrains {0} as set by gradmill schedule; gradmill unschedule {0} ends it.",
    "tune": "Searches settings for {0}; gradmill unschedule {0} --tune ends it.",
}
SLUG = "scheduled"  # of the only schedule that gradmill schedule creates
DEFAULTS: dict[str, Any] = {"enforce_parameter_schema": True, "paused": False}
VARIABLE = re.compile(r"\{\{ *\$(\w+) *\}\}")  # an environment variable, in the notation of ``prefect deploy``


def find_home() -> Path:
    """The folder with ``prefect.yaml``: the checkout or, in an image, the folder that GRADMILL_HOME names.

    Raises:
        UsageError: there is none.
    """
    named = os.environ.get("GRADMILL_HOME")
    for folder in (Path(flows.__file__).parents[1], *([Path(named)] if named else [])):
        if (folder / "prefect.yaml").is_file():
            return folder
    raise UsageError("no prefect.yaml here", "a checkout of Gradmill, or its image", "install it from a checkout")


def worker_name() -> str:
    """The name of the worker of these artifacts' ``gradmill up``; the next worker replaces it."""
    return f"{socket.gethostname()} {hashlib.sha256(str(artifact_paths.root()).encode()).hexdigest()[:6]}"


# Declared deployments


class DeclaredDeployment(DeploymentCreate):
    """A deployment as declared: the fields of Prefect's own record, and no others.

    It is read in the notation of ``prefect deploy``.
    """

    flow_id: UUID = UUID(int=0)  # not known yet
    work_pool_name: str
    entrypoint: str

    @model_validator(mode="before")
    @classmethod
    def _flatten(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given  # pydantic refuses it
        flat, limit = DEFAULTS | given, given.get("concurrency_limit")
        pool = dict(flat.pop("work_pool", None) or {})
        flat |= {"work_pool_name": pool.pop("name", None), **pool}
        flat["schedules"] = [_nest_time(each) for each in given.get("schedules") or ()]
        if isinstance(limit, dict):
            options = dict(limit)
            flat |= {"concurrency_limit": options.pop("limit", None), "concurrency_options": options or None}
        return flat

    @property
    def flow(self) -> str:
        """The name of its flow."""
        return self.entrypoint.rpartition(".")[2]

    def code_of(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The fields that only Gradmill sets, with the form narrowed to these parameters.

        Args:
            parameters: those of the flow: ``{"parameters": {…}}``.
        """
        form = find_form(self.entrypoint, parameters.get("parameters", {}))
        schema = describe_form(form or BaseModel)
        return {"entrypoint": self.entrypoint, "pull_steps": self.pull_steps, "parameter_openapi_schema": schema}

    def for_schedule(self, schedule: Schedule) -> Self:
        """The deployment of an own name, derived from this one, which has the same flow."""
        timing = []
        if schedule.cron:
            when = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
            timing = [DeploymentScheduleCreate(slug=SLUG, schedule=when, active=schedule.active)]
        fields = {
            "name": schedule.deployment,
            "description": ABOUT[self.flow].format(schedule.name),
            "tags": [TAG, self.flow, MODEL_TAG + schedule.name, *([] if schedule.cron else [UNSCHEDULED])],
            "parameters": {"parameters": schedule.parameters},
            "paused": schedule.paused,
            "schedules": timing,
        }
        return self.model_copy(update=fields)


def _nest_time(given: dict[str, Any]) -> dict[str, Any]:
    if "slug" not in given:
        raise ValueError("a schedule has no slug to recognise it by")
    own = {"slug", "active", "parameters"} & given.keys()
    return {key: given[key] for key in own} | {"schedule": {key: given[key] for key in given.keys() - own}}


class _File(BaseModel, extra="forbid"):
    """Unknown parts, such as a build step, are errors instead of being ignored silently."""

    name: Any = None
    version: Any = Field(None, alias="prefect-version")
    definitions: Any = None
    pull: list[dict[str, Any]]
    deployments: list[DeclaredDeployment]


def read_declared(home: Path) -> list[DeclaredDeployment]:
    """The deployments of the ``prefect.yaml`` in ``home``; its pull step names that folder, or GRADMILL_HOME.

    Raises:
        UsageError: the file is not as we or Prefect expect it.
    """
    path = home / "prefect.yaml"
    environment = {"GRADMILL_HOME": str(home)} | os.environ
    try:
        text = json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str)
        if missing := set(VARIABLE.findall(text)) - environment.keys():
            raise ValueError(f"{', '.join(sorted(missing))} is not set in the environment")
        file = _File.model_validate_json(VARIABLE.sub(lambda found: json.dumps(environment[found[1]])[1:-1], text))
        for each in file.deployments:
            if each.entrypoint not in FORMS:
                entrypoints = ", ".join(map(str, FORMS))
                raise ValueError(f"{each.name}: entrypoint {each.entrypoint} is not one of {entrypoints}")
        return [
            each.model_copy(update={"pull_steps": file.pull, "tags": list(dict.fromkeys([*each.tags, TAG]))})
            for each in file.deployments
        ]
    except (yaml.YAMLError, ValueError) as error:  # not YAML, not UTF-8, or invalid
        reason = str(error)
        if isinstance(error, ValidationError):
            wrong = error.errors()
            first = min(wrong, key=lambda each: each["type"] != "value_error")  # other kinds' errors come last
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UsageError(
            f"{path} is not as gradmill register takes it: {reason}",
            "what a prefect.yaml of Gradmill has, with a slug for every schedule",
            "correct it; prefect deploy registers deployments of other kinds",
        ) from error


def list_specs(stored: Schedules) -> dict[str, DeclaredDeployment]:
    """The deployments of ``prefect.yaml`` and those of ``gradmill schedule``, by name.

    Raises:
        UsageError: ``prefect.yaml`` is missing or invalid, or lacks a flow that a schedule needs.
    """
    declared = read_declared(home := find_home())
    first = {each.flow: each for each in reversed(declared)}
    for each in stored.schedules.values():
        if each.flow not in first:
            found = f"{home / 'prefect.yaml'} declares no deployment of the flow {each.flow}"
            raise UsageError(found, f"one, since the schedule of {each.name} needs it", "declare it again")
    own = [first[each.flow].for_schedule(each) for each in stored.schedules.values()]
    return {each.name: each for each in [*declared, *own]}


# Updating a server


def register(strictly: bool = False, reset: Collection[str] = ()) -> list[str]:
    """Create or update what the configured server lacks, and report changes; return the names of the deployments.

    A server on which all deployments were created once takes precedence: settings made there stay, and deleted
    deployments are not recreated. It receives schedules that were changed or ended without it.

    Args:
        strictly: fail if GRADMILL_NOTIFY names no block.
        reset: deployments to restore to their declaration.

    Raises:
        UsageError: ``prefect.yaml`` is missing or invalid, or a name in ``reset`` is not declared.
        EnvironmentProblem: no server answers, or it does not accept a deployment.
        DataError: the document of schedules is damaged.
    """
    with schedules.hold_lock(), api.client() as client:
        told = schedules.read()
        wanted = list_specs(told)
        for name in reset:
            if name not in wanted:
                to_do = suggest_spelling(name, wanted, "name one of these")
                raise UsageError(f"no deployment {name} is declared", f"one of: {', '.join(wanted)}", to_do)
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        known = read_server_id(client) if list_deployments(client) else None  # else it is new or was emptied
        variable, left = client.read_variable_by_name(REGISTERED), Schedules()
        server = str(variable.value) if variable else uuid4().hex
        for name, spec in wanted.items():
            schedule, there = told.schedules.get(name), find(client, name, spec.flow)
            is_asked_for = name in reset or (schedule is not None and "time" in schedule.pending)
            if not there and not is_asked_for and known and (schedule is None or schedule.server == known):
                again = f"schedule {schedule.name} --cron" if schedule else f"register --reset {name}"
                print(f"{name}: not on this server, gradmill {again} makes it", file=sys.stderr)
                continue
            if name in reset if there else schedule is None:
                _create_deployment(client, spec, "reset" if there else "created")
            elif there:
                tags = {} if TAG in there.tags else {"tags": [*there.tags, TAG]}  # we find deployments by this tag
                _update_deployment(client, spec, there, tags)
            if schedule:
                left = left.with_schedule(send_schedule(client, schedule, server))
        for name, flow in told.ended.items():
            delete(client, name, flow)
        deployed = {each.name: each.id for each in list_deployments(client)}
        alerts.update_automations(client, deployed)
        if variable is None:
            client.create_variable(VariableCreate(name=REGISTERED, value=server))
        alerts.update_alerts(client, strictly)
        schedules.write(left)
    return sorted(deployed)


def read_server_id(client: SyncPrefectClient) -> str | None:
    """The server's id, which is stored once all deployments have been made; None if that was never finished."""
    if variable := client.read_variable_by_name(REGISTERED):
        return str(variable.value)
    return OF_BEFORE if any(each.name.startswith(OF_BEFORE) for each in client.read_variables(200)) else None


def find(client: SyncPrefectClient, name: str, flow: str) -> DeploymentResponse | None:
    """A deployment on a server, even without our tag."""
    with suppress(ObjectNotFound):
        return client.read_deployment_by_name(f"{flow}/{name}")
    return None


def delete(client: SyncPrefectClient, name: str, flow: str) -> None:
    """Delete a deployment that no schedule needs any more, and its automations; results of its runs are kept."""
    if flow == "retrain":
        alerts.delete_on_drift(client, name.removeprefix("retrain-"))
    with suppress(ObjectNotFound):
        client.delete_deployment(client.read_deployment_by_name(f"{flow}/{name}").id)


def _create_deployment(client: SyncPrefectClient, spec: DeclaredDeployment, done: str = "created") -> UUID:
    """Create a deployment as declared; an existing one loses other settings, and added schedules."""
    fields = spec.model_dump(mode="json", exclude_unset=True, exclude={"flow_id", "name", "schedules"})
    fields |= spec.code_of(spec.parameters)
    with _refusals_explained(spec.name):
        flow = client.create_flow_from_name(spec.flow)
        made = client.create_deployment(flow, spec.name, schedules=spec.schedules, **fields)
    print(f"{spec.name}: {done}", file=sys.stderr)
    return made


def _find_timing(deployment: DeploymentResponse, slug: str | None) -> DeploymentSchedule | None:
    return next((each for each in deployment.schedules if each.slug == slug), None)


def _update_deployment(
    client: SyncPrefectClient,
    spec: DeclaredDeployment,
    there: DeploymentResponse,
    fields: dict[str, Any],
    timing: DeploymentScheduleCreate | None = None,
) -> DeploymentResponse:
    """Update the fields that only Gradmill sets and those that are given; keep all others.

    An unchanged deployment is not touched, because an update plans its runs again. After a change of time that is
    wanted: the server may have planned with the old one.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    wanted = spec.code_of(fields.get("parameters", there.parameters or {})) | fields
    changed = {name: value for name, value in wanted.items() if getattr(there, name) != value}
    if not changed and timing is None:
        return there
    with _refusals_explained(there.name):
        if timing and (known := _find_timing(there, timing.slug)):
            client.update_deployment_schedule(there.id, known.id, timing.active, timing.schedule)
        elif timing:
            client.create_deployment_schedules(there.id, [timing])
        client.update_deployment(there.id, DeploymentUpdate(**changed))
    print(f"{there.name}: changed {', '.join([*changed, *(['schedule'] if timing else [])])}", file=sys.stderr)
    return client.read_deployment(there.id)


def change_deployment(
    client: SyncPrefectClient,
    spec: DeclaredDeployment,
    deployment: DeploymentResponse,
    *,
    cron: str | None = None,
    timezone: str | None = None,
    parameters: dict[str, Any] | None = None,
    are_all: bool = False,
    paused: bool | None = None,
) -> DeploymentResponse:
    """Change the given settings of a deployment for good, and return it afterwards; all others are kept.

    A time applies to the schedule that we declare, or to a new one; a cron also activates it.

    Args:
        client: a client of the server.
        spec: its declaration.
        deployment: the deployment on the server.
        cron: five fields.
        timezone: the time zone of the cron.
        parameters: values to merge into the present ones, ``{"name": …}``.
        are_all: replace the present parameters instead.
        paused: whether its schedules start no runs.

    Raises:
        UsageError: the time is invalid, or its form does not accept these parameters.
        EnvironmentProblem: the server does not accept them.
    """
    fields: dict[str, Any] = {} if paused is None else {"paused": paused}
    timing = None
    if parameters:
        own = {} if are_all else own_parameters(deployment)
        merged = merge_parameters(deployment.name, deployment.entrypoint, own, parameters)
        fields["parameters"] = {"parameters": merged}
    if cron or timezone:
        slug = spec.schedules[0].slug if spec.schedules else SLUG
        before = _find_timing(deployment, slug)
        old = before.schedule if before and isinstance(before.schedule, CronSchedule) else None
        time, zone = cron or (old and old.cron), timezone or (old and old.timezone) or "UTC"
        if not time:
            found = f"{deployment.name} has no cron to which {timezone} could apply"
            raise UsageError(found, "--cron", "give both")
        require_time(time, zone)
        is_active = cron is not None or (before is not None and before.active)
        when = CronSchedule(cron=time, timezone=zone)
        timing = DeploymentScheduleCreate(slug=slug, schedule=when, active=is_active)
        fields["tags"] = [each for each in deployment.tags if each != UNSCHEDULED]
    return _update_deployment(client, spec, deployment, fields, timing)


def send_schedule(client: SyncPrefectClient, schedule: Schedule, server: str) -> Schedule:
    """Send the pending changes of a schedule to a server, and return the schedule as it is then set there.

    Parameters that somebody has set there stay, except those set by ``--param``.

    Args:
        client: a client of the server.
        schedule: the wanted schedule.
        server: the id of the server.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    spec, sent = list_specs(Schedules().with_schedule(schedule))[schedule.deployment], schedule.sent
    there = find(client, spec.name, spec.flow)
    is_new = there is None
    if there is None:
        there, sent = client.read_deployment(_create_deployment(client, spec)), schedule.parameters
    elif schedule.pending:
        wanted: dict[str, Any] = {"paused": schedule.paused} if "paused" in schedule.pending else {}
        if "time" in schedule.pending and schedule.cron:  # without a new cron an inactive schedule stays inactive
            wanted |= {"cron": schedule.cron if schedule.active else None, "timezone": schedule.timezone}
        if "parameters" in schedule.pending:
            is_ours = own_parameters(there) in (schedule.sent, schedule.parameters)
            wanted |= {"parameters": schedule.parameters if is_ours else schedule.given, "are_all": is_ours}
            sent = schedule.parameters if is_ours else sent
        there = change_deployment(client, spec, there, **wanted)
    if schedule.flow == "retrain" and (is_new or "on_drift" in schedule.pending):
        alerts.delete_on_drift(client, schedule.name)
    if schedule.on_drift:
        alerts.save(client, alerts.load("retrain_on_drift", NAME=schedule.name, DEPLOYMENT_ID=there.id))
    if not is_new and not schedule.pending and schedule.server not in ("", server):  # another server takes precedence
        return schedule
    return read_back(schedule, there).model_copy(update={"sent": sent, "server": server, "pending": ()})


def read_back(schedule: Schedule, there: DeploymentResponse) -> Schedule:
    """A schedule updated by what is set on a server, except where changes are pending."""
    facts: dict[str, Any] = {} if "paused" in schedule.pending else {"paused": there.paused}
    if "time" not in schedule.pending:
        timing = _find_timing(there, SLUG)
        if timing is None:
            facts["cron"] = None
        elif isinstance(when := timing.schedule, CronSchedule):
            facts |= {"cron": when.cron, "timezone": when.timezone or "UTC", "active": timing.active}
    return schedule.model_copy(update=facts)


@contextmanager
def _refusals_explained(name: str) -> Iterator[None]:
    try:
        yield
    except HTTPStatusError as error:
        if error.response.status_code not in REFUSALS:
            raise
        is_new = "Work pool" in error.response.text  # nobody has registered with this server
        raise EnvironmentProblem(
            f"deployment {name} is not accepted: {error.response.text[:300]}",
            "a prefect.yaml and settings that the server accepts",
            "run gradmill register" if is_new else "correct prefect.yaml, or the deployment in the UI",
        ) from error
