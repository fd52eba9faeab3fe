"""The occasions that whoever is on duty is told of: runs that end badly, drift, a full disk, no success in time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from prefect._vendor.croniter.croniter import croniter  # the one that the server plans with
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.server.automations import BAD_ENDS, OUR_RUNS, PREFIX, at_once
from tasks.machine.settings import Settings
from tasks.machine.telling import Event
from tasks.stage import events

NOTIFY = f"{PREFIX}notify of "  # begins the name of each
RUNS = f"{NOTIFY}runs that fail or crash"
GRACE = timedelta(hours=2)  # after the longest pause of a schedule
PLANNED = 60  # of its times, in which that pause is looked for
ONCE_A_DAY = timedelta(days=1)
RESOURCE = {"prefect.resource.id"}


def of(block: UUID, ours: list[DeploymentResponse]) -> Iterator[AutomationCore]:
    """The alerts that go to a block: of runs, drift, the disk, and of each scheduled retrain without success."""
    yield _alert(
        block,
        RUNS,
        "Failures, refusals by a gate and data that are not fit among them, and crashes.",
        at_once(expect={f"prefect.flow-run.{state}" for state in BAD_ENDS}, match_related=OUR_RUNS, for_each=RESOURCE),
        "{{ flow_run.name }}: {{ flow_run.state.name }}",
        "{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    of_a_model = {"prefect.resource.id": events.resource("*"), events.FLOW: "!retrain"}  # whose own data errors fail it
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
    for deployment in ours:
        if "retrain" in deployment.tags and (pause := _longest_pause(deployment)):
            yield _overdue(block, deployment, max(timedelta(hours=Settings().notify_after), pause + GRACE))


def _overdue(block: UUID, deployment: DeploymentResponse, within: timedelta) -> AutomationCore:
    """No success in time. Each success starts the time anew; after an alert, whatever happens to a run of it does."""
    trigger = EventTrigger(
        after={"prefect.flow-run.*"},
        expect={"prefect.flow-run.Completed"},
        match_related={"prefect.resource.id": f"prefect.deployment.{deployment.id}"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )
    told = f"{deployment.name}: no success for {within.total_seconds() / 3600:g} hours"
    about = "Of GRADMILL_NOTIFY_AFTER hours, or two more than the schedule's longest pause; counted from a run on."
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
    times = croniter(schedule.cron, datetime.now(UTC), ret_type=datetime, day_or=schedule.day_or)
    planned: list[datetime] = [times.get_next() for _ in range(PLANNED)]
    return max(after - before for before, after in pairwise(planned))
