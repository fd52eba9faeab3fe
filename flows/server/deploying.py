"""Bring a server up to date with what we declare, and never over what somebody has set there.

What we registered last is kept on the server, in a Prefect variable for each deployment and automation: as digests, by
item. An item that is still as registered is ours to change; any other has been set by somebody and stays. Where no
variable tells (registered by ``prefect deploy`` or an older Gradmill), all that differs stays. What stays of a
deployment is kept in artifacts/, too, and from then on is what we register, there and on every other server. Nothing
is ever taken away to be put back, and the variable is written last: a kill at any moment loses nothing, and the next
registration completes what is missing.
"""

import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from flows.server.declared import SCHEDULE, Declared, Items
from flows.server.deployments import TAG
from flows.server.kept import Kept
from flows.server.registered import Registered, writable
from tasks.errors import EnvironmentProblem

KEPT = "kept as set:"
REFUSALS = (codes.BAD_REQUEST, codes.NOT_FOUND, codes.CONFLICT, codes.UNPROCESSABLE_ENTITY)


def deploy(client: SyncPrefectClient, declared: Declared, quietly: bool = False) -> None:
    """Create a deployment, or change of it what is ours, and keep what is not; say which, but for what stays quietly.

    Raises:
        EnvironmentProblem: the server does not accept it.
        DataError: what is kept of it is damaged.
    """
    kept = Kept.of(declared.name)
    wanted = kept.over(declared.items)
    with _accepted(declared.name):
        try:
            deployment = client.read_deployment_by_name(f"{declared.flow}/{declared.name}")
        except ObjectNotFound:
            Registered(client, _create(client, declared, wanted, kept.added)).note(wanted)
            print(f"{declared.name}: created", file=sys.stderr)
            _say(declared.name, KEPT, kept.items)
            return
        registered = Registered(client, deployment.id)
        found = _found(deployment)
        ours, theirs = writable(wanted, found, registered.digests)
        now = wanted | {name: found.get(name) for name in theirs}
        added = _added(deployment, {*declared.items, *wanted, *(registered.digests or {})})
        code = declared.code_of(now.get("parameters") or {})
        marked = {} if TAG in deployment.tags else {"tags": [*deployment.tags, TAG]}  # or none of us would find it
        fields = {name: value for name, value in code.items() if found.get(name) != value} | marked
        fields |= {name: value for name, value in ours.items() if not name.startswith(SCHEDULE)}
        if fields:
            client.update_deployment(deployment.id, DeploymentUpdate(**fields))
        for name, value in ours.items():
            if name.startswith(SCHEDULE):
                _schedule(client, deployment, _to_create(name, value))
        kept = Kept.unlike(declared.items, now, added)
        kept.keep(declared.name)
        registered.note(kept.over(declared.items))
    _say(declared.name, "changed", fields | ours)
    _say(declared.name, KEPT, [name for name in kept.items if name not in fields | ours and not quietly])


@contextmanager
def _accepted(name: str) -> Iterator[None]:
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


def _say(name: str, what: str, items: Iterable[str]) -> None:
    if listed := ", ".join(items):
        print(f"{name}: {what} {listed}", file=sys.stderr)


def _create(client: SyncPrefectClient, declared: Declared, wanted: Items, added: list[dict[str, Any]]) -> UUID:
    """Everything in one request: a deployment without its schedules would seem to be one that somebody stripped."""
    fields = {name: value for name, value in wanted.items() if not name.startswith(SCHEDULE)}
    schedules = [_to_create(name, value) for name, value in wanted.items() if name.startswith(SCHEDULE)]
    schedules += [DeploymentScheduleCreate(**each) for each in added]
    flow = client.create_flow_from_name(declared.flow)
    code = declared.code_of(wanted.get("parameters", {}))
    return client.create_deployment(flow_id=flow, name=declared.name, schedules=schedules, **code | fields)


def _to_create(item: str, value: dict[str, Any]) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(slug=item.removeprefix(SCHEDULE), **value)


def _found(deployment: DeploymentResponse) -> Items:
    """Fields and schedules as ``Declared`` has them; what is not set is not there."""
    found = deployment.model_dump(mode="json", exclude_none=True)
    if limit := deployment.global_concurrency_limit:
        found["concurrency_limit"] = limit.limit
    return found | {f"{SCHEDULE}{each.slug}": _content_of(each) for each in deployment.schedules if each.slug}


def _added(deployment: DeploymentResponse, ours: Collection[str]) -> list[dict[str, Any]]:
    """The schedules that only whoever made them knows."""
    theirs = [each for each in deployment.schedules if f"{SCHEDULE}{each.slug}" not in ours]
    return [_content_of(each) | {"slug": each.slug} for each in theirs]


def _content_of(schedule: DeploymentSchedule) -> dict[str, Any]:
    return schedule.model_dump(mode="json", include={"schedule", "active", "parameters"})


def _schedule(client: SyncPrefectClient, deployment: DeploymentResponse, wanted: DeploymentScheduleCreate) -> None:
    """Add one schedule, or change that of its slug: all the others are left alone, which no PATCH of many promises."""
    known = {each.slug: each.id for each in deployment.schedules}
    if wanted.slug in known:
        client.update_deployment_schedule(
            deployment.id, known[wanted.slug], wanted.active, wanted.schedule, parameters=wanted.parameters
        )
    else:
        client.create_deployment_schedules(deployment.id, [wanted])


def automate(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or bring it up to date if it is ours; leave it on or off as it is.

    One that is up to date is not touched: an update makes the server forget what it waits for, such as the next
    heartbeat of a run that has died with the last ``up``.
    """
    wanted = {"trigger and actions": _content(automation)}
    found = client.read_automations_by_name(automation.name)
    if not found:
        Registered(client, client.create_automation(automation)).note(wanted)
        print(f"{automation.name}: created", file=sys.stderr)
        return
    known = found[0]
    registered = Registered(client, known.id)
    ours, kept = writable(wanted, {name: _content(known) for name in wanted}, registered.digests)
    if ours:
        client.update_automation(known.id, automation.model_copy(update={"enabled": known.enabled}))
    registered.note(wanted)
    _say(automation.name, "changed", ours)
    _say(automation.name, KEPT, kept)


def _content(automation: AutomationCore) -> Any:
    return _comparable(automation.model_dump(include=AutomationCore.model_fields.keys() - {"enabled"}))


def _comparable(document: Any) -> Any:
    """``document`` without the ids that each trigger gets anew, and with its sets in order."""
    if isinstance(document, dict):
        return {key: _comparable(value) for key, value in document.items() if key != "id"}
    if isinstance(document, set):
        return sorted(document)
    return [_comparable(each) for each in document] if isinstance(document, list) else document
