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
from flows.server import alerts, api, deployments
from flows.server.deployments import SLUG, DeploymentSpec
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
            if deployment is None:
                is_deleted = known is not None and (schedule is None or (schedule.server == known))
                if name in reset or not is_deleted or (schedule and "time" in schedule.pending):
                    deployments.make(client, spec)
                    if schedule:  # as if no other server had been told: what somebody deletes here stays deleted
                        facts = {"server": "", "sent": schedule.parameters, "pending": ()}
                        told = told.having(schedule.model_copy(update=facts))
            elif name in reset:
                deployments.reset(client, spec, deployment)
            else:
                deployments.update_code(client, spec, deployment)
        for name, flow in told.ended.items():
            delete(client, name, flow)
        there = {each.name: each for each in deployments.ours(client)}
        for name in wanted.keys() - there.keys():
            again = (
                f"schedule {told.schedules[name].name} --cron" if name in told.schedules else f"register --reset {name}"
            )
            print(f"{name}: not on this server, gradmill {again} makes it", file=sys.stderr)
        for automation in alerts.declared(told, {name: each.id for name, each in there.items()}):
            alerts.save(client, automation)
        server = _note_registered(client)
        left = [tell(client, each, server) for name, each in told.schedules.items() if name in there]
        alerts.keep(client, strictly)
        schedules.write(Schedules(schedules={each.deployment: each for each in left}))
    return sorted(there)


def find(client: SyncPrefectClient, spec: DeploymentSpec) -> DeploymentResponse | None:
    """A deployment on a server, also one without our tag."""
    with suppress(ObjectNotFound):
        return client.read_deployment_by_name(f"{spec.flow}/{spec.name}")
    return None


def delete(client: SyncPrefectClient, name: str, flow: str) -> None:
    """Delete a deployment that no schedule needs any more, and what else starts it; what its runs have done stays."""
    if flow == "retrain":
        alerts.delete_on_drift(client, name.removeprefix("retrain-"))
    with suppress(ObjectNotFound):
        client.delete_deployment(client.read_deployment_by_name(f"{flow}/{name}").id)


def tell(client: SyncPrefectClient, schedule: Schedule, server: str) -> Schedule:
    """Tell a server what it has still to be told of a schedule, and return it as it is set there then.

    Parameters that somebody has set there stay, but for what was asked for by ``--param``.

    Args:
        client: of the server.
        schedule: what it is to be.
        server: the id of the server.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    told, sent = Schedules().having(schedule), schedule.sent
    spec = specs(told)[schedule.deployment]
    if (deployment := find(client, spec)) is None:
        there, sent = client.read_deployment(deployments.make(client, spec)), schedule.parameters
    elif schedule.pending:
        change: dict[str, Any] = {"paused": schedule.paused} if "paused" in schedule.pending else {}
        if "time" in schedule.pending and schedule.cron:  # one that is off stays so unless a cron was given
            change |= {"cron": schedule.cron if schedule.active else None, "timezone": schedule.timezone}
        if "parameters" in schedule.pending:
            is_ours = (deployment.parameters or {}).get("parameters") in (schedule.sent, schedule.parameters)
            change |= {"parameters": schedule.parameters if is_ours else schedule.given, "are_all": is_ours}
            sent = schedule.parameters if is_ours else sent
        there = deployments.change(client, spec, deployment, **change)
    else:
        there = deployment
    if "on_drift" in schedule.pending or deployment is None:
        alerts.delete_on_drift(client, schedule.name if schedule.flow == "retrain" else "")
        for automation in alerts.retrains_on_drift(told, {schedule.deployment: there.id}):
            alerts.save(client, automation)
    if not schedule.pending and schedule.server not in ("", server):  # another server has the last word
        return schedule
    return read_back(schedule, there).model_copy(update={"sent": sent, "server": server, "pending": ()})


def read_back(schedule: Schedule, there: DeploymentResponse) -> Schedule:
    """A schedule as somebody has set it on a server, where that has not still to be told of something else."""
    timing = next((each for each in there.schedules if each.slug == SLUG), None)
    facts: dict[str, Any] = {} if "paused" in schedule.pending else {"paused": there.paused}
    if "time" not in schedule.pending and timing is None:
        facts |= {"cron": None}
    elif "time" not in schedule.pending and timing and isinstance(timing.schedule, CronSchedule):
        when = timing.schedule
        facts |= {"cron": when.cron, "timezone": when.timezone or "UTC", "active": timing.active}
    return schedule.model_copy(update=facts)


def _make_pool_and_limit(client: SyncPrefectClient) -> None:
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    try:
        client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)


def read_server_id(client: SyncPrefectClient) -> str | None:
    """The id of a server that all deployments have been made on; None of any other, one that a kill left half done."""
    if variable := client.read_variable_by_name(REGISTERED):
        return str(variable.value)
    return OF_BEFORE if any(each.name.startswith(OF_BEFORE) for each in client.read_variables(200)) else None


def _note_registered(client: SyncPrefectClient) -> str:
    """Give a server its id, unless it has one, in place of what older versions of Gradmill have noted there."""
    variable = client.read_variable_by_name(REGISTERED)
    if variable is None:
        variable = client.create_variable(VariableCreate(name=REGISTERED, value=uuid4().hex))
        for each in client.read_variables(200):
            if each.name.startswith(OF_BEFORE):
                client.delete_variable_by_name(each.name)
    return str(variable.value)
