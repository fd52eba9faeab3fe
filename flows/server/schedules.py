"""Retrains of own names by a schedule: what ``gradmill schedule`` was told, kept in artifacts/ and on the server."""

import os
from contextlib import suppress
from typing import Any, Literal

from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from flows.server import api
from flows.server.declared import Declared
from flows.server.deploying import deploy
from flows.server.deployments import TAG
from tasks.errors import UsageError
from tasks.store import artifact_paths, own_data
from tasks.store.retention import Told

SLUG = "scheduled"


class Schedule(Told):
    """When a name is retrained, and with which parameters: those of its champion when it was scheduled."""

    schema_version: Literal[1] = 1
    cron: str
    timezone: str
    parameters: dict[str, Any]

    @property
    def deployment(self) -> str:
        """Its deployment's name."""
        return deployment(self.name)

    def declared(self, retrain: Declared) -> Declared:
        """Its deployment, otherwise like that of another retrain."""
        when = CronSchedule(cron=self.cron, timezone=self.timezone).model_dump(mode="json")
        settings = {
            "description": f"Retrains {self.name} as gradmill schedule was told; gradmill unschedule ends it.",
            "tags": [TAG, "retrain", f"model:{self.name}"],
            "parameters": {"parameters": self.parameters},
        }
        schedules = {SLUG: {"schedule": when, "active": True, "parameters": {}}}
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


def add(name: str, cron: str, timezone: str, keep: int = 30) -> Schedule:
    """Keep a schedule of a kept name, in the place of an earlier one; maintenance leaves ``keep`` newest versions.

    Raises:
        UsageError: there is no such name, or no such time.
        DataError: it is not known where its data are.
    """
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        found = f"--cron {cron!r} --timezone {timezone}: {error.errors()[0]['msg']}"
        raise UsageError(found, "five fields, as '0 3 * * *', and a zone, as Europe/Berlin", "correct it") from error
    parameters = own_data.again(name, {})
    for option in own_data.SPLITS.values():  # a run takes the rule that the newest version has fixed by then
        parameters["data"].pop(option, None)
    schedule = Schedule(name=name, cron=cron, timezone=timezone, parameters=parameters, keep=keep)
    path = artifact_paths.schedule(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule.write(path)
    return schedule


def tell_server(schedule: Schedule, deployments: list[Declared]) -> None:
    """Make or change its deployment now, and not only when the server starts again."""
    (wanted,) = [each for each in declared(deployments) if each.name == schedule.deployment]
    with api.client() as client:
        deploy(client, wanted)


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
    """Delete its deployment where there is one; what its runs have done stays."""
    with api.client() as client, suppress(ObjectNotFound):
        client.delete_deployment(client.read_deployment_by_name(f"retrain/{deployment(name)}").id)
