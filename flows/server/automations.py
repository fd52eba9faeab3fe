"""The automations of a Prefect server: dead runs, retrains when a model's input drifts, and alerts.

Each has a tag with a digest of what we wrote: one that somebody has edited since no longer goes with it, and stays.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture

from flows.server import deployments
from flows.server.deployments import longest_pause
from tasks.machine.settings import Settings
from tasks.machine.telling import Event
from tasks.stage import live
from tasks.stage.live import REFUSED_STATE
from tasks.store.schedules import Schedules

# One heartbeat may be lost, as while the database is away, and the next be late: prefect.yaml asks for one every 30
# seconds. More would be over the 90 seconds within which a dead run is to be known as one.
SILENT_SECONDS = 75
OUR_RUNS = {"prefect.resource.id": f"prefect.tag.{deployments.TAG}"}
PREFIX = "gradmill: "  # of their names
MARK = "as-registered:"  # of a tag
NOTIFY = f"{PREFIX}notify of "  # begins the name of each alert
RUNS = f"{NOTIFY}runs that fail or crash"
GRACE = timedelta(hours=2)  # after the longest pause of a schedule
HOURS = 26.0  # of GRADMILL_NOTIFY_AFTER, where it was never set
AFTER = "notify-after:"  # of a tag: how many hours that were, when it was set last
ONCE_A_DAY = timedelta(days=1)
RESOURCE = {"prefect.resource.id"}
BAD_ENDS = ("Failed", REFUSED_STATE, "TimedOut", "Crashed")  # names of states, as events have them
RETRAINED_BY = {"softmax-regression": "softmax-nightly", "linear-regression": "linear-weekly"}


def zombies() -> AutomationCore:
    """Runs whose process is gone are crashed."""
    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Cancelled", *BAD_ENDS)}
    trigger = EventTrigger(
        after={"prefect.flow-run.Running", heartbeat},  # one may die before its first heartbeat is sent
        expect={heartbeat, *ends},
        match_related=OUR_RUNS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENT_SECONDS),
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: the run's process is gone")
    return _automation("crash runs whose heartbeats stop", "A dead process cannot say so itself.", trigger, crash)


def wanted(told: Schedules, deployed: dict[str, UUID]) -> list[AutomationCore]:
    """All but the alerts, for deployments by name."""
    return [zombies(), *of_the_book(deployed), *of_schedules(told, deployed)]


def of_schedules(told: Schedules, deployed: dict[str, UUID]) -> Iterator[AutomationCore]:
    """Retrains of own names on drift, as ``gradmill schedule --on-drift`` was told."""
    for deployment, schedule in told.schedules.items():
        if schedule.on_drift and deployment in deployed:
            yield on_drift(schedule.name, deployed[deployment])


def of_the_book(deployed: dict[str, UUID]) -> Iterator[AutomationCore]:
    """Retrains of the book's models, off until somebody switches them on; ``deployed`` are deployments by name."""
    for name, deployment in RETRAINED_BY.items():
        if deployment not in deployed:
            print(f"no deployment {deployment}: drift of {name}'s input will start no retrain", file=sys.stderr)
            continue
        trigger = at_once(expect={Event.DRIFT}, match={"prefect.resource.id": live.model_resource(name)})
        run = RunDeployment(source="selected", deployment_id=deployed[deployment])
        about = "Off until you switch it on: retraining helps only if newly labelled data has come, too."
        yield _automation(f"retrain {name} when its input drifts", about, trigger, run, enabled=False)


def on_drift(name: str, deployment: UUID) -> AutomationCore:
    """Retrains of a name by a deployment, as ``gradmill schedule --on-drift`` was told."""
    not_by_a_retrain = {live.FLOW: "!retrain"}  # which finds what has drifted while it retrains
    matched = {"prefect.resource.id": live.model_resource(name)} | not_by_a_retrain
    trigger = at_once(expect={Event.DRIFT, Event.DATA}, match=matched)
    run = RunDeployment(source="selected", deployment_id=deployment)
    about = "As gradmill schedule --on-drift was told; retraining helps only if newly labelled data has come, too."
    return _automation(f"retrain {name} on drift", about, trigger, run)


def at_once(**trigger: Any) -> EventTrigger:
    """A trigger that fires at each of the expected events."""
    return EventTrigger(posture=Posture.Reactive, threshold=1, **trigger)


def _automation(name: str, about: str, trigger: EventTrigger, action: ActionTypes, **more: Any) -> AutomationCore:
    return AutomationCore(name=f"{PREFIX}{name}", description=about, trigger=trigger, actions=[action], **more)


# Alerts


def alerts_to(
    block: UUID, ours: list[DeploymentResponse], known: Iterable[Automation] = ()
) -> Iterator[AutomationCore]:
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
        if "retrain" in deployment.tags and (pause := longest_pause(deployment)):
            yield _overdue(block, deployment, hours, pause + GRACE)


def _hours(known: Iterable[Automation]) -> float:
    """What GRADMILL_NOTIFY_AFTER was when it was set last, as the alerts' tags say."""
    tags = (tag for each in known for tag in each.tags if tag.startswith(AFTER))
    return next((float(tag.removeprefix(AFTER)) for tag in tags), HOURS)


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
    alert = _alert(block, f"{NOTIFY}{deployment.name} without success", about, trigger, told, f"{told}: see its runs")
    return alert.model_copy(update={"tags": [f"{AFTER}{hours:g}"]})


def _alert(block: UUID, name: str, about: str, trigger: EventTrigger, subject: str, body: str) -> AutomationCore:
    action = SendNotification(block_document_id=block, subject=subject, body=body)
    return AutomationCore(name=name, description=about, trigger=trigger, actions=[action])


# What is done to the automations of a server


def automate(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Make an automation, or bring it up to date if nobody has edited it; leave it on or off as it is.

    One that is up to date is not touched: an update makes the server forget what it waits for, such as the next
    heartbeat of a run that has died with the last ``up``.
    """
    marked = automation.model_copy(update={"tags": [*automation.tags, _mark(automation)]})
    there = client.read_automations_by_name(automation.name)
    if not there:
        client.create_automation(marked)
        print(f"{automation.name}: created", file=sys.stderr)
    elif _mark(there[0]) != _mark(automation):
        if _mark(there[0]) in there[0].tags:
            client.update_automation(there[0].id, marked.model_copy(update={"enabled": there[0].enabled}))
            print(f"{automation.name}: changed", file=sys.stderr)
        else:
            print(f"{automation.name}: stays as set", file=sys.stderr)


def delete_of(client: SyncPrefectClient, deployment: str) -> None:
    """Delete the automation that starts a deployment of an own name on drift, if there is one."""
    name = deployment.removeprefix("retrain-")
    for each in client.read_automations_by_name(on_drift(name, UUID(int=0)).name):
        client.delete_automation(each.id)


def _mark(automation: AutomationCore) -> str:
    """A tag: the digest of what an automation does, on or off."""
    content = automation.model_dump(mode="json", include={"name", "description", "trigger", "actions"})
    text = json.dumps(_comparable(content), sort_keys=True)
    return f"{MARK}{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _comparable(document: Any) -> Any:
    """``document`` without the ids that each trigger gets anew, and with what was a set in order."""
    if isinstance(document, dict):
        return {key: _comparable(value) for key, value in document.items() if key != "id"}
    if isinstance(document, list):
        return sorted((_comparable(each) for each in document), key=str)
    return document
