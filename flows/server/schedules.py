"""What ``gradmill schedule`` was told of own names: kept in artifacts/, and deployments on the server."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from uuid import UUID

from prefect._vendor.croniter.croniter import CroniterBadDateError, croniter
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from flows.server import alerts, api
from flows.server.declared import SCHEDULE, Declared
from flows.server.deploying import automate, deploy
from flows.server.deployments import TAG, UNSCHEDULED
from flows.server.kept import Kept
from tasks.errors import UsageError
from tasks.store.documents import Document

SLUG = "scheduled"


class Schedule(Document):
    """When a flow is run for a name, and with which parameters: those of its champion when it was scheduled."""

    FLOW: ClassVar[str]
    DEPLOYMENT: ClassVar[str]  # its name, and that of the model in it
    ABOUT: ClassVar[str]
    WHAT: ClassVar[str]

    schema_version: Literal[1] = 1
    name: str
    cron: str | None = None
    timezone: str = "UTC"
    parameters: dict[str, Any]

    @property
    def deployment(self) -> str:
        """Its deployment's name."""
        return self.DEPLOYMENT.format(self.name)

    @classmethod
    def path(cls, name: str) -> Path:
        """Where it is kept."""
        raise NotImplementedError

    @classmethod
    def kept(cls) -> list[Self]:
        """Every one that was told, by name.

        Raises:
            DataError: one of them is damaged.
        """
        every = cls.path("*")
        return [cls.read(path) for path in sorted(every.parent.glob(every.name))]

    @classmethod
    def add(cls, name: str, **given: Any) -> Self:
        """Keep when it is run for a name; what is None stays as an earlier schedule has it.

        Raises:
            UsageError: there is no such name, no such time, or nothing that would start a run.
            DataError: it is not known where its data are.
        """
        path = cls.path(name)
        told: dict[str, Any] = cls.read(path).model_dump() if os.path.lexists(path) else {}
        told |= {option: value for option, value in given.items() if value is not None}
        schedule = cls.model_validate(told | {"name": name, "parameters": {}})
        require_time(schedule.cron or "0 0 * * *", schedule.timezone)
        schedule = schedule.model_copy(update={"parameters": schedule.asked()})
        path.parent.mkdir(parents=True, exist_ok=True)
        schedule.write(path)
        if given.get("cron") or given.get("timezone"):  # in place of what has been set in the UI
            kept = Kept.of(schedule.deployment)
            kept.without(f"{SCHEDULE}{SLUG}").keep(schedule.deployment)
        return schedule

    def asked(self) -> dict[str, Any]:
        """The parameters of its runs.

        Raises:
            UsageError: there is no such name, or nothing that would start a run.
            DataError: it is not known where its data are.
        """
        raise NotImplementedError

    @classmethod
    def declared(cls, deployments: list[Declared]) -> list[Declared]:
        """The deployments of all of them, made after the first of ``deployments`` that has their flow."""
        like = next((each for each in deployments if each.flow == cls.FLOW), None)
        return [each._declared(like) for each in cls.kept()] if like else []

    def _declared(self, like: Declared) -> Declared:
        settings = {
            "description": self.ABOUT.format(self.name),
            "tags": [TAG, self.FLOW, f"model:{self.name}", *([] if self.cron else [UNSCHEDULED])],
            "parameters": {"parameters": self.parameters},
        }
        schedules = {}
        if self.cron:
            when = CronSchedule(cron=self.cron, timezone=self.timezone).model_dump(mode="json")
            schedules[SLUG] = {"schedule": when, "active": True, "parameters": {}}
        return like._replace(name=self.deployment, settings=like.settings | settings, schedules=schedules)

    def automation(self, deployed: dict[str, UUID]) -> AutomationCore | None:
        """What else starts its deployment, one of ``deployed``; None where nothing is to."""
        return None

    @classmethod
    def keep_what_is_set(cls, name: str, deployments: list[Declared]) -> None:
        """Keep what somebody has set by now of its deployment on the server, if it has one."""
        with api.client() as client:
            for each in cls.declared(deployments):
                if each.name == cls.DEPLOYMENT.format(name):
                    deploy(client, each, quietly=True)

    def tell_server(self, deployments: list[Declared]) -> None:
        """Make or change deployment and automation now, and not only when the server starts again."""
        (wanted,) = [each for each in self.declared(deployments) if each.name == self.deployment]
        with api.client() as client:
            deploy(client, wanted)
            there = client.read_deployment_by_name(f"{self.FLOW}/{self.deployment}").id
            if automation := self.automation({self.deployment: there}):
                automate(client, automation)
                for each in client.read_automations_by_name(automation.name):  # asked for just now
                    client.resume_automation(each.id)
            else:
                self._delete_automation(client, self.name)
            alerts.keep(client)

    @classmethod
    def _delete_automation(cls, client: SyncPrefectClient, name: str) -> None:
        """Of those for which ``automation`` makes one."""

    @classmethod
    def remove(cls, name: str) -> None:
        """Forget one.

        Raises:
            UsageError: there is none.
        """
        path = cls.path(name)
        if not os.path.lexists(path):
            told = ", ".join(each.name for each in cls.kept()) or "none"
            raise UsageError(f"no schedule {cls.WHAT} {name}", f"one of: {told}", "see gradmill status")
        path.unlink()
        Kept().keep(cls.DEPLOYMENT.format(name))

    @classmethod
    def remove_from_server(cls, name: str) -> None:
        """Delete its automation and its deployment where there are any; what its runs have done stays."""
        with api.client() as client, suppress(ObjectNotFound):
            cls._delete_automation(client, name)
            full_name = f"{cls.FLOW}/{cls.DEPLOYMENT.format(name)}"
            client.delete_deployment(client.read_deployment_by_name(full_name).id)
            alerts.keep(client)


def require_time(cron: str, timezone: str) -> None:
    """Refuse what is no time of a schedule.

    Raises:
        UsageError: there is no such time.
    """
    try:
        CronSchedule(cron=cron, timezone=timezone)
        croniter(cron).get_next()
    except (ValidationError, CroniterBadDateError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "there is no such day"
        found = f"--cron {cron!r} --timezone {timezone}: {reason}"
        raise UsageError(found, "five fields, as '0 3 * * *', and a zone, as Europe/Berlin", "correct it") from error
