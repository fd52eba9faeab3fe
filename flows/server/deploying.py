"""Bring a server up to date with what we declare, and never over what somebody has set there.

What we registered last is kept on the server, in a Prefect variable for each deployment and automation: as digests, by
item. An item that is still as registered is ours to change; any other has been set by somebody and stays. Where no
variable tells (registered by ``prefect deploy`` or an older Gradmill), all that differs stays. What stays of a
deployment is kept in artifacts/, too, and from then on is what we register, there and on every other server. The
variable tells it apart from what is declared: only artifacts that have kept it write over it, so a registration that
has none of them (a container's, a colleague's) resets nothing. Nothing is ever taken away to be put back, and the
variable is written last: a kill at any moment loses nothing, and the next registration completes what is missing.
"""

import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from flows.server import found
from flows.server.declared import SCHEDULE, Declared, Items
from flows.server.deployments import TAG
from flows.server.kept import Kept
from flows.server.registered import Registered, digest, writable
from tasks.errors import EnvironmentProblem

KEPT = "kept as set:"
REFUSALS = (codes.BAD_REQUEST, codes.NOT_FOUND, codes.CONFLICT, codes.UNPROCESSABLE_ENTITY)


def deploy(client: SyncPrefectClient, declared: Declared, quietly: bool = False, given: Collection[str] = ()) -> None:
    """Create a deployment, or change of it what is ours, and keep what is not.

    Say which, but for what stays quietly, and for what a command was given: that says so itself.

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
            registered = Registered(client, _create(client, declared, wanted, kept.added))
            registered.note(declared.items, _digests(kept.items), list(map(found.mark, kept.added)))
            print(f"{declared.name}: created", file=sys.stderr)
            _say(declared.name, KEPT, kept.items)
            return
        changed, now = _bring_up_to_date(client, declared, kept, deployment, adopting=quietly)
    _say(declared.name, "changed", [name for name in changed if name not in given])
    _say(declared.name, KEPT, [name for name in now if name not in {*changed, *given} and not quietly])


def _bring_up_to_date(
    client: SyncPrefectClient, declared: Declared, kept: Kept, deployment: DeploymentResponse, adopting: bool
) -> tuple[list[str], list[str]]:
    """Return the names of what is changed, and of what somebody has set.

    What somebody has set by other artifacts than these is left to them, unless ``adopting``.
    """
    there, wanted = found.items(deployment), kept.over(declared.items)
    registered, known = Registered(client, deployment.id), kept.ever()
    foreign = {name: each for name, each in registered.kept.items() if each not in known.get(name, ())}
    left = {name: there.get(name) for name, each in foreign.items() if digest(there.get(name)) == each}
    ours, theirs = writable({name: wanted[name] for name in wanted if name not in left}, there, registered.digests)
    now = wanted | {name: there.get(name) for name in theirs}
    if adopting:
        now, left = now | left, {}
    code = declared.code_of((now | left).get("parameters") or {})
    marked = {} if TAG in deployment.tags else {"tags": [*deployment.tags, TAG]}  # or none of us would find it
    fields = {name: value for name, value in code.items() if there.get(name) != value} | marked
    fields |= {name: value for name, value in ours.items() if not name.startswith(SCHEDULE)}
    if fields:
        client.update_deployment(deployment.id, DeploymentUpdate(**fields))
    names = {*declared.items, *wanted, *(registered.digests or {}), *registered.kept}
    added = [*found.added(deployment, names), *_add_missing(client, deployment, kept, registered)]
    for name, value in ours.items():
        if name.startswith(SCHEDULE):
            _schedule(client, deployment, _to_create(name, value))
    gone = [name for name in known if name not in wanted and digest(there.get(name)) == registered.kept.get(name)]
    removed = _remove_schedules(client, deployment, [name for name in gone if name not in foreign])
    kept = Kept.unlike(declared.items, now, added)
    kept.keep(declared.name)
    noted = foreign | _digests({name: value for name, value in kept.items.items() if name not in left})
    registered.note(declared.items, noted, list(map(found.mark, added)))
    if changed := [*fields, *(name for name in ours if name not in fields), *removed]:
        # Nothing new, but the server drops its plan again: it may have read before the change and planned after it.
        client.update_deployment(deployment.id, DeploymentUpdate())
    return changed, [*kept.items, *left]


def _digests(items: Items) -> dict[str, str]:
    return {name: digest(value) for name, value in items.items()}


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


def _schedule(client: SyncPrefectClient, deployment: DeploymentResponse, wanted: DeploymentScheduleCreate) -> None:
    """Add one schedule, or change that of its slug: all the others are left alone, which no PATCH of many promises."""
    known = {each.slug: each.id for each in deployment.schedules}
    if wanted.slug in known:
        client.update_deployment_schedule(
            deployment.id, known[wanted.slug], wanted.active, wanted.schedule, parameters=wanted.parameters
        )
    else:
        client.create_deployment_schedules(deployment.id, [wanted])


def _add_missing(
    client: SyncPrefectClient, deployment: DeploymentResponse, kept: Kept, registered: Registered
) -> list[dict[str, Any]]:
    """Create and return schedules that were added on another server; those that this one has had were deleted here."""
    there = {found.mark(each) for each in found.added(deployment, ())}
    missing = [each for each in kept.added if found.mark(each) not in there.union(registered.added)]
    if missing:
        client.create_deployment_schedules(deployment.id, [DeploymentScheduleCreate(**each) for each in missing])
    return missing


def _remove_schedules(client: SyncPrefectClient, deployment: DeploymentResponse, items: list[str]) -> list[str]:
    known = {f"{SCHEDULE}{each.slug}": each.id for each in deployment.schedules if each.slug}
    for name in (there := [name for name in items if name in known]):
        client.delete_deployment_schedule(deployment.id, known[name])
    return there


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
