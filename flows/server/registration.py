"""What a Prefect server must know before scheduled runs: pool, GPU limit, deployments, automations. All idempotent."""

import os
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

import flows
from flows.server import api, deployments, schedules
from flows.server.declared import Declared, declared
from flows.server.deploying import automate, deploy
from tasks.errors import UsageError
from tasks.machine.settings import Settings
from tasks.machine.telling import Event
from tasks.stage import events
from tasks.stage.gpu import LIMIT

POOL = "gradmill"
# One heartbeat may be lost, as while the database is away, and the next be late: prefect.yaml asks for one every 30
# seconds. More would be over the 90 seconds within which a dead run is to be known as one.
SILENT_SECONDS = 75
OUR_RUNS = {"prefect.resource.id": f"prefect.tag.{deployments.TAG}"}
ALERTS = "notify of runs that fail or crash"
RETRAINED_BY = {"softmax-regression": "softmax-nightly", "linear-regression": "linear-weekly"}


def home() -> Path:
    """The folder with ``prefect.yaml``: the checkout or, in an image, the one that GRADMILL_HOME names.

    Raises:
        UsageError: there is none.
    """
    named = os.environ.get("GRADMILL_HOME")
    for folder in (Path(flows.__file__).parents[1], *([Path(named)] if named else [])):
        if (folder / "prefect.yaml").is_file():
            return folder
    raise UsageError("no prefect.yaml here", "a checkout of Gradmill, or its image", "install it from a checkout")


def declarations() -> list[Declared]:
    """The deployments of ``prefect.yaml``, and those that ``gradmill schedule`` was told of."""
    fixed = declared(home())
    return fixed + schedules.declared(fixed)


def register() -> list[str]:
    """Tell the configured server of what it lacks, and say what is changed; return the names of the deployments.

    What somebody has set there (schedules, parameters, a pool's template, the limit, what is paused, automations)
    stays as it is.

    Raises:
        UsageError: there is no ``prefect.yaml``, or it is not as it should be.
        EnvironmentProblem: no server answers, or it does not accept a deployment.
    """
    wanted = declarations()
    with api.client() as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
        for deployment in wanted:
            deploy(client, deployment)
        deployed = {each.name: each.id for each in deployments.ours(client)}
        for automation in (_zombies(), *_drift(deployed)):
            automate(client, automation)
        if slug := Settings().notify:
            _notify(client, slug)
    return sorted(each.name for each in wanted)


def _notify(client: SyncPrefectClient, slug: str) -> None:
    """Send alerts to the block that GRADMILL_NOTIFY names as ``type/name``."""
    kind, _, name = slug.partition("/")
    try:
        automate(client, _alerts(client.read_block_document_by_name(name, kind, include_secrets=False).id))
    except ObjectNotFound:  # no reason not to retrain; and it is made in the UI of this very server
        print(f"GRADMILL_NOTIFY={slug}: no such block; make it in the UI, then run gradmill register", file=sys.stderr)


def _zombies() -> AutomationCore:
    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
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


def _alerts(block: UUID) -> AutomationCore:
    ends = {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}
    notification = SendNotification(
        block_document_id=block,
        subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
        body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    about = "Failures, refusals by a gate among them, and crashes."
    each_run = _at_once(expect=ends, match_related=OUR_RUNS, for_each={"prefect.resource.id"})
    return _automation(ALERTS, about, each_run, notification)


def _drift(deployed: dict[str, UUID]) -> list[AutomationCore]:
    automations = []
    for name, deployment in RETRAINED_BY.items():
        if deployment not in deployed:
            print(f"no deployment {deployment}: drift of {name}'s input will start no retrain", file=sys.stderr)
            continue
        trigger = _at_once(expect={Event.DRIFT}, match={"prefect.resource.id": events.resource(name)})
        run = RunDeployment(source="selected", deployment_id=deployed[deployment])
        about = "Off until you switch it on: retraining helps only if newly labelled data has come, too."
        automations.append(_automation(f"retrain {name} when its input drifts", about, trigger, run, enabled=False))
    return automations


def _at_once(**trigger: Any) -> EventTrigger:
    return EventTrigger(posture=Posture.Reactive, threshold=1, **trigger)


def _automation(name: str, about: str, trigger: EventTrigger, action: ActionTypes, **more: Any) -> AutomationCore:
    return AutomationCore(name=f"gradmill: {name}", description=about, trigger=trigger, actions=[action], **more)
