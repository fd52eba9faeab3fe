"""What an engineer on duty needs first: champions, last and next runs, stuck runs, workers, alerts, disk space."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel

from flows.server import alerts, api, connection, deployments, registration, session
from flows.server.deployments import LATE
from flows.server.registration import POOL
from flows.tags import DRIFT_TAG, LOST_SLOT, MODEL_TAG, QUEUED, VERDICT_TAG
from tasks.errors import without_credentials
from tasks.store import artifact_paths, folders
from tasks.store.state import NameState, StoreState

# Without "unchanged", because no gate has judged that.
VERDICTS = [VERDICT_TAG + verdict for verdict in ("published", "refused", "judged", "worse", "as published")]
JUDGED = deployments.OURS | {"any_": VERDICTS}  # a filter of tags
BEGUN = ("RUNNING", "COMPLETED", "FAILED", "CRASHED", "CANCELLED", "CANCELLING", "PAUSED")
TIMED_OUT = "TimedOut"  # the name of the state
UNTAKEN = "no worker has taken it"
ENDED_BADLY = ("FAILED", "CRASHED")
RETRAIN = "flows.retrain.retrain"  # the entrypoint of its deployments
FORGOTTEN = timedelta(days=1)  # a worker that has been silent for longer is not listed
ONLINE, STARTING = "ONLINE", "STARTING"  # of workers; the latter is our own
PREFECTS = "Flow run encountered an exception: "  # precedes our own message


class Champion(BaseModel):
    """A champion; no retrain changes a ``frozen`` one, or brings back ``held`` versions."""

    name: str
    version: int
    frozen: bool
    held: list[int] = []
    promoted_at: str
    test_accuracy: float | None
    test_loss: float | None  # None for a damaged version
    overview: str | None = None  # the address of its page on the server of ``gradmill up``
    drift: str | None = None  # what has drifted in the last input of a user, as the page of its run says
    is_mirrored: bool | None = None  # whether the mirror is known to have it; None if the store has no mirror


class JudgedRun(BaseModel):
    """The last run of a deployment in which gates judged a candidate, or a version was evaluated."""

    run: str
    start: datetime | None
    verdict: str
    message: str | None  # of a refusal


class Deployment(BaseModel):
    """A deployment with its last begun run (``verdict`` of a prediction: its drift), and its next run.

    ``judged`` may be an earlier run, if newer ones were cancelled, crashed or found nothing new. ``on_drift``: an
    automation starts it when a model's input drifts.
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
    judged: JudgedRun | None = None
    ended_badly: bool = False  # the last run, if no run of the name has ended well since
    id: str = ""  # its id in Prefect's UI
    last_run_id: str | None = None


class StuckRun(BaseModel):
    """A run that should have begun and has not, with the presumed reason; or one that waits for its turn."""

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
    """The document that ``gradmill status --json`` prints: fields are added, never renamed or removed.

    Without a server it has only ``models`` and what the store knows. ``attention`` lists what needs a person.
    """

    schema_version: int = 1
    api_url: str | None = None
    artifacts: str
    timezone: str = "UTC"  # of all times in the document
    free: int  # bytes
    total: int
    models: list[Champion]
    mirror: str | None = None  # where champions are copied to
    deployments: list[Deployment] = []
    stuck: list[StuckRun] = []
    queued: list[StuckRun] = []
    workers: list[Worker] = []
    pool_paused: bool = False
    alerts: str | None = None  # the block that they are sent to
    alerts_off: list[str] = []  # those that somebody has switched off
    attention: list[str] = []
    leftovers: list[str] = []  # what older versions have left in the artifacts folder


