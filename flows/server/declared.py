"""The deployments that ``prefect.yaml`` declares, in the form in which Prefect's API takes and returns them."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prefect._vendor.croniter.croniter import CroniterBadDateError, croniter
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, ValidationError

from flows.server.deployments import FORMS, TAG
from tasks.errors import UsageError
from tasks.parameters import Learned, narrow_form

KINDS: dict[str, type[BaseModel]] = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}
SCHEDULE = "schedule "  # and its slug: an item
Items = dict[str, Any]  # what may be changed in Prefect's UI: fields of a deployment, and schedules
VARIABLE = re.compile(r"\{\{ *\$(\w+) *\}\}")  # of the environment, as ``prefect deploy`` takes it


class Declared(NamedTuple):
    """A deployment.

    ``code`` is what only we know; ``settings`` and ``schedules`` (by slug) may be changed in Prefect's UI.
    """

    flow: str
    name: str
    code: dict[str, Any]
    settings: dict[str, Any]
    schedules: dict[str, dict[str, Any]]

    @property
    def items(self) -> Items:
        """Settings and schedules."""
        return self.settings | {f"{SCHEDULE}{slug}": value for slug, value in self.schedules.items()}

    def code_of(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """What only we know where these are its parameters, which somebody may have set: its form is theirs."""
        form = FORMS[self.code["entrypoint"]]
        if issubclass(form, Learned):
            form = narrow_form(form, parameters.get("parameters", {}))
        return self.code | {"parameter_openapi_schema": schema(form)}


class _Strict(BaseModel):
    """What we do not know, as a build step, is refused instead of left out in silence."""

    model_config = ConfigDict(extra="forbid")


class _Schedule(BaseModel):
    """Further fields, as ``cron``, are those of one of Prefect's schedules."""

    model_config = ConfigDict(extra="allow")
    slug: str
    active: bool = True
    parameters: dict[str, Any] = {}

    def as_taken(self) -> dict[str, Any]:
        timing = self.model_extra or {}
        kinds = [kind for key, kind in KINDS.items() if key in timing]
        if len(kinds) != 1:
            raise ValueError(f"schedule {self.slug} needs one of {', '.join(KINDS)}")
        schedule = kinds[0].model_validate(timing).model_dump(mode="json")
        return {"schedule": schedule, "active": self.active, "parameters": self.parameters}


class _Limit(ConcurrencyOptions):
    limit: int


class _Pool(_Strict):
    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = {}


class _Deployment(_Strict):
    name: str
    entrypoint: str
    work_pool: _Pool
    description: str | None = None
    tags: list[str] = []
    parameters: dict[str, Any] = {}
    enforce_parameter_schema: bool = True
    schedules: list[_Schedule] = []
    concurrency_limit: _Limit | int | None = None


class _File(_Strict):
    model_config = ConfigDict(extra="forbid", alias_generator=lambda name: name.replace("_", "-"))
    name: str | None = None
    prefect_version: str | None = None
    definitions: Any = None
    pull: list[dict[str, Any]]
    deployments: list[_Deployment]


def declared(home: Path) -> list[Declared]:
    """The deployments of the ``prefect.yaml`` in ``home``; its pull step names that folder, or GRADMILL_HOME.

    Raises:
        UsageError: it is not as we or Prefect take it.
    """
    path = home / "prefect.yaml"
    environment = {"GRADMILL_HOME": str(home)} | os.environ
    try:
        text = json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str)
        if missing := set(VARIABLE.findall(text)) - environment.keys():
            raise ValueError(f"{', '.join(sorted(missing))} is not set in the environment")
        file = _File.model_validate_json(VARIABLE.sub(lambda found: json.dumps(environment[found[1]])[1:-1], text))
        return [_declared(file, each) for each in file.deployments]
    except (yaml.YAMLError, ValueError) as error:  # no YAML, not in UTF-8, or not as we take it
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UsageError(
            f"{path} is not as gradmill register takes it: {reason}",
            "what a prefect.yaml of Gradmill has, with a slug for every schedule",
            "correct it; prefect deploy registers deployments of other kinds",
        ) from error


def _declared(file: _File, deployment: _Deployment) -> Declared:
    limit = deployment.concurrency_limit
    if deployment.entrypoint not in FORMS:
        raise ValueError(
            f"{deployment.name}: entrypoint {deployment.entrypoint} is none of {', '.join(map(str, FORMS))}"
        )
    settings = {
        "description": deployment.description,
        "tags": list(dict.fromkeys([*deployment.tags, TAG])),
        "parameters": deployment.parameters,
        "paused": False,
        "enforce_parameter_schema": deployment.enforce_parameter_schema,
        "work_pool_name": deployment.work_pool.name,
        "work_queue_name": deployment.work_pool.work_queue_name,
        "job_variables": deployment.work_pool.job_variables,
        "concurrency_limit": limit.limit if isinstance(limit, _Limit) else limit,
        "concurrency_options": limit.model_dump(mode="json", exclude_none=True, exclude={"limit"})
        if isinstance(limit, _Limit)
        else None,
    }
    return Declared(
        flow=deployment.entrypoint.rpartition(".")[2],
        name=deployment.name,
        code={"entrypoint": deployment.entrypoint, "pull_steps": file.pull},
        settings={key: value for key, value in settings.items() if value is not None},
        schedules={each.slug: each.as_taken() for each in deployment.schedules},
    )


def schema(form: type[BaseModel]) -> dict[str, Any]:
    """What Prefect's form asks for: that of our flows, which take one ``form``, without importing them (and torch)."""

    def flow(parameters: Any) -> None: ...

    flow.__annotations__["parameters"] = form
    flow.__defaults__ = (form(),)
    return parameter_schema(flow).model_dump(exclude_unset=True)


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
        found = f"--cron {cron!r} --timezone {timezone}: {reason.removeprefix('Value error, ')}"
        raise UsageError(found, "five fields, as '0 3 * * *', and a zone, as Europe/Berlin", "correct it") from error
