"""Settings of a deployment for good: kept in artifacts/, and told to the server where there is one."""

from collections.abc import Collection
from typing import Any

from prefect.client.schemas.schedules import CronSchedule

from flows.server import alerts, api, registration
from flows.server.declared import SCHEDULE, Declared, Items, require_time
from flows.server.deploying import deploy
from flows.server.deployments import FORMS, accepted
from flows.server.kept import Kept
from flows.server.schedules import SLUG
from tasks.errors import UsageError
from tasks.machine.words import nearest


def named(word: str) -> Declared:
    """A deployment by its name, or the one that retrains a model of this name.

    Raises:
        UsageError: there is none, or more than one.
    """
    known = registration.declarations()
    found = _meant(word, known)
    if len(found) == 1:
        return found[0]
    names = sorted(each.name for each in found or known)
    to_do = "name it" if found else nearest(word, names, "name it")
    said = f"{word} is retrained by more than one deployment" if found else f"no deployment {word}, or of that model"
    raise UsageError(said, f"one of: {', '.join(names)}", to_do)


def is_named(word: str) -> bool:
    """Whether ``named`` knows of any."""
    return bool(_meant(word, registration.declarations()))


def _meant(word: str, known: list[Declared]) -> list[Declared]:
    retraining = [each for each in known if each.flow == "retrain" and f"model:{word}" in each.settings["tags"]]
    return [each for each in known if each.name == word] or retraining


def items(wanted: Declared) -> Items:
    """Those of a deployment as they are set for good."""
    return Kept.of(wanted.name).over(wanted.items)


def times(wanted: Declared) -> list[dict[str, Any]]:
    """The schedules of a deployment that are on, those that were added in the UI too, paused or not."""
    declared = [each for item, each in items(wanted).items() if item.startswith(SCHEDULE)]
    return [each["schedule"] for each in [*declared, *Kept.of(wanted.name).added] if each["active"]]


def change(
    wanted: Declared,
    there: bool,
    cron: str | None = None,
    timezone: str | None = None,
    parameters: dict[str, Any] | None = None,
    paused: bool | None = None,
) -> Items:
    """Set for good what is given of a deployment, ``there`` on the server, too; return its items then.

    Raises:
        UsageError: no such time, or parameters that its form does not take.
        DataError: what is kept of it is damaged.
    """
    if there:
        _tell(wanted, quietly=True)  # what somebody has set there by now is kept first
    kept = Kept.of(wanted.name)
    now = kept.over(wanted.items)
    given: Items = {} if paused is None else {"paused": paused}
    if parameters:
        own, form = now.get("parameters", {}).get("parameters", {}), FORMS[wanted.code["entrypoint"]]
        given["parameters"] = {"parameters": accepted(wanted.name, form, own, parameters)}
    if cron or timezone:
        given |= _timed(wanted, now, cron, timezone)
    Kept.unlike(wanted.items, now | given, kept.added).keep(wanted.name)
    if there:
        _tell(wanted, given=given)
    return now | given


def forget(wanted: Declared, there: bool) -> list[dict[str, Any]]:
    """Set a deployment as it is declared; schedules that were added in the UI stay: return those that are on."""
    if there:
        _tell(wanted, quietly=True)
    added = Kept.of(wanted.name).added
    Kept(added=added).keep(wanted.name)
    if there:
        _tell(wanted)
    return [each["schedule"] for each in added if each["active"]]


def _tell(wanted: Declared, quietly: bool = False, given: Collection[str] = ()) -> None:
    with api.client() as client:
        deploy(client, wanted, quietly, given)
        if not quietly:
            alerts.keep(client)  # a schedule has its own time without success, and none while it is paused


def _timed(wanted: Declared, now: Items, cron: str | None, timezone: str | None) -> Items:
    """The first schedule at another time, and switched on where that is given."""
    item = next((name for name in [*wanted.items, *now] if name.startswith(SCHEDULE)), f"{SCHEDULE}{SLUG}")
    before = now.get(item, {"schedule": {}, "active": False, "parameters": {}})
    time, zone = cron or before["schedule"].get("cron"), timezone or before["schedule"].get("timezone") or "UTC"
    if time is None:
        raise UsageError(f"{wanted.name} has no time of which {timezone} were the zone", "--cron", "give both")
    require_time(time, zone)
    when = CronSchedule(cron=time, timezone=zone).model_dump(mode="json")
    return {item: before | {"schedule": when, "active": before["active"] or cron is not None}}
