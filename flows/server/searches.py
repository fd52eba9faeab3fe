"""Searches for settings by a schedule: what ``gradmill schedule NAME --tune`` was told, kept and on the server."""

import os
from contextlib import suppress
from typing import Any, Literal

from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from flows.server import api, schedules
from flows.server.declared import Declared
from flows.server.deploying import deploy
from flows.server.deployments import TAG
from tasks.errors import UsageError
from tasks.parameters import TuneParameters
from tasks.store import artifact_paths, own_data
from tasks.store.documents import Document

MONTHLY = "0 2 1 * *"  # an hour before the nightly retrains


class Schedule(Document):
    """When settings are searched for a name, and from which: those of its champion when it was scheduled."""

    schema_version: Literal[1] = 1
    name: str
    cron: str
    timezone: str
    parameters: dict[str, Any]

    @property
    def deployment(self) -> str:
        """Its deployment's name."""
        return deployment(self.name)

    def declared(self, tune: Declared) -> Declared:
        """Its deployment, otherwise like that of another search."""
        settings = {
            "description": f"Searches settings for {self.name}; gradmill unschedule {self.name} --tune ends it.",
            "tags": [TAG, "tune", f"model:{self.name}"],
            "parameters": {"parameters": self.parameters},
        }
        when = CronSchedule(cron=self.cron, timezone=self.timezone).model_dump(mode="json")
        planned = {schedules.SLUG: {"schedule": when, "active": True, "parameters": {}}}
        return tune._replace(name=self.deployment, settings=tune.settings | settings, schedules=planned)


def deployment(name: str) -> str:
    """The deployment that searches settings for a name; a name may be ``monthly``, as in ``tune-monthly``."""
    return f"search-{name}"


def kept() -> list[Schedule]:
    """Every one that was told, by name.

    Raises:
        DataError: one of them is damaged.
    """
    return [Schedule.read(path) for path in sorted(artifact_paths.search_schedules().glob("*.json"))]


def declared(deployments: list[Declared]) -> list[Declared]:
    """Their deployments, made after the first of ``deployments`` that searches."""
    tune = next((each for each in deployments if each.flow == "tune"), None)
    return [each.declared(tune) for each in kept()] if tune else []


def add(name: str, cron: str | None = None, timezone: str | None = None) -> Schedule:
    """Keep when settings are searched for a name; what is None stays as an earlier schedule has it, or is monthly.

    Raises:
        UsageError: there is no such name, or no such time.
        DataError: it is not known where its data are.
    """
    path = artifact_paths.search_schedule(name)
    earlier = Schedule.read(path) if os.path.lexists(path) else None
    cron = cron or (earlier.cron if earlier else MONTHLY)
    timezone = timezone or (earlier.timezone if earlier else "UTC")
    schedules.require_time(cron, timezone)
    again = own_data.again(name, {"tuned": False})  # from the settings that its champion has
    own_data.leave_split_open(again["data"])
    parameters = {field: again[field] for field in ("name", "training", "data")}
    TuneParameters.model_validate(parameters)
    schedule = Schedule(name=name, cron=cron, timezone=timezone, parameters=parameters)
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule.write(path)
    return schedule


def tell_server(schedule: Schedule, deployments: list[Declared]) -> None:
    """Make or change its deployment now, and not only when the server starts again."""
    (wanted,) = [each for each in declared(deployments) if each.name == schedule.deployment]
    with api.client() as client:
        deploy(client, wanted)


def remove(name: str) -> None:
    """Forget one.

    Raises:
        UsageError: there is none.
    """
    path = artifact_paths.search_schedule(name)
    if not os.path.lexists(path):
        told = ", ".join(each.name for each in kept()) or "none"
        raise UsageError(f"no schedule that searches settings for {name}", f"one of: {told}", "see gradmill status")
    path.unlink()


def remove_from_server(name: str) -> None:
    """Delete its deployment where there is one; what its runs have done stays."""
    with api.client() as client, suppress(ObjectNotFound):
        client.delete_deployment(client.read_deployment_by_name(f"tune/{deployment(name)}").id)
