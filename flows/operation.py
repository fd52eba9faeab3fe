"""Scheduled operation on one machine: server, work pool, deployments, automations and a worker, ended together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import PREFECT_API_URL, temporary_settings

import flows
from flows import tethered
from flows.temporary_server import ENVIRONMENT
from tasks import artifact_paths
from tasks.errors import EnvironmentProblem, UsageError

POOL = "gradmill"
GPU_LIMIT = "gpu"
ZOMBIES = "gradmill: crash runs whose heartbeats stop"
HEARTBEAT_SECONDS = 30
SILENT_SECONDS = 65  # two heartbeats missed
START_SECONDS = 180.0
SCHEDULER_SECONDS = 10.0
HOME = Path(os.environ.get("GRADMILL_HOME") or Path(flows.__file__).parents[1])  # where prefect.yaml is


class Operation(NamedTuple):
    """What is up: where it answers, whether the server is ours, and the children to watch."""

    api_url: str
    joined: bool
    children: dict[str, subprocess.Popen[bytes]]


@contextmanager
def operation(port: int) -> Iterator[Operation]:
    """Bring everything up, or join the server that PREFECT_API_URL names; take our own children down at the end.

    Raises:
        UsageError: the port is taken.
        EnvironmentProblem: the server does not start, or a deployment is not accepted.
    """
    configured = PREFECT_API_URL.value()
    children: dict[str, subprocess.Popen[bytes]] = {}
    api_url = configured or f"http://127.0.0.1:{port}/api"
    try:
        if not configured:
            children["server"] = _start_server(port)
        _await_server(api_url, children.get("server"))
        with temporary_settings({PREFECT_API_URL: api_url}):
            register(api_url)
            children["worker"] = _start_worker(api_url)
            yield Operation(api_url, bool(configured), children)
    finally:
        for name in reversed(children):
            tethered.stop(children[name])


def _environment(**more: str) -> dict[str, str]:
    """Of the children: a Prefect of their own below artifacts/, and what the server needs to run well."""
    ours = {
        "PREFECT_HOME": str(artifact_paths.prefect_home()),
        "GRADMILL_ARTIFACTS": str(artifact_paths.make_root()),
        "GRADMILL_HOME": str(HOME),
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    }
    return ENVIRONMENT | dict(os.environ) | ours | {"PREFECT_SERVER_UI_ENABLED": "true"} | more


def _log(name: str) -> Path:
    return artifact_paths.prefect_home() / f"{name}.log"


def _start_server(port: int) -> subprocess.Popen[bytes]:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} of 127.0.0.1 is taken",
                "a free port for the Prefect server",
                "choose another with --port, or set PREFECT_API_URL to join a server that runs already",
            ) from error
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    return tethered.start(command, _environment(), _log("server"), HOME)


def _await_server(api_url: str, server: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + (START_SECONDS if server else 10)
    while time.monotonic() < deadline and (server is None or server.poll() is None):
        with suppress(httpx.TransportError):
            if httpx.get(f"{api_url}/health", timeout=5).status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise EnvironmentProblem(
        f"no Prefect server answers at {api_url}",
        "an answer to /health",
        f"see {_log('server')}" if server else "start it, or unset PREFECT_API_URL",
    )


def register(api_url: str) -> None:
    """Tell the server of ``api_url``, which PREFECT_API_URL names too, all that it schedules and watches; idempotent.

    Raises:
        EnvironmentProblem: a deployment is not accepted.
    """
    _register()
    _deploy(api_url)


def _register() -> None:
    """The work pool, the limit of one job on the GPU, and the automation that notices dead runs; all idempotent."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)
        client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, 1)
        for old in client.read_automations_by_name(ZOMBIES):
            client.delete_automation(old.id)
        client.create_automation(_zombie_automation())


def _zombie_automation() -> AutomationCore:
    heartbeat = "prefect.flow-run.heartbeat"
    ends = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
    return AutomationCore(
        name=ZOMBIES,
        trigger=EventTrigger(
            after={heartbeat},
            expect={heartbeat, *ends},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat: the run's process is gone")],
    )


def _deploy(api_url: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = _environment(PREFECT_API_URL=api_url)
    done = subprocess.run(command, env=environment, cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentProblem(
            f"the deployments were not accepted: {(done.stderr or done.stdout).strip().splitlines()[-1]}",
            "prefect.yaml registered",
            f"run prefect deploy --all in {HOME}",
        )


def _start_worker(api_url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    environment = _environment(PREFECT_API_URL=api_url, PREFECT_WORKER_QUERY_SECONDS="5")
    return tethered.start(command, environment, _log("worker"), HOME)


def next_runs() -> list[tuple[datetime, str]]:
    """When each deployment runs next (UTC), soonest first; waits a little for a new server to schedule them."""
    deadline = time.monotonic() + SCHEDULER_SECONDS
    while True:
        with get_client(sync_client=True) as client:
            deployments = {each.id: each.name for each in client.read_deployments()}
            runs = client.read_flow_runs(
                flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": ["SCHEDULED"]}}}),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            )
        if deployments.keys() <= {run.deployment_id for run in runs} or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    soonest: dict[str, datetime] = {}
    for run in runs:
        if run.deployment_id in deployments and run.expected_start_time is not None:
            soonest.setdefault(deployments[run.deployment_id], run.expected_start_time)
    return sorted((moment, name) for name, moment in soonest.items())


def trigger(deployment: str, parameters: dict[str, Any]) -> str:
    """Start a run of a deployment now, with ``parameters`` in place of some of its own; return the run's name.

    Raises:
        UsageError: there is no such deployment.
    """
    with get_client(sync_client=True) as client:
        known = {each.name: each for each in client.read_deployments()}
        if deployment not in known:
            raise UsageError(
                f"no deployment {deployment}", f"one of: {', '.join(sorted(known)) or 'none yet'}", "run gradmill up"
            )
        inner = (known[deployment].parameters or {}).get("parameters", {})
        run = client.create_flow_run_from_deployment(
            known[deployment].id, parameters={"parameters": _merged(inner, parameters)}
        )
        return run.name


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    nested = {key: _merged(base[key], value) for key, value in over.items() if isinstance(value, dict) and key in base}
    return base | over | nested


def wait_for_the_end(running: Operation) -> None:
    """Return at SIGTERM.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        EnvironmentProblem: a child has ended by itself.
    """
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    while not ended.wait(0.5):
        for name, child in running.children.items():
            if child.poll() is not None:
                raise EnvironmentProblem(
                    f"the {name} has ended with {child.returncode}", "that it goes on", f"see {_log(name)}"
                )
