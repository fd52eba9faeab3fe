"""What a Prefect server must know before scheduled runs: pool, GPU limit, deployments, automations. All idempotent."""

import hashlib
import os
import socket
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate, WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

import flows
from flows.server import alerts, api, automations, deployments
from flows.server.deployments import DeploymentSpec
from tasks.errors import UsageError
from tasks.machine.words import nearest
from tasks.stage.gpu_lock import LIMIT
from tasks.store import artifact_paths, schedules
from tasks.store.schedules import Schedule, Schedules

POOL = "gradmill"
REGISTERED = "gradmill_registered"  # a variable of a server that all deployments have been made on
OF_BEFORE = "gradmill_registered_"  # begins the names of variables that older versions have left there


def home() -> Path:
    """The folder with ``prefect.yaml``: the checkout or, in an image, the one that GRADMILL_HOME names.

    Raises:
        UsageError: there is none.
    """
    named = os.environ.get("GRADMILL_HOME")
    for folder in (Path(flows.__file__).parents[1], *([Path(named)] if named else [])):
        if (folder / "prefect.yaml").is_file():
            return folder
    raise UsageError("no prefect.yaml here", "a checkout of Gradmill, or its image", "install it from a checkout")


def worker() -> str:
    """What the worker is called of the ``gradmill up`` of these artifacts; the next one takes its place."""
    return f"{socket.gethostname()} {hashlib.sha256(str(artifact_paths.root()).encode()).hexdigest()[:6]}"


def specs(told: Schedules) -> dict[str, DeploymentSpec]:
    """The deployments of ``prefect.yaml``, and those that ``gradmill schedule`` was told of, by name.

    Raises:
        UsageError: there is no ``prefect.yaml``, or it is not as it should be.
    """
    declared = deployments.read_declared(home())
    first = {each.flow: each for each in reversed(declared)}
    own = [first[each.flow].for_schedule(each) for each in told.schedules.values() if each.flow in first]
    return {each.name: each for each in [*declared, *own]}


def register(strictly: bool = False, reset: Collection[str] = ()) -> list[str]:
    """Tell the configured server of what it lacks, and say what is changed; return the names of the deployments.

    A server that all deployments have been made on once is right about them: what somebody has set there stays, and
    what somebody has deleted is not made again. It is told of schedules that were changed or ended without it.

    Args:
        strictly: refuse where GRADMILL_NOTIFY names no block.
        reset: deployments that are to be as they are declared.

    Raises:
        UsageError: there is no ``prefect.yaml``, or it is not as it should be; none is declared of a name in ``reset``.
        EnvironmentProblem: no server answers, or it does not accept a deployment.
        DataError: the document of schedules is damaged.
    """
    with schedules.locked(), api.client() as client:
        told = schedules.read()
        wanted = specs(told)
        for name in reset:
            if name not in wanted:
                to_do = nearest(name, wanted, "name one of these")
                raise UsageError(f"no deployment {name} is declared", f"one of: {', '.join(wanted)}", to_do)
        _make_pool_and_limit(client)
        known = read_server_id(client) if deployments.ours(client) else None  # else it is new, or has lost everything
        for name, spec in wanted.items():
            schedule, deployment = told.schedules.get(name), find(client, spec)
            is_deleted = known is not None and (schedule is None or schedule.told_to == known)
            if deployment is None:
                if name in reset or not is_deleted:
                    deployments.make(client, spec)
            elif name in reset:
                deployments.reset(client, spec, deployment)
            elif schedule and not schedule.told_to:
                deployments.update_settings(client, spec, deployment)
            else:
                deployments.update_code(client, spec, deployment)
        for name, flow in told.ended.items():
            delete(client, name, flow)
        there = {each.name: each for each in deployments.ours(client)}
        for name in wanted.keys() - there.keys():
            print(f"{name}: not on this server, gradmill register --reset {name} makes it", file=sys.stderr)
        for automation in automations.wanted(told, {name: each.id for name, each in there.items()}):
            automations.automate(client, automation)
        alerts.keep(client, strictly)
        server = _note_registered(client)
        kept = [_as_set(each, there[name]) for name, each in told.schedules.items() if name in there]
        left = {each.deployment: each.model_copy(update={"told_to": server}) for each in kept}
        schedules.write(Schedules(schedules=left))
    return sorted(there)


def find(client: SyncPrefectClient, spec: DeploymentSpec) -> DeploymentResponse | None:
    """A deployment on a server, also one without our tag."""
    with suppress(ObjectNotFound):
        return client.read_deployment_by_name(f"{spec.flow}/{spec.name}")
    return None


def delete(client: SyncPrefectClient, name: str, flow: str) -> None:
    """Delete a deployment that no schedule needs any more, and what else starts it; what its runs have done stays."""
    automations.delete_of(client, name)
    with suppress(ObjectNotFound):
        client.delete_deployment(client.read_deployment_by_name(f"{flow}/{name}").id)


def tell(client: SyncPrefectClient, schedule: Schedule, before: Schedule | None) -> Schedule:
    """Tell a server of one schedule, and return it as it is kept then; parameters that somebody has set there stay.

    Args:
        client: of the server.
        schedule: what it is to be.
        before: what it was, if it was told before.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    told = Schedules().having(schedule)
    spec = specs(told)[schedule.deployment]
    if (deployment := find(client, spec)) is None:
        there = deployments.make(client, spec)
    else:
        there, set_there = deployment.id, (deployment.parameters or {}).get("parameters")
        are_set = before is not None and set_there != before.parameters
        deployments.update_settings(client, spec, deployment, ["parameters"] if are_set else [])
    automations.delete_of(client, schedule.deployment)
    for automation in automations.of_schedules(told, {schedule.deployment: there}):
        automations.automate(client, automation)
    alerts.keep(client)
    return schedule.model_copy(update={"told_to": read_server_id(client) or ""})


def read_schedule(client: SyncPrefectClient, told: Schedule) -> Schedule | None:
    """A schedule as somebody has set it on a server; None where it was deleted there."""
    try:
        deployment = client.read_deployment_by_name(f"{told.flow}/{told.deployment}")
    except ObjectNotFound:
        return None if told.told_to == read_server_id(client) else told
    return _as_set(told, deployment)


def _as_set(told: Schedule, deployment: DeploymentResponse) -> Schedule:
    if not told.told_to:  # it was changed since
        return told
    timing = next((each.schedule for each in deployment.schedules if each.active), None)
    facts: dict[str, Any] = {"paused": deployment.paused}
    if isinstance(timing, CronSchedule):
        facts |= {"cron": timing.cron, "timezone": timing.timezone or "UTC"}
    return told.model_copy(update=facts)


def _make_pool_and_limit(client: SyncPrefectClient) -> None:
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    try:
        client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)


def read_server_id(client: SyncPrefectClient) -> str | None:
    """The id of a server that all deployments have been made on; None of any other, one that a kill left half done."""
    variables = {each.name: each.value for each in client.read_variables(200)}
    is_older = any(name.startswith(OF_BEFORE) for name in variables)
    return str(variables[REGISTERED]) if REGISTERED in variables else OF_BEFORE if is_older else None


def _note_registered(client: SyncPrefectClient) -> str:
    """Give a server its id, unless it has one, in place of what older versions of Gradmill have noted there."""
    server = client.read_variable_by_name(REGISTERED)
    if server is None:
        server = client.create_variable(VariableCreate(name=REGISTERED, value=uuid4().hex))
    for each in client.read_variables(200):
        if each.name.startswith(OF_BEFORE):
            client.delete_variable_by_name(each.name)
    return str(server.value)
