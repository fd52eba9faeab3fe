"""Bring a server up to date with what we declare, and never over what somebody has set there.

What we registered last is kept on the server, in a Prefect variable for each deployment and automation: as digests, by
item. An item that is still as registered is ours to change; any other has been set by somebody and stays. Where no
variable tells (registered by ``prefect deploy`` or an older Gradmill), all that differs stays. Nothing is ever taken
away to be put back, and the variable is written last: a kill at any moment loses nothing, and the next registration
completes what is missing.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, VariableCreate, VariableUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound

from flows.server.declared import Declared
from flows.server.deployments import TAG
from tasks.errors import EnvironmentProblem

SCHEDULE = "schedule "  # and its slug: an item
REFUSALS = (codes.BAD_REQUEST, codes.NOT_FOUND, codes.CONFLICT, codes.UNPROCESSABLE_ENTITY)


def writable(
    wanted: dict[str, Any], there: dict[str, Any], registered: dict[str, str] | None
) -> tuple[dict[str, Any], list[str]]:
    """Of the items ``wanted`` those to write, and the names of those that somebody has set and that stay so.

    ``registered`` are the digests of what we wrote last, None where that is unknown.
    """
    differing = {name: value for name, value in wanted.items() if name not in there or there[name] != value}
    if registered is None:
        return {}, list(differing)
    known = {name: _digest(value) for name, value in there.items()}
    ours = {name: value for name, value in differing.items() if known.get(name) == registered.get(name)}
    return ours, [name for name in differing if name not in ours]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


class _Registered:
    """The digests of what we registered last under an id of the server's."""

    def __init__(self, client: SyncPrefectClient, of: UUID) -> None:
        self._client, self._name = client, f"gradmill_registered_{of}"
        variable = client.read_variable_by_name(self._name)
        self._there = variable is not None
        self.digests = variable.value if variable and isinstance(variable.value, dict) else None

    def note(self, wanted: dict[str, Any]) -> None:
        digests = {name: _digest(value) for name, value in wanted.items()}
        if not self._there:
            self._client.create_variable(VariableCreate(name=self._name, value=digests))
        elif digests != self.digests:
            self._client.update_variable(VariableUpdate(name=self._name, value=digests))


def deploy(client: SyncPrefectClient, declared: Declared) -> None:
    """Create a deployment, or change of it what is ours; say which.

    Raises:
        EnvironmentProblem: the server does not accept it.
    """
    wanted = declared.settings | {f"{SCHEDULE}{slug}": value for slug, value in declared.schedules.items()}
    with _accepted(declared.name):
        try:
            deployment = client.read_deployment_by_name(f"{declared.flow}/{declared.name}")
        except ObjectNotFound:
            created = _create(client, declared)
            _Registered(client, created).note(wanted)
            print(f"{declared.name}: created", file=sys.stderr)
            return
        registered = _Registered(client, deployment.id)
        found = _found(deployment)
        ours, kept = writable(wanted, found, registered.digests)
        parameters = (found if "parameters" in kept else declared.settings)["parameters"]
        code = {name: value for name, value in declared.code_of(parameters).items() if found.get(name) != value}
        marked = {} if TAG in deployment.tags else {"tags": [*deployment.tags, TAG]}  # or none of us would find it
        fields = code | {name: value for name, value in ours.items() if name in declared.settings} | marked
        if fields:
            client.update_deployment(deployment.id, DeploymentUpdate(**fields))
        for slug, value in declared.schedules.items():
            if f"{SCHEDULE}{slug}" in ours:
                _schedule(client, deployment, DeploymentScheduleCreate(slug=slug, **value))
        registered.note(wanted)
    _say(declared.name, "changed", fields | ours)
    _say(declared.name, "kept as set on the server:", [name for name in kept if name not in fields])


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


def _create(client: SyncPrefectClient, declared: Declared) -> UUID:
    """Everything in one request: a deployment without its schedules would seem to be one that somebody stripped."""
    fields: dict[str, Any] = declared.code_of(declared.settings["parameters"]) | declared.settings
    schedules = [DeploymentScheduleCreate(slug=slug, **value) for slug, value in declared.schedules.items()]
    flow = client.create_flow_from_name(declared.flow)
    return client.create_deployment(flow_id=flow, name=declared.name, schedules=schedules, **fields)


def _found(deployment: DeploymentResponse) -> dict[str, Any]:
    """Fields and schedules as ``Declared`` has them; what is not set is not there."""
    found = deployment.model_dump(mode="json", exclude_none=True)
    if limit := deployment.global_concurrency_limit:
        found["concurrency_limit"] = limit.limit
    schedules = {
        f"{SCHEDULE}{each.slug}": each.model_dump(mode="json", include={"schedule", "active", "parameters"})
        for each in deployment.schedules
        if each.slug
    }
    return found | schedules


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
        _Registered(client, client.create_automation(automation)).note(wanted)
        print(f"{automation.name}: created", file=sys.stderr)
        return
    known = found[0]
    registered = _Registered(client, known.id)
    ours, kept = writable(wanted, {name: _content(known) for name in wanted}, registered.digests)
    if ours:
        client.update_automation(known.id, automation.model_copy(update={"enabled": known.enabled}))
    registered.note(wanted)
    _say(automation.name, "changed", ours)
    _say(automation.name, "kept as set on the server:", kept)


def _content(automation: AutomationCore) -> Any:
    return _comparable(automation.model_dump(include=AutomationCore.model_fields.keys() - {"enabled"}))


def _comparable(document: Any) -> Any:
    """``document`` without the ids that each trigger gets anew, and with its sets in order."""
    if isinstance(document, dict):
        return {key: _comparable(value) for key, value in document.items() if key != "id"}
    if isinstance(document, set):
        return sorted(document)
    return [_comparable(each) for each in document] if isinstance(document, list) else document
