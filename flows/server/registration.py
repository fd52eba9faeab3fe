"""What a Prefect server has of a store: pool, deployments and automations, and whose these are.

Only the server knows schedules. A deployment of ``prefect.yaml`` is created once by ``register``, that of a name by
``gradmill schedule``. From then on it belongs to whoever sets it, in the UI or by a command. Its life, by how it stands
on the server (across) and what is done (down):

=================  ====================  ===================================  ====================
..                 never created         there: as created, changed in the    deleted in the UI
                                         UI, or paused
=================  ====================  ===================================  ====================
up, register       created if declared   its code is updated, nothing else    stays so, is named
register --reset   created if declared   all of it as declared                created if declared
schedule           created for a name    what an option names is set, and     created for a name
                                         --cron switches it on
unschedule         refused               deleted for a name, with its         refused
                                         automation
pause, resume      refused               paused; not paused                   refused
trigger, skip      refused               a run is started; left out           refused
=================  ====================  ===================================  ====================

The names that were created once are in a variable of the server, with the store that all of it belongs to
(``ServerRecord``). Code is the entrypoint, the pull steps and the form of the parameters.
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
from typing import Any
from uuid import UUID

import yaml
from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    DeploymentCreate,
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.variables import Variable
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
)
from flows.tags import MODEL_TAG, TAG, UNSCHEDULED
from tasks.errors import DataError, EnvironmentProblem, UsageError, without_credentials
from tasks.machine.words import suggest_spelling
from tasks.store import artifact_paths, housekeeping, identity, locks, model_folder, own_data
from tasks.store.identity import STORE_TAG, StoreIdentity

POOL = "gradmill"
REGISTERED = "gradmill_registered"  # a variable of the server
REFUSALS = (codes.BAD_REQUEST, codes.NOT_FOUND, codes.CONFLICT, codes.UNPROCESSABLE_ENTITY)
NAMES = {"retrain": "retrain-{}", "tune": "search-{}"}  # of the deployments of a name, by flow
ABOUT = "Set by gradmill schedule {0}; gradmill unschedule {0} ends its retrains."
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


def read_declared() -> list[DeclaredDeployment]:
    """The deployments of ``prefect.yaml``; its pull step names the folder of that file, or GRADMILL_HOME.

    Raises:
        UsageError: there is no such file, or it is not as we or Prefect expect it.
    """
    home = find_home()
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


def spec_for_name(
    flow: str, name: str, parameters: dict[str, Any], cron: str | None, timezone: str = "UTC"
) -> DeclaredDeployment:
    """The deployment of a name, derived from the first one in ``prefect.yaml`` that has the same flow.

    Raises:
        UsageError: ``prefect.yaml`` is missing or invalid, or declares none.
    """
    declared = next((each for each in read_declared() if each.flow == flow), None)
    if declared is None:
        found = f"{find_home() / 'prefect.yaml'} declares no deployment of the flow {flow}"
        raise UsageError(found, f"one, since the schedule of {name} needs it", "declare it again")
    timing = []
    if cron:
        when = CronSchedule(cron=cron, timezone=timezone)
        timing = [DeploymentScheduleCreate(slug=SLUG, schedule=when, active=True)]
    fields = {
        "name": NAMES[flow].format(name),
        "description": ABOUT.format(name),
        "tags": [TAG, flow, MODEL_TAG + name, *([] if cron else [UNSCHEDULED])],
        "parameters": {"parameters": parameters},
        "paused": False,
        "schedules": timing,
    }
    return declared.model_copy(update=fields)


# Whose a server is


class ServerRecord(BaseModel):
    """The variable ``REGISTERED`` of a server: the store that it belongs to, and what was created there once."""

    store: str
    place: str  # the path and the host of that store, in words
    created: list[str]


def require_own(client: SyncPrefectClient) -> ServerRecord | None:
    """The record of a server; None if no store has registered there.

    Raises:
        UsageError: another store has, or this store is a copy of one.
    """
    record, ours = _read_record(client), identity.require()
    if record and record.store != ours.id:
        raise UsageError(
            f"the deployments on {without_credentials(str(client.api_url))} belong to the store {record.store} in "
            f"{record.place}",
            f"a server for this store alone, which is {ours.id} in {ours.place}",
            "use another server, or that store with --artifacts; --adopt of gradmill up or register takes them over",
        )
    return record


def _read_record(client: SyncPrefectClient) -> ServerRecord | None:
    variable = client.read_variable_by_name(REGISTERED)
    return ServerRecord.model_validate(variable.value) if variable and isinstance(variable.value, dict) else None


# Updating a server


def register(strictly: bool = False, reset: Collection[str] = (), adopt: bool = False) -> list[str]:
    """Create what the configured server lacks, and update code; report changes, and return the deployments' names.

    Args:
        strictly: fail if GRADMILL_NOTIFY names no block.
        reset: declared deployments to restore to their declaration.
        adopt: take over what belongs to another store, and give a copied store an id of its own.

    Raises:
        UsageError: ``prefect.yaml`` is missing or invalid, a name in ``reset`` is not declared, or the server or this
            folder belongs to another store.
        EnvironmentProblem: no server answers, or it does not accept a deployment.
    """
    declared = {each.name: each for each in read_declared()}
    for name in reset:
        if name not in declared:
            to_do = suggest_spelling(name, declared, "name one of these; gradmill schedule sets those of your names")
            raise UsageError(f"no deployment {name} is declared", f"one of: {', '.join(declared)}", to_do)
    store = identity.require(adopt)
    changing = "another command is changing schedules; waiting for it"
    with locks.hold_lock(artifact_paths.locks() / "schedules", changing), api.client() as client:
        record = _read_record(client) if adopt else require_own(client)
        variable = client.read_variable_by_name(REGISTERED)
        is_of_82fab8f3 = variable is not None and record is None  # it created everything, and its value is an id
        created = record.created if record else [*declared] * is_of_82fab8f3
        _update_pool(client, store)
        for name, spec in declared.items():
            there = find(client, name, spec.flow)
            if name in reset or (there is None and name not in created):
                create_deployment(client, spec, "reset" if there else "created")
            elif there is None:
                print(f"{name}: not on this server, gradmill register --reset {name} makes it", file=sys.stderr)
            else:
                _update_code(client, spec, there, store.tag)
        _take_over(client, str(variable.value) if variable and is_of_82fab8f3 else None)
        flows_declared = {spec.flow: spec for spec in reversed(declared.values())}
        deployed = list_deployments(client)
        for there in deployed:
            flow = (there.entrypoint or "").rpartition(".")[2]
            if there.name not in declared and flow in flows_declared:
                _update_code(client, flows_declared[flow], there, store.tag)
        alerts.create_automations(client, {each.name: each.id for each in deployed})
        names = sorted({*created, *declared})
        value = ServerRecord(store=store.id, place=store.place, created=names).model_dump()
        if variable is None or variable.value != value:
            Variable.set(REGISTERED, value, overwrite=True)
        alerts.update_alerts(client, strictly)
    return sorted(each.name for each in deployed)


def _update_pool(client: SyncPrefectClient, store: StoreIdentity) -> None:
    """Create the work pool with the store in its description, or update that unless somebody has written another."""
    description = f"{store.tag} in {store.place}"
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", description=description))
    except ObjectAlreadyExists:
        known = client.read_work_pool(POOL).description or STORE_TAG
        if known.startswith(STORE_TAG) and known != description:
            client.update_work_pool(POOL, WorkPoolUpdate(description=description))


def find(client: SyncPrefectClient, name: str, flow: str) -> DeploymentResponse | None:
    """A deployment on a server, even without our tag."""
    with suppress(ObjectNotFound):
        return client.read_deployment_by_name(f"{flow}/{name}")
    return None


def create_deployment(client: SyncPrefectClient, spec: DeclaredDeployment, done: str = "created") -> DeploymentResponse:
    """Create a deployment as declared; an existing one loses other settings, and added schedules.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    fields = spec.model_dump(mode="json", exclude_unset=True, exclude={"flow_id", "name", "schedules", "tags"})
    fields |= spec.code_of(spec.parameters)
    tags = [*spec.tags, identity.require().tag]
    with _refusals_explained(spec.name):
        flow = client.create_flow_from_name(spec.flow)
        made = client.create_deployment(flow, spec.name, schedules=spec.schedules, tags=tags, **fields)
    print(f"{spec.name}: {done}", file=sys.stderr)
    return client.read_deployment(made)