def describe_store(state: StoreState) -> Status:
    """The status that is known without a server."""
    left, broken = folders.read_disk_space(), any(fault.kind == "mirror" for fault in state.faults)
    attention = [f"the disk of artifacts/ is nearly full: {left}"] if left.is_little else []
    attention += [each.behind for each in state.names.values() if each.behind]
    for fault in state.faults:
        attention.append(f"{'nothing is mirrored: ' * (fault.kind == 'mirror')}{fault.found}; to do: {fault.action}")
    models = [
        Champion(
            name=each.name,
            **pointer.model_dump(include={"version", "frozen", "held", "promoted_at"}),
            test_accuracy=each.live and each.live.metrics.test_accuracy,
            test_loss=each.live and each.live.metrics.test_loss,
            drift=_describe_drift(each),
            is_mirrored=not broken and each.behind is None if broken or state.mirror else None,
        )
        for each in state.names.values()
        if (pointer := each.pointer)
    ]
    return Status(
        artifacts=str(artifact_paths.root()),
        free=left.free,
        total=left.total,
        models=models,
        mirror=state.mirror,
        attention=attention,
        leftovers=[each for each in artifact_paths.LEFTOVERS if (artifact_paths.root() / each).exists()],
    )


def _describe_drift(name: NameState) -> str | None:
    if name.last_job is None:
        return None
    from flows.pages.run_pages import describe_drift  # its imports take a quarter of a second

    return describe_drift(name.last_job) or None


def describe(state: StoreState, name: str | None = None) -> Status:
    """The status of the store and of the configured Prefect server, for the deployments of all names or of one.

    Raises:
        EnvironmentProblem: the server does not answer properly.
    """
    status = describe_store(state)

    def is_asked(one: DeploymentResponse | FlowRun) -> bool:
        return name is None or MODEL_TAG + name in one.tags

    with api.client() as client:
        workers: Sequence[Any] = ()
        with suppress(ObjectNotFound):  # nobody has run ``gradmill register`` yet
            # This comes first, because without the pool the other request is answered with an HTTP error.
            status.pool_paused = client.read_work_pool(POOL).is_paused
            workers = client.read_workers_for_work_pool(POOL)
        status.workers = _list_workers(workers)
        service = connection.find_configured_service()
        for model in status.models if service and not service.joined else ():
            model.overview = f"{api.ui()}{session.PLACE}/{model.name}"
        until = {"before_": datetime.now(UTC) - LATE}
        late = deployments.list_runs(client, "SCHEDULED", "PENDING", expected_start_time=until)
        is_online = any(each.status == ONLINE for each in status.workers)
        is_busy = is_online and bool(late and deployments.list_runs(client, "RUNNING", limit=1))  # else it takes them
        for run in filter(is_asked, late):
            reason = "waits until the worker has a core for it" if is_busy else ""
            reason = "waits for another run of its deployment" if run.state_name == QUEUED else reason
            which = StuckRun(name=run.name, id=str(run.id), state=run.state_name or "unknown", reason=reason or UNTAKEN)
            (status.queued if reason else status.stuck).append(which)
        status.api_url = without_credentials(str(client.api_url))
        automations = alerts.list_automations(client)
        on, off = ([each for each in automations if each.enabled is is_on] for is_on in (True, False))
        status.alerts = alerts.find_receiver(client, alerts.list_alerts(on))
        status.alerts_off = [each.name.removeprefix(alerts.NOTIFY) for each in alerts.list_alerts(off)]
        known = [each for each in deployments.list_deployments(client) if is_asked(each)]
        status.deployments = list(_describe_deployments(client, state, known, _list_started(on)))
    status.attention.extend(_list_needs(status))
    return status


def list_operation(status: Status) -> Iterator[tuple[str, str]]:
    """The facts about disk, mirror, server, alerts, workers and queued runs, for a page."""
    yield "artifacts", f"{status.artifacts}, {status.free / 2**30:.1f} GiB free ({status.free / status.total:.0%})"
    if status.mirror:
        yield "mirror", status.mirror
    if status.api_url is None:
        return
    yield "server", f"{status.api_url}; every time here is {status.timezone}"
    off = f"; off: {', '.join(status.alerts_off)}" if status.alerts_off else ""
    yield "alerts", f"{status.alerts or f'none: {alerts.MAKE_ONE}'}{off}"
    for worker in status.workers:
        seen = f", last seen {worker.last_heartbeat:%Y-%m-%d %H:%M}" if worker.last_heartbeat else ""
        yield "worker", f"{worker.name}: {worker.status.lower()}{seen}"
    for run in status.queued:
        yield "waiting", f"{run.name}: {run.reason}"


