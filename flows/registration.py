"""What a Prefect server must know before scheduled runs: pool, GPU limit, deployments, automations. All idempotent."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

import flows
from flows import deployments
from tasks.errors import EnvironmentProblem, UsageError
from tasks.settings import Settings
from tasks.stage import events
from tasks.stage.gpu import LIMIT

POOL = "gradmill"
HOME = Path(os.environ.get("GRADMILL_HOME") or Path(flows.__file__).parents[1])  # where prefect.yaml is
SILENT_SECONDS = 65  # two heartbeats missed: prefect.yaml asks for one every 30 seconds
OURS = {"prefect.resource.id": "prefect.tag.gradmill"}  # every deployment has this tag, and so its runs' events
RETRAINED_BY = {"softmax-regression": "softmax-nightly", "linear-regression": "linear-weekly"}


def register() -> list[str]:
    """Tell the configured server of everything; return the names of the deployments.

    Raises:
        UsageError: the notification block that GRADMILL_NOTIFY names does not exist.
        EnvironmentProblem: a deployment is not accepted.
    """
    with get_client(sync_client=True) as client:
        notify = _notification_block(client, Settings().notify)
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
        client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
        _deploy(str(client.api_url))
        deployed = {each.name: each.id for each in deployments.ours(client)}
        for automation in (_zombies(), *_drift(deployed), *([_alerts(notify)] if notify else [])):
            _ensure(client, automation)
    return sorted(deployed)


def _notification_block(client: SyncPrefectClient, slug: str | None) -> UUID | None:
    """The block that GRADMILL_NOTIFY names as ``type/name``, such as ``slack-webhook/on-duty``."""
    if slug is None:
        return None
    kind, _, name = slug.partition("/")
    try:
        return client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound as error:
        raise UsageError(
            f"GRADMILL_NOTIFY={slug}: the server has no such block",
            "a notification block as type/name, such as slack-webhook/on-duty",
            "create it in the UI under Blocks",
        ) from error


def _deploy(api_url: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = os.environ | {"GRADMILL_HOME": str(HOME), "PREFECT_API_URL": api_url}
    done = subprocess.run(command, env=environment, cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentProblem(
            f"the deployments were not accepted: {(done.stderr or done.stdout).strip().splitlines()[-1]}",
            "prefect.yaml registered",
            f"run prefect deploy --all in {HOME}",
        )


def _ensure(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or bring it up to date but leave it on or off as it is."""
    known = client.read_automations_by_name(automation.name)
    if known:
        client.update_automation(known[0].id, automation.model_copy(update={"enabled": known[0].enabled}))
    else:
        client.create_automation(automation)


def _zombies() -> AutomationCore:
    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    trigger = EventTrigger(
        after={heartbeat},
        expect={heartbeat, *ends},
        match_related=OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENT_SECONDS),
    )
    crash = ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: the run's process is gone")
    return _automation("crash runs whose heartbeats stop", "A dead process cannot say so itself.", trigger, crash)


def _alerts(block: UUID) -> AutomationCore:
    trigger = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        match_related=OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    notification = SendNotification(
        block_document_id=block,
        subject="{{ flow_run.name }}: {{ flow_run.state.name }}",
        body="{{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    about = "Failures, refusals by a gate among them, and crashes."
    return _automation("notify of runs that fail or crash", about, trigger, notification)


def _drift(deployed: dict[str, UUID]) -> list[AutomationCore]:
    automations = []
    for name, deployment in RETRAINED_BY.items():
        trigger = EventTrigger(
            expect={events.DRIFT},
            match={"prefect.resource.id": events.resource(name)},
            posture=Posture.Reactive,
            threshold=1,
        )
        run = RunDeployment(source="selected", deployment_id=deployed[deployment])
        about = "Off until you switch it on: retraining helps only if newly labelled data has come, too."
        automations.append(_automation(f"retrain {name} when its input drifts", about, trigger, run, enabled=False))
    return automations


def _automation(name: str, about: str, trigger: EventTrigger, action: ActionTypes, **more: Any) -> AutomationCore:
    return AutomationCore(name=f"gradmill: {name}", description=about, trigger=trigger, actions=[action], **more)