def _update_code(
    client: SyncPrefectClient, spec: DeclaredDeployment, there: DeploymentResponse, store_tag: str
) -> None:
    """Update the fields that only Gradmill sets, with our tags among them; keep all others.

    An unchanged deployment is not touched, because an update plans its runs again.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    others = [tag for tag in there.tags if not tag.startswith(STORE_TAG) or tag == store_tag]
    tags = [*others, *(tag for tag in (TAG, store_tag) if tag not in others)]
    wanted = spec.code_of(there.parameters or {}) | {"tags": tags}
    changed = {field: value for field, value in wanted.items() if getattr(there, field) != value}
    if changed:
        with _refusals_explained(there.name):
            client.update_deployment(there.id, DeploymentUpdate(**changed))
        print(f"{there.name}: changed {', '.join(changed)}", file=sys.stderr)


def change_deployment(
    client: SyncPrefectClient,
    deployment: DeploymentResponse,
    *,
    cron: str | None = None,
    timezone: str | None = None,
    parameters: dict[str, Any] | None = None,
    paused: bool | None = None,
) -> DeploymentResponse:
    """Change the given settings of a deployment for good, and return it afterwards; all others are kept.

    A time applies to the schedule with a slug, which is ours, or to a new one; a cron also activates it. Tags follow:
    the model that ``parameters`` name, and whether a schedule starts runs.

    Args:
        client: a client of the server.
        deployment: the deployment on the server.
        cron: five fields.
        timezone: the time zone of the cron.
        parameters: values to merge into the present ones, ``{"name": …}``.
        paused: whether its schedules start no runs.

    Raises:
        UsageError: there is no cron for a time zone, or the form does not accept these parameters.
        EnvironmentProblem: the server does not accept them.
    """
    fields: dict[str, Any] = {"tags": deployment.tags}
    if paused is not None:
        fields["paused"] = paused
    if parameters:
        own = own_parameters(deployment)
        merged = merge_parameters(deployment.name, deployment.entrypoint, own, parameters)
        fields["parameters"] = {"parameters": merged}
        if name := parameters.get("name"):
            others = [tag for tag in deployment.tags if not tag.startswith(MODEL_TAG)]
            fields["tags"] = [*others, MODEL_TAG + name]
    with _refusals_explained(deployment.name):
        if (cron or timezone) and _change_time(client, deployment, cron, timezone):
            fields["tags"] = [tag for tag in fields["tags"] if tag != UNSCHEDULED]
        # After the time: the server may have planned with the old one, and an update plans again.
        client.update_deployment(deployment.id, DeploymentUpdate(**fields))
    return client.read_deployment(deployment.id)


def _change_time(
    client: SyncPrefectClient, deployment: DeploymentResponse, cron: str | None, timezone: str | None
) -> bool:
    """Change the cron, its time zone or both, and return whether that schedule starts runs."""
    known = next((each for each in deployment.schedules if each.slug), None)
    before = known.schedule if known and isinstance(known.schedule, CronSchedule) else None
    if cron is None and before is None:
        found = f"{deployment.name} has no cron to which {timezone} could apply"
        raise UsageError(found, "--cron", "give both")
    zone = timezone or (before and before.timezone) or "UTC"
    when = CronSchedule(cron=cron or (before and before.cron), timezone=zone)
    if known is None:
        new = DeploymentScheduleCreate(slug=SLUG, schedule=when, active=True)
        client.create_deployment_schedules(deployment.id, [new])
        return True
    is_active = known.active or cron is not None
    client.update_deployment_schedule(deployment.id, known.id, is_active, when)
    return is_active


# Schedules as 82fab8f3 and c692a25 kept them in artifacts/schedules/


class _OldSchedule(BaseModel):
    """A schedule of a name, with its changes that no server had when they were made (``pending``)."""

    flow: str = "retrain"
    name: str
    cron: str | None = None
    timezone: str = "UTC"
    active: bool = True
    on_drift: bool = False
    keep: int = 30
    paused: bool = False
    parameters: dict[str, Any]
    given: dict[str, Any] = {}
    server: str = ""
    pending: list[str] = []


class _OldSchedules(BaseModel):
    schedules: dict[str, _OldSchedule] = {}
    ended: dict[str, str] = {}  # the flows of deployments that a server may still have


def _read_old_schedules(folder: Path) -> _OldSchedules:
    """The one document of 82fab8f3, or the files of c692a25, one for each schedule.

    Raises:
        ValueError: one of them is damaged.
    """
    if (document := folder / "_schedules.json").exists():
        return _OldSchedules.model_validate_json(document.read_bytes())
    old = _OldSchedules()
    for flow, pattern in (("retrain", "*.json"), ("tune", "searches/*.json")):
        for path in folder.glob(pattern):
            schedule = _OldSchedule.model_validate_json(path.read_bytes())
            old.schedules[NAMES[flow].format(path.stem)] = schedule.model_copy(update={"flow": flow})
    return old


def _take_over(client: SyncPrefectClient, server: str | None) -> None:
    """Bring what artifacts/schedules/ has to a server, once; what is set or was deleted there stays.

    A folder that cannot be read is reported, and left. Searches for tables, which need none any more, end.

    Args:
        client: a client of the server.
        server: the id that 82fab8f3 gave it, if it did.
    """
    folder = artifact_paths.schedules_of_before()
    if not folder.is_dir():
        return
    try:
        old = _read_old_schedules(folder)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        print(f"no schedule of {folder} is taken over: {reason}; correct or remove it", file=sys.stderr)
        return
    for schedule in old.schedules.values():
        if not model_folder.list_versions(schedule.name):
            continue
        if schedule.flow == "tune" and _keeps_table(schedule.name):
            continue
        spec = spec_for_name(schedule.flow, schedule.name, schedule.parameters, schedule.cron, schedule.timezone)
        there, pending = find(client, spec.name, spec.flow), {*schedule.pending}
        if there is None and ("time" in pending or not server or schedule.server != server):
            timing = [each.model_copy(update={"active": schedule.active}) for each in spec.schedules or ()]
            there = create_deployment(client, spec.model_copy(update={"paused": schedule.paused, "schedules": timing}))
            pending = {"on_drift"}
        if there is None:
            continue
        if pending - {"on_drift"}:
            change_deployment(
                client,
                there,
                cron=schedule.cron if "time" in pending else None,
                timezone=schedule.timezone if "time" in pending and schedule.cron else None,
                parameters=schedule.given if "parameters" in pending else None,
                paused=schedule.paused if "paused" in pending else None,
            )
        if schedule.on_drift and "on_drift" in pending:
            alerts.save(client, alerts.load("retrain_on_drift", NAME=schedule.name, DEPLOYMENT_ID=there.id))
        if schedule.flow == "retrain":
            retention = housekeeping.Retention(keep=max(1, schedule.keep))
            retention.write(artifact_paths.retention(schedule.name))
    for name, flow in old.ended.items():
        if there := find(client, name, flow):
            delete(client, there)
    folder.rename(folder.with_name(".schedules-taken-over"))


def _keeps_table(name: str) -> bool:
    """Whether a name keeps versions of a table, as far as this can be read."""
    try:
        return own_data.keeps_table(name)
    except DataError:
        return False


def delete(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    """Delete the deployment of a name, and its automations; results of its runs are kept."""
    alerts.delete_on_drift(client, deployment.name.removeprefix("retrain-"))
    client.delete_deployment(deployment.id)


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
