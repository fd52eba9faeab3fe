"""Retrains of own names by a schedule: what ``gradmill schedule`` was told, kept in artifacts/ and on the server."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from flows.server import api, automations
from flows.server.declared import Declared
from flows.server.deploying import automate, deploy
from flows.server.deployments import TAG, UNSCHEDULED
from tasks.errors import UsageError
from tasks.store import artifact_paths, own_data
from tasks.store.retention import Told

SLUG = "scheduled"


class Schedule(Told):
    """When a name is retrained, and with which parameters: those of its champion when it was scheduled."""

    schema_version: Literal[1] = 1
    cron: str | None
    timezone: str
    on_drift: bool = False
    parameters: dict[str, Any]

    @property
    def deployment(self) -> str:
        """Its deployment's name."""
        return deployment(self.name)

    def declared(self, retrain: Declared) -> Declared:
        """Its deployment, otherwise like that of another retrain."""
        settings = {
            "description": f"Retrains {self.name} as gradmill schedule was told; gradmill unschedule ends it.",
            "tags": [TAG, "retrain", f"model:{self.name}", *([] if self.cron else [UNSCHEDULED])],
            "parameters": {"parameters": self.parameters},
        }
        schedules = {}
        if self.cron:
            when = CronSchedule(cron=self.cron, timezone=self.timezone).model_dump(mode="json")
            schedules[SLUG] = {"schedule": when, "active": True, "parameters": {}}
        return retrain._replace(name=self.deployment, settings=retrain.settings | settings, schedules=schedules)


def deployment(name: str) -> str:
    """The deployment that retrains a name."""
    return f"retrain-{name}"


def kept() -> list[Schedule]:
    """Every schedule that was told, by name.

    Raises:
        DataError: one of them is damaged.
    """
    return [Schedule.read(path) for path in sorted(artifact_paths.schedules().glob("*.json"))]


def declared(deployments: list[Declared]) -> list[Declared]:
    """Their deployments, made after the first of ``deployments`` that retrains."""
    retrain = next((each for each in deployments if each.flow == "retrain"), None)
    return [each.declared(retrain) for each in kept()] if retrain else []


def add(
    name: str,
    cron: str | None = None,
    timezone: str | None = None,
    on_drift: bool | None = None,
    keep: int | None = None,
) -> Schedule:
    """Keep when a name is retrained; what is None stays as an earlier schedule has it.

    Maintenance leaves the ``keep`` newest versions.

    Raises:
        UsageError: there is no such name, no such time, or nothing that would start a retrain.
        DataError: it is not known where its data are.
    """
    path = artifact_paths.schedule(name)
    earlier = Schedule.read(path).model_dump() if os.path.lexists(path) else {}
    before: dict[str, Any] = {"cron": None, "timezone": "UTC"} | earlier
    given = {"cron": cron, "timezone": timezone, "on_drift": on_drift, "keep": keep}
    told: dict[str, Any] = before | {option: value for option, value in given.items() if value is not None}
    if told["cron"] is None and not told.get("on_drift"):
        raise UsageError(f"nothing that would start a retrain of {name}", "--cron, --on-drift or both", "give one")
    require_time(told["cron"] or "0 0 * * *", told["timezone"])
    parameters = own_data.again(name, {})
    own_data.leave_split_open(parameters["data"])
    schedule = Schedule.model_validate(told | {"name": name, "parameters": parameters})
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule.write(path)
    return schedule


def require_time(cron: str, timezone: str) -> None:
    """Refuse what is no time of a schedule.

    Raises:
        UsageError: there is no such time.
    """
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        found = f"--cron {cron!r} --timezone {timezone}: {error.errors()[0]['msg']}"
        raise UsageError(found, "five fields, as '0 3 * * *', and a zone, as Europe/Berlin", "correct it") from error


def on_drift(schedule: Schedule, deployed: Mapping[str, UUID]) -> AutomationCore | None:
    """What starts its deployment, one of ``deployed``, when the name's input drifts; None where nothing is to."""
    return automations.on_drift(schedule.name, deployed[schedule.deployment]) if schedule.on_drift else None


def tell_server(schedule: Schedule, deployments: list[Declared]) -> None:
    """Make or change deployment and automation now, and not only when the server starts again."""
    (wanted,) = [each for each in declared(deployments) if each.name == schedule.deployment]
    with api.client() as client:
        deploy(client, wanted)
        there = client.read_deployment_by_name(f"retrain/{schedule.deployment}").id
        if automation := on_drift(schedule, {schedule.deployment: there}):
            automate(client, automation)
            for each in client.read_automations_by_name(automation.name):  # asked for just now
                client.resume_automation(each.id)
        else:
            _delete_automation(client, schedule.name)


def _delete_automation(client: SyncPrefectClient, name: str) -> None:
    for each in client.read_automations_by_name(automations.on_drift(name, UUID(int=0)).name):
        client.delete_automation(each.id)


def remove(name: str) -> None:
    """Forget a schedule.

    Raises:
        UsageError: there is none.
    """
    path = artifact_paths.schedule(name)
    if not os.path.lexists(path):
        told = ", ".join(each.name for each in kept()) or "none"
        raise UsageError(f"no schedule of {name}", f"one of: {told}", "see gradmill status")
    path.unlink()


def remove_from_server(name: str) -> None:
    """Delete its automation and its deployment where there are any; what its runs have done stays."""
    with api.client() as client, suppress(ObjectNotFound):
        _delete_automation(client, name)
        client.delete_deployment(client.read_deployment_by_name(f"retrain/{deployment(name)}").id)
