"""The automations of a Prefect server: dead runs, and retrains when a model's input drifts; alerts: alerts.py."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.server import deployments
from tasks.machine.telling import Event
from tasks.stage import live
from tasks.stage.live import REFUSED_STATE

# One heartbeat may be lost, as while the database is away, and the next be late: prefect.yaml asks for one every 30
# seconds. More would be over the 90 seconds within which a dead run is to be known as one.
SILENT_SECONDS = 75
OUR_RUNS = {"prefect.resource.id": f"prefect.tag.{deployments.TAG}"}
PREFIX = "gradmill: "  # of their names
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
