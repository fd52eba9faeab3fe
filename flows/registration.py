"""What a Prefect server must know before scheduled runs: pool, GPU limit, deployments, automations. All idempotent."""

import os
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings

import flows
from flows import deployments
from tasks.errors import EnvironmentProblem, UsageError
from tasks.settings import Settings
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


def register() -> list[str]:
    """Tell the configured server of what it lacks; return the names of the deployments.

    What somebody has set there (a pool's template, the limit, what is paused, automations on or off) stays as it is.

    Raises:
        UsageError: there is no ``prefect.yaml``.
        EnvironmentProblem: a deployment is not accepted.
    """
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            client.upsert_global_concurrency_limit_by_name(LIMIT, 1)
        _deploy(client)
        deployed = {each.name: each.id for each in deployments.ours(client)}
        for automation in (_zombies(), *_drift(deployed)):
            _ensure(client, automation)
        _notify(client, Settings().notify)
    return sorted(deployed)


def _deploy(client: SyncPrefectClient) -> None:
    """Bring the deployments up to date.

    ``prefect deploy`` would resume what somebody has paused, switch schedules on, and drop those added in the UI.
    """
    before = deployments.ours(client)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    settings = get_current_settings().to_environment_variables(exclude_unset=True, include_secrets=True)
    environment = {"GRADMILL_HOME": str(home())} | os.environ | settings
    done = subprocess.run(command, env=environment, cwd=home(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentProblem(
            f"the deployments were not accepted: {(done.stderr.strip() or done.stdout.strip())[-300:]}",
            "prefect.yaml registered",
            f"run prefect deploy --all in {home()}",
        )
    now = {each.id: each for each in deployments.ours(client)}
    for deployment in before:
        if deployment.paused:
            client.request("PATCH", f"/deployments/{deployment.id}", json={"paused": True})  # type: ignore[arg-type]
        _keep_schedules(client, now[deployment.id], deployment.schedules)


def _keep_schedules(
    client: SyncPrefectClient, deployment: DeploymentResponse, before: list[DeploymentSchedule]
) -> None:
    """Switch off again the schedules of ``prefect.yaml`` that were off, and add again those that it does not have."""
    ours = {each.slug: each.id for each in deployment.schedules}
    for schedule in before:
        if schedule.slug not in ours or schedule.slug is None:
            fields = DeploymentScheduleCreate.model_fields.keys() & schedule.model_fields.keys()
            client.create_deployment_schedules(
                deployment.id, [DeploymentScheduleCreate(**{name: getattr(schedule, name) for name in fields})]
            )
        elif not schedule.active:
            client.update_deployment_schedule(deployment.id, ours[schedule.slug], active=False)


def _notify(client: SyncPrefectClient, slug: str | None) -> None:
    """Send alerts to the block that GRADMILL_NOTIFY names as ``type/name``; without a name, to nobody any more."""
    if slug is None:
        for old in client.read_automations_by_name(f"gradmill: {ALERTS}"):
            client.delete_automation(old.id)
        return
    kind, _, name = slug.partition("/")
    try:
        _ensure(client, _alerts(client.read_block_document_by_name(name, kind, include_secrets=False).id))
    except ObjectNotFound:  # no reason not to retrain; and it is made in the UI of this very server
        print(f"GRADMILL_NOTIFY={slug}: no such block; make it in the UI, then run gradmill register", file=sys.stderr)


def _ensure(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create an automation, or bring it up to date but leave it on or off as it is.

    One that is up to date is not touched: an update makes the server forget what it waits for, such as the next
    heartbeat of a run that has died with the last ``up``.
    """
    known = client.read_automations_by_name(automation.name)
    if not known:
        client.create_automation(automation)
        return
    wanted = automation.model_copy(update={"enabled": known[0].enabled})
    if _without_ids(known[0].model_dump(include=set(AutomationCore.model_fields))) != _without_ids(wanted.model_dump()):
        client.update_automation(known[0].id, wanted)


def _without_ids(document: Any) -> Any:
    """``document`` without the ids that each trigger gets anew."""
    if isinstance(document, dict):
        return {key: _without_ids(value) for key, value in document.items() if key != "id"}
    return [_without_ids(each) for each in document] if isinstance(document, list) else document


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
    trigger = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        match_related=OUR_RUNS,
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
    return _automation(ALERTS, about, trigger, notification)


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
