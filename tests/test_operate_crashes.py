"""What dies under way, of all that ``gradmill up`` runs, and what goes on: on SQLite or PostgreSQL."""

import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import State, StateType

from duty import Duty
from flows.server import api, up
from flows.server.connection import use_api
from prefect_api import eventually

pytestmark = pytest.mark.slow
NAME = "linear-regression"
LONG = {"num_epochs": 300, "schedule": "cosine"}  # trains for seconds


def training(duty: Duty, seed: int, deployment: str = "linear-weekly", name: str = NAME) -> tuple[str, int]:
    """A run that has come to its training, and the process that trains."""
    run = duty.trigger(deployment, name=name, training={**LONG, "model": name, "seed": seed})
    eventually(lambda: "preprocess" in duty.stages(run), 240, "the run trains")
    (process,) = duty.processes_of(run=run)
    return run, process


def test_a_killed_run_is_crashed_at_once_and_its_retry_completes(duty: Duty) -> None:
    duty.published(NAME)
    run, process = training(duty, 1)
    os.kill(process, signal.SIGKILL)
    noticed = "the worker notices; a lack of heartbeats says it in 45 s"
    eventually(lambda: duty.state_of(run) == "CRASHED", 40, noticed, patience=1)
    assert "was killed" in duty.does("models", NAME, "--runs")
    time.sleep(10)  # the worker tells of the crash a second time, seconds later; a retry in between is lost
    retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
    for _ in range(3):
        duty.post(f"/flow_runs/{run}/set_state", retry)
        if duty.ended(run)["state_type"] == "COMPLETED":
            break
    assert duty.state_of(run) == "COMPLETED"
    assert "train" in duty.stages(run)


def test_a_run_outlasts_a_server_that_stands_still_for_20_seconds_and_then_dies_and_one_that_just_began_is_told(
    duty: Duty,
) -> None:
    run, _ = training(duty, 2)
    nightly = duty.deployment("softmax-nightly")
    facts = {"flow_id": nightly["flow_id"], "deployment_id": nightly["id"], "tags": ["gradmill"]}
    beginning = duty.post("/flow_runs/", facts | {"state": {"type": "SCHEDULED"}})["id"]

    def come_to(state: StateType) -> Any:
        """The state that the run which begins is given, as it asks for this one."""
        with use_api(f"{duty.ui}/api", duty.credential), api.client() as client:
            answer = client.set_flow_run_state(beginning, State(type=state))
        return answer.state and answer.state.type

    assert come_to(StateType.PENDING) == StateType.PENDING
    server = duty.processes_of("flows.server.prefect_server")
    for process in server:
        os.kill(process, signal.SIGSTOP)
    time.sleep(20)
    for process in server:
        os.kill(process, signal.SIGKILL)  # up starts another
    eventually(lambda: duty.answers(), 60, "another server is there")
    assert come_to(StateType.RUNNING) == StateType.CANCELLED
    assert "! softmax-nightly: Cancelled" in duty.does("status"), "by Prefect itself: nobody asked for that"
    assert duty.ended(run)["state_type"] == "COMPLETED"
    duty.does("verify", NAME)


def test_a_run_that_died_with_its_worker_is_marked_within_90_seconds_and_the_worker_replaced(duty: Duty) -> None:
    worker = duty.processes_of("prefect worker start")
    began = max(psutil.Process(pid).create_time() for pid in worker)
    eventually(lambda: time.time() - began > up.LASTING_SECONDS, 60, "a worker that ends is no failed start any more")
    run, process = training(duty, 3)
    died = datetime.now(UTC)
    for pid in [*worker, process]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: process not in duty.family(), 60, "the run's process is gone")
    assert duty.state_of(run) == "RUNNING"
    crashed = duty.ended(run)
    assert crashed["state_type"] == "CRASHED"
    assert datetime.fromisoformat(crashed["state"]["timestamp"]) - died < timedelta(seconds=90)
    assert duty.ended(duty.trigger("linear-weekly"))["state_type"] == "COMPLETED", "another worker is there"


def test_after_ctrl_c_and_after_a_power_cut_another_up_goes_on_and_tells_the_runs_that_died(duty: Duty) -> None:
    history = {run["id"] for run in duty.post("/flow_runs/filter", {"flow_runs": {"end_time": {"is_null_": False}}})}
    automations = [each["name"] for each in duty.list("automations")]
    interrupted, _ = training(duty, 4, "softmax-nightly", "softmax-regression")
    name = duty.run(interrupted)["name"]
    duty.process.send_signal(signal.SIGINT)
    assert duty.process.wait(60) == 130
    assert duty.family() == {}
    duty.process.communicate()
    said = (duty.artifacts.parent / "up.log").read_text()
    assert f"ended       {name}: Retry in the UI" in said
    duty.up()
    state = duty.run(interrupted)["state"]
    assert (state["type"], state["message"]) == ("CRASHED", up.REASON), "before it was up again"
    cut, _ = training(duty, 5)
    for pid in (duty.process.pid, *duty.family()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    duty.process.communicate()
    eventually(lambda: not duty.family(), 60, "nothing is left")
    duty.up()
    assert history <= {run["id"] for run in duty.list("flow_runs")}
    assert [each["name"] for each in duty.list("automations")] == automations
    assert {duty.ended(run)["state_type"] for run in (interrupted, cut)} == {"CRASHED"}
    assert duty.ended(duty.trigger("linear-weekly"))["state_type"] == "COMPLETED", "no dead run keeps its place"
    assert len(duty.post("/work_pools/gradmill/workers/filter", {})) == 1, (
        "the ended workers have left their place to it"
    )