def _list_workers(known: Sequence[Any]) -> list[Worker]:
    """The workers known to the server; a new ``gradmill up``'s worker counts as starting until it is among them."""
    since = datetime.now(UTC) - FORGOTTEN
    told = [
        Worker(name=each.name, status=each.status.value, last_heartbeat=each.last_heartbeat_time)
        for each in known
        if each.status is not None and (each.last_heartbeat_time or since) >= since
    ]
    if any(each.status == ONLINE for each in told) or not connection.is_starting():
        return told
    ours = Worker(name=registration.worker_name(), status=STARTING, last_heartbeat=None)
    return [*(each for each in told if each.name != ours.name), ours]


def _list_needs(status: Status) -> Iterator[str]:
    """What does not recover by itself."""
    if status.pool_paused:
        yield f"the work pool {POOL} is paused: no run begins until somebody resumes it"
    if not any(worker.status in (ONLINE, STARTING) for worker in status.workers):
        yield f"no worker is online: run gradmill up, or prefect worker start --pool {POOL}"
    for run in status.stuck:
        yield f"stuck: {run.name} ({run.state}): {run.reason}"
    for each in status.deployments:
        if each.ended_badly:
            more = "; a longer GRADMILL_TIME_LIMIT gives it more time" if each.state == TIMED_OUT else ""
            when = f" at {each.last_start:%Y-%m-%d %H:%M}" if each.last_start else ""
            reason = (each.message or "no reason given").splitlines()[0]
            yield f"{each.name}: {each.state}{when}: {reason}{more}"


def _list_started(automations: list[Automation]) -> set[UUID | None]:
    """The deployments that these automations start."""
    actions = (action for each in automations for action in each.actions)
    return {action.deployment_id for action in actions if isinstance(action, RunDeployment)}


def _describe_deployments(
    client: SyncPrefectClient, state: StoreState, known: list[DeploymentResponse], drifting: set[UUID | None]
) -> Iterator[Deployment]:
    newest = FlowRunSort.START_TIME_DESC
    begun = deployments.find_first_runs(client, known, *BEGUN, sort=newest)
    judged = deployments.find_first_runs(client, known, *BEGUN, tags=JUDGED, sort=newest)
    due = deployments.find_first_runs(client, known, "SCHEDULED")
    for each in known:
        run, judged_run, next_run = begun.get(each.id), judged.get(each.id), due.get(each.id)
        yield Deployment(
            name=each.name,
            paused=each.paused,
            last_run=run and run.name,
            last_start=run and run.start_time,
            state=run and run.state_name,
            verdict=run and _verdict(run),
            message=run and explain_failure(run),
            next_start=next_run and next_run.expected_start_time,
            on_drift=each.id in drifting,
            judged=judged_run
            and JudgedRun(
                run=judged_run.name,
                start=judged_run.start_time,
                verdict=_verdict(judged_run) or "",
                message=explain_failure(judged_run),
            ),
            id=str(each.id),
            last_run_id=run and str(run.id),
            ended_badly=run is not None and _ended_badly(each, run, state),
        )


def _ended_badly(deployment: DeploymentResponse, run: FlowRun, state: StoreState) -> bool:
    """Whether a run failed and no retrain of the same name has ended well since, for example by the command line."""
    if run.state_type not in ENDED_BADLY and not (explain_failure(run) or "").startswith(LOST_SLOT):
        return False
    names = {tag.removeprefix(MODEL_TAG) for tag in deployment.tags if deployment.entrypoint == RETRAIN}
    ended = (each.ended for name in names & state.names.keys() for each in state.names[name].runs if each.ended_well)
    failed_at = int(run.end_time.timestamp()) if run.end_time else math.inf  # the store records whole seconds
    return all(datetime.fromisoformat(moment).timestamp() < failed_at for moment in ended)


def _verdict(run: FlowRun) -> str | None:
    found = (tag.removeprefix(kind) for kind in (VERDICT_TAG, DRIFT_TAG) for tag in run.tags if tag.startswith(kind))
    return next(found, None)


def explain_failure(run: FlowRun) -> str | None:
    """The message of a run's state unless it has completed."""
    return None if run.state is None or run.state.is_completed() else explain_state(run.state)


def explain_state(state: State[Any] | None) -> str | None:
    """The message of a state, without Prefect's words before ours."""
    return state.message.removeprefix(PREFECTS) if state and state.message else None
