"""A deployment as it is found on a server, in the form in which we declare ours."""

from collections.abc import Collection
from typing import Any

from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse

from flows.server.declared import SCHEDULE, Items
from flows.server.registered import digest


def items(deployment: DeploymentResponse) -> Items:
    """Fields and schedules as ``Declared`` has them; what is not set is not there."""
    found = deployment.model_dump(mode="json", exclude_none=True)
    if limit := deployment.global_concurrency_limit:
        found["concurrency_limit"] = limit.limit
    return found | {f"{SCHEDULE}{each.slug}": _content_of(each) for each in deployment.schedules if each.slug}


def added(deployment: DeploymentResponse, ours: Collection[str]) -> list[dict[str, Any]]:
    """The schedules that only whoever made them knows."""
    theirs = [each for each in deployment.schedules if f"{SCHEDULE}{each.slug}" not in ours]
    return [_content_of(each) | {"slug": each.slug} for each in theirs]


def mark(schedule: dict[str, Any]) -> str:
    """By which one of these is known, switched on or off."""
    return digest([schedule["schedule"], schedule["slug"]])


def _content_of(schedule: DeploymentSchedule) -> dict[str, Any]:
    return schedule.model_dump(mode="json", include={"schedule", "active", "parameters"})
