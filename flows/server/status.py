"""What the person on duty wants to know first: champions, last and next runs, stuck runs, workers."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import RunDeployment
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel

from flows.server import api, automations, deployments
from flows.server.automations import SILENT_SECONDS
from flows.server.registration import POOL
from tasks.store import reading

VERDICT_TAG = "verdict:"
BEGUN = ("RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED", "CANCELLING", "PAUSED")
LATE = timedelta(minutes=1)  # a worker looks for runs every few seconds


class Champion(BaseModel):
    """A champion; no retrain changes one that is ``frozen``."""

    name: str
    version: int
    frozen: bool
    promoted_at: str
    test_accuracy: float | None
    test_loss: float


class Deployment(BaseModel):
    """A deployment with its last run that has begun (``verdict`` of a retrain only), and when it runs next.

    ``on_drift``: an automation starts it when a model's input drifts.
    """

    name: str
    paused: bool
    last_run: str | None
    last_start: datetime | None
    state: str | None
    verdict: str | None
    message: str | None
    next_start: datetime | None
    on_drift: bool


class StuckRun(BaseModel):
    """A run that should go on and does not, and why one thinks so."""

    name: str
    id: str
    state: str
    reason: str


class Worker(BaseModel):
    """A worker of the work pool."""

    name: str
    status: str
    last_heartbeat: datetime | None


class Status(BaseModel):
    """The document that ``gradmill status --json`` prints: fields are added, never renamed or removed."""

    schema_version: int = 1
    api_url: str
    models: list[Champion]
    deployments: list[Deployment]
    stuck: list[StuckRun]
    workers: list[Worker]
    pool_paused: bool


def status() -> Status:
    """Ask the store and the configured Prefect server.

    Raises:
        EnvironmentProblem: no such server answers as it should.
    """
    with api.client() as client:
        try:
            paused = client.read_work_pool(POOL).is_paused  # first: the other answers a missing pool with an HTTP error
            workers = client.read_workers_for_work_pool(POOL)
        except ObjectNotFound:  # no ``gradmill register`` yet
            workers, paused = [], False
        drifting = _started_by_automations(client)
        return Status(
            api_url=str(client.api_url),
            models=_champions(),
            deployments=[_deployment(client, each, each.id in drifting) for each in deployments.ours(client)],
            stuck=[*_late(client), *_silent(client)],
            workers=[
                Worker(name=each.name, status=each.status.value, last_heartbeat=each.last_heartbeat_time)
                for each in workers
                if each.status is not None
            ],
            pool_paused=paused,
        )


def _champions() -> list[Champion]:
    champions = [(name, row) for name in reading.names() for row in reading.table(name) if row["champion"]]
    return [
        Champion.model_validate(row | {"name": name, "promoted_at": pointer.promoted_at})
        for name, row in champions
        if (pointer := reading.champion(name))
    ]


def _started_by_automations(client: SyncPrefectClient) -> set[UUID | None]:
    """The deployments that automations of ours start which are on."""
    ours = (each for each in client.read_automations() if each.enabled and each.name.startswith(automations.PREFIX))
    return {action.deployment_id for each in ours for action in each.actions if isinstance(action, RunDeployment)}


def _deployment(client: SyncPrefectClient, deployment: DeploymentResponse, on_drift: bool) -> Deployment:
    of_it = {"deployment_filter": DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])), "limit": 1}
    begun = deployments.runs(client, *BEGUN, sort=FlowRunSort.START_TIME_DESC, **of_it)
    due = deployments.runs(client, "SCHEDULED", sort=FlowRunSort.EXPECTED_START_TIME_ASC, **of_it)
    run = begun[0] if begun else None
    verdicts = [tag.removeprefix(VERDICT_TAG) for tag in (run.tags if run else []) if tag.startswith(VERDICT_TAG)]
    return Deployment(
        name=deployment.name,
        paused=deployment.paused,
        last_run=run and run.name,
        last_start=run and run.start_time,
        state=run and run.state_name,
        verdict=verdicts[0] if verdicts else None,
        message=run.state.message if run and run.state and not run.state.is_completed() else None,
        next_start=due[0].expected_start_time if due else None,
        on_drift=on_drift,
    )


def _late(client: SyncPrefectClient) -> list[StuckRun]:
    """Runs that no worker has taken in time."""
    due = deployments.runs(client, "SCHEDULED", "PENDING", sort=FlowRunSort.EXPECTED_START_TIME_ASC)
    waiting = {"AwaitingConcurrencySlot": "waits for another run of its deployment"}
    return [
        _stuck(run, waiting.get(run.state_name or "", "no worker has taken it"))
        for run in due
        if run.expected_start_time and run.expected_start_time < datetime.now(UTC) - LATE
    ]


def _silent(client: SyncPrefectClient) -> list[StuckRun]:
    """Running runs of our deployments without a recent heartbeat."""
    limit = datetime.now(UTC) - timedelta(seconds=SILENT_SECONDS)
    found = []
    for run in deployments.runs(client, "RUNNING", sort=FlowRunSort.START_TIME_DESC):
        if not run.start_time or run.start_time > limit:
            continue
        wanted = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
            "occurred": {"since": limit.isoformat()},
        }
        if not client.request("POST", "/events/filter", json={"filter": wanted}).json()["events"]:
            found.append(_stuck(run, f"no heartbeat for {SILENT_SECONDS} seconds"))
    return found


def _stuck(run: FlowRun, reason: str) -> StuckRun:
    return StuckRun(name=run.name, id=str(run.id), state=run.state_name or "unknown", reason=reason)
