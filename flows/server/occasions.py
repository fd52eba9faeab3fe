"""The occasions that whoever is on duty is told of: runs that end badly, drift, a full disk, no success in time."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from prefect._vendor.croniter.croniter import CroniterBadDateError, croniter  # the one that the server plans with
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture

from flows.server.automations import BAD_ENDS, OUR_RUNS, PREFIX, at_once
from tasks.machine.settings import Settings
from tasks.machine.telling import Event
from tasks.stage import live

NOTIFY = f"{PREFIX}notify of "  # begins the name of each
RUNS = f"{NOTIFY}runs that fail or crash"
GRACE = timedelta(hours=2)  # after the longest pause of a schedule
HOURS = 26.0  # of GRADMILL_NOTIFY_AFTER, where it was never set
# That pause is looked for in the same days whenever we register: weekends and a month's ends are among them.
FROM = datetime(2026, 1, 1, tzinfo=UTC)
UNTIL = FROM + timedelta(weeks=5)
AT_LEAST = 13  # times: a year of a monthly schedule
ONCE_A_DAY = timedelta(days=1)
RESOURCE = {"prefect.resource.id"}


def of(block: UUID, ours: list[DeploymentResponse], known: Iterable[Automation] = ()) -> Iterator[AutomationCore]:
    """The alerts that go to a block: of runs, drift, the disk, and of each scheduled retrain without success.

    Without GRADMILL_NOTIFY_AFTER its hours are those of the ``known`` alerts: nobody loses them in another shell.
    """
    yield _alert(
        block,
        RUNS,
        "Failures, refusals by a gate and data that are not fit among them, and crashes.",
        at_once(expect={f"prefect.flow-run.{state}" for state in BAD_ENDS}, match_related=OUR_RUNS, for_each=RESOURCE),
        "{{ flow_run.name }}: {{ flow_run.state.name }}",
        "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    # Of any flow but a retrain, whose own data errors fail it.
    of_a_model = {"prefect.resource.id": live.model_resource("*"), live.FLOW: "!retrain"}
    yield _alert(
        block,
        f"{NOTIFY}drift",
        "Input or labelled rows that are no longer as at training.",
        at_once(expect={Event.DRIFT, Event.DATA}, match=of_a_model, for_each=RESOURCE),
        "{{ event.payload.name }}: drift",
        "{{ event.payload.message }}",
    )
    yield _alert(
        block,
        f"{NOTIFY}a full disk",
        "Said by runs when they end, once a day: what artifacts are on has under a tenth left.",
        at_once(expect={Event.DISK}, within=ONCE_A_DAY, for_each=RESOURCE),
        "{{ event.resource.name }}: disk",
        "{{ event.payload.message }}",
    )
    hours = Settings().notify_after or _hours(known)
    for deployment in ours:
        if "retrain" in deployment.tags and (pause := _longest_pause(deployment)):
            yield _overdue(block, deployment, hours, pause + GRACE)


def _hours(known: Iterable[Automation]) -> float:
    """What GRADMILL_NOTIFY_AFTER was when it was set last, as the alerts say."""
    told = (re.match(r"Of ([\d.e+]+) hours \(GRADMILL_NOTIFY_AFTER\)", each.description) for each in known)
    return next((float(found[1]) for found in told if found), HOURS)


def _overdue(block: UUID, deployment: DeploymentResponse, hours: float, least: timedelta) -> AutomationCore:
    """No success in time. Each success starts the time anew; after an alert, whatever happens to a run of it does."""
    within = max(timedelta(hours=hours), least)
    trigger = EventTrigger(
        after={"prefect.flow-run.*"},
        expect={"prefect.flow-run.Completed"},
        match_related={"prefect.resource.id": f"prefect.deployment.{deployment.id}"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )
    told = f"{deployment.name}: no success for {within.total_seconds() / 3600:g} hours"
    about = (
        f"Of {hours:g} hours (GRADMILL_NOTIFY_AFTER), or two more than the schedule's longest pause; "
        "counted from a run on."
    )
    return _alert(block, f"{NOTIFY}{deployment.name} without success", about, trigger, told, f"{told}: see its runs")


def _alert(block: UUID, name: str, about: str, trigger: EventTrigger, subject: str, body: str) -> AutomationCore:
    action = SendNotification(block_document_id=block, subject=subject, body=body)
    return AutomationCore(name=name, description=about, trigger=trigger, actions=[action])


def _longest_pause(deployment: DeploymentResponse) -> timedelta | None:
    """Of its most frequent schedule; None where none is active, or by a recurrence rule."""
    pauses = [_pause(each.schedule) for each in deployment.schedules if each.active and not deployment.paused]
    return min((pause for pause in pauses if pause), default=None)


def _pause(schedule: Any) -> timedelta | None:
    if isinstance(schedule, IntervalSchedule):
        return schedule.interval
    if not isinstance(schedule, CronSchedule):
        return None
    times = croniter(schedule.cron, FROM, ret_type=datetime, day_or=schedule.day_or)
    planned: list[datetime] = []
    try:
        while len(planned) < AT_LEAST or planned[-1] < UNTIL:
            planned.append(times.get_next())
    except CroniterBadDateError:  # such as 31 February, which the UI takes
        return None
    return max(after - before for before, after in pairwise(planned))
