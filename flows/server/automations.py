"""The automations of a Prefect server: dead runs, alerts, and retrains when a model's input drifts."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.server import deployments
from tasks.machine.telling import Event
from tasks.stage import events
from tasks.stage.events import REFUSED_STATE

# One heartbeat may be lost, as while the database is away, and the next be late: prefect.yaml asks for one every 30
# seconds. More would be over the 90 seconds within which a dead run is to be known as one.
SILENT_SECONDS = 75
OUR_RUNS = {"prefect.resource.id": f"prefect.tag.{deployments.TAG}"}
PREFIX = "gradmill: "  # of their names
ALERTS = "notify of runs that fail or crash"
RETRAINED_BY = {"softmax-regression": "softmax-nightly", "linear-regression": "linear-weekly"}


def zombies() -> AutomationCore:
    """Runs whose process is gone are crashed."""
    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", REFUSED_STATE, "Cancelled", "Crashed")}
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


def alerts(block: UUID) -> AutomationCore:
    """Runs that fail or crash are told to a notification block."""
    ends = {f"prefect.flow-run.{state}" for state in ("Failed", REFUSED_STATE, "Crashed")}
    notification = SendNotification(
        block_document_id=block,
        subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
        body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    about = "Failures, refusals by a gate among them, and crashes."
    each_run = _at_once(expect=ends, match_related=OUR_RUNS, for_each={"prefect.resource.id"})
    return _automation(ALERTS, about, each_run, notification)


def of_the_book(deployed: dict[str, UUID]) -> Iterator[AutomationCore]:
    """Retrains of the book's models, off until somebody switches them on; ``deployed`` are deployments by name."""
    for name, deployment in RETRAINED_BY.items():
        if deployment not in deployed:
            print(f"no deployment {deployment}: drift of {name}'s input will start no retrain", file=sys.stderr)
            continue
        trigger = _at_once(expect={Event.DRIFT}, match={"prefect.resource.id": events.resource(name)})
        run = RunDeployment(source="selected", deployment_id=deployed[deployment])
        about = "Off until you switch it on: retraining helps only if newly labelled data has come, too."
        yield _automation(f"retrain {name} when its input drifts", about, trigger, run, enabled=False)


def on_drift(name: str, deployment: UUID) -> AutomationCore:
    """Retrains of a name by a deployment, as ``gradmill schedule --on-drift`` was told."""
    not_by_a_retrain = {events.FLOW: "!retrain"}  # which finds what has drifted while it retrains
    matched = {"prefect.resource.id": events.resource(name)} | not_by_a_retrain
    trigger = _at_once(expect={Event.DRIFT, Event.DATA}, match=matched)
    run = RunDeployment(source="selected", deployment_id=deployment)
    about = "As gradmill schedule --on-drift was told; retraining helps only if newly labelled data has come, too."
    return _automation(f"retrain {name} on drift", about, trigger, run)


def _at_once(**trigger: Any) -> EventTrigger:
    return EventTrigger(posture=Posture.Reactive, threshold=1, **trigger)


def _automation(name: str, about: str, trigger: EventTrigger, action: ActionTypes, **more: Any) -> AutomationCore:
    return AutomationCore(name=f"{PREFIX}{name}", description=about, trigger=trigger, actions=[action], **more)
