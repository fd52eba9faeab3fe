"""What ``gradmill status`` and ``trigger`` say of runs, on a real server."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, exception_to_failed_state
from prefect.utilities.asyncutils import run_coro_as_sync

from command_line import GRADMILL, assert_clear
from flows import interrupt
from flows.cli import operate as command
from flows.cli.operate import read_failure, trigger
from flows.cli.options import nest_assignments
from flows.server import api, connection, deployments, registration, status
from prefect_api import api_client, eventually, post
from tasks.errors import DataError, DeviceMissing, GateFailed, GradmillError, TrainingDiverged, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, locks, state

WEEKLY = "linear-weekly"


def test_runs_that_nobody_takes_are_stuck_and_no_others(prefect_api: str) -> None:
    flow = post(prefect_api, "flows/", {"name": "stuck"})["id"]
    past, future = (
        {"scheduled_time": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()} for minutes in (-2, 2)
    )

    def run(name: str, tag: str = "gradmill", /, **state: Any) -> str:
        return str(
            post(prefect_api, "flow_runs/", {"flow_id": flow, "name": name, "tags": [tag], "state": state})["id"]
        )

    made = {
        run("late", type="SCHEDULED", state_details=past): "no worker has taken it",
        run("running", type="RUNNING"): "",
        run("not due", type="SCHEDULED", state_details=future): "",
        run("of others", "others", type="SCHEDULED", state_details=past): "",
        run("ended", type="COMPLETED"): "",
    }

    second = run("second", type="SCHEDULED", name="AwaitingConcurrencySlot", state_details=past)

    found = status.describe(state.read())
    assert {each.id: each.reason for each in found.stuck if each.id in made} == {
        run: reason for run, reason in made.items() if reason
    }
    (queued,) = [each for each in found.queued if each.id == second]
    assert queued.reason == "waits for another run of its deployment"


@pytest.fixture
def weekly(prefect_api: str, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[httpx.Client, dict[str, Any]]]:
    """A server with our deployments, and one of them; it has no runs."""
    with api_client(prefect_api) as client:
        for each in client.post("/deployments/filter", json={}).json():
            client.delete(f"/deployments/{each['id']}").raise_for_status()
        registration.register()
        capsys.readouterr()
        yield client, client.get(f"/deployments/name/retrain/{WEEKLY}").raise_for_status().json()


@pytest.mark.slow
def test_the_last_judged_run_is_told_beside_a_newer_one_that_was_not(
    weekly: tuple[httpx.Client, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    client, deployment = weekly

    def run(name: str, *tags: str, **state: Any) -> None:
        of_it = {"flow_id": deployment["flow_id"], "deployment_id": deployment["id"], "tags": ["gradmill", *tags]}
        made = client.post("/flow_runs/", json=of_it | {"name": name, "state": {"type": "RUNNING"}})
        path = f"/flow_runs/{made.raise_for_status().json()['id']}/set_state"
        client.post(path, json={"state": state, "force": True}).raise_for_status()

    def told() -> tuple[Any, list[str]]:
        found = status.describe(state.read())
        (each,) = [each for each in found.deployments if each.name == WEEKLY]
        return each, [line for line in found.attention if line.startswith(WEEKLY)]

    reason = "GateFailed: refused by champion_recall"
    run("first", "verdict:refused", type="FAILED", message=reason)
    each, attention = told()
    assert (each.last_run, each.verdict, each.judged.run) == ("first", "refused", "first")
    assert attention == [f"{WEEKLY}: Failed: {reason}"]
    run("second", "verdict:unchanged", type="COMPLETED")
    run("third", type="CANCELLED")
    each, attention = told()
    assert (each.last_run, each.verdict, attention) == ("third", None, [])
    assert (each.judged.run, each.judged.verdict, each.judged.message) == ("first", "refused", reason)
    run("fourth", "drift:drift", type="COMPLETED")
    assert (told()[0].verdict, told()[0].judged.run) == ("drift", "first")
    run("fifth", type="CANCELLED")
    document, tell, failure = command.status(check=True)
    tell()
    output = capsys.readouterr().out
    assert f"refused {datetime.now(UTC):%m-%d}" in output
    assert f"{WEEKLY}: refused: {reason}" in output
    assert max(map(len, output.splitlines())) < 160
    assert failure.exit_code == 1
    # Attention has a disk that is nearly full, too.
    assert any("no worker is online" in each for each in document["attention"])


def test_the_worker_of_an_up_that_has_just_begun_is_starting_and_is_a_fault_when_it_stays_away(
    prefect_api: str,
) -> None:
    artifact_paths.prefect_home().mkdir(parents=True)
    with locks.hold_lock(artifact_paths.up_lock(), "a gradmill up"), temporary_settings({PREFECT_API_URL: prefect_api}):
        connection.make_service(prefect_api).write(artifact_paths.service())
        found = status.describe(state.read())
        assert [(each.name, each.status) for each in found.workers] == [(registration.worker_name(), "STARTING")]
        assert not any("no worker is online" in each for each in found.attention)
        os.utime(artifact_paths.service(), (0, 0))
        assert any("no worker is online" in each for each in status.describe(state.read()).attention)


def test_addresses_are_told_without_credentials_and_those_of_the_ui_as_its_setting_has_them(prefect_api: str) -> None:
    with_secret = prefect_api.replace("://", "://me:word@")
    with temporary_settings({PREFECT_API_URL: with_secret}):
        assert (status.describe(state.read()).api_url or "").rstrip("/") == prefect_api
        assert api.ui() == prefect_api.removesuffix("/api")
        assert "word" not in (deployments.find_page(ended(Completed())) or "")
    with temporary_settings({PREFECT_API_URL: "http://server:4200/api", PREFECT_UI_URL: "http://127.0.0.1:9/"}):
        assert api.ui() == "http://127.0.0.1:9"
        assert (deployments.find_page(ended(Completed())) or "").startswith("http://127.0.0.1:9/")


@pytest.mark.slow
def test_a_worker_that_has_been_silent_for_a_day_is_none(
    weekly: tuple[httpx.Client, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = weekly
    client.post("/work_pools/gradmill/workers/heartbeat", json={"name": "ours"}).raise_for_status()
    assert "ours" in [worker.name for worker in status.describe(state.read()).workers]
    monkeypatch.setattr(status, "FORGOTTEN", timedelta())
    assert status.describe(state.read()).workers == []
    client.delete("/work_pools/gradmill/workers/ours").raise_for_status()  # other tests use this server


def ended(state: State[Any]) -> FlowRun:
    return FlowRun(flow_id=uuid4(), state=state)


@pytest.mark.parametrize(
    ("error", "code"),
    [(GateFailed, 3), (TrainingDiverged, 3), (DataError, 4), (DeviceMissing, 5), (UsageError, 2), (GradmillError, 1)],
)
def test_a_runs_exit_code_is_that_of_the_error_that_prefect_has_noted(error: type[GradmillError], code: int) -> None:
    failed = run_coro_as_sync(exception_to_failed_state(error("found UsageError: x", "y", "z")))
    assert deployments.find_exit_code(ended(failed)) == code


def test_a_runs_exit_code_is_1_where_it_was_not_an_error_of_ours() -> None:
    failed = run_coro_as_sync(exception_to_failed_state(ValueError("DataErrors: none")))
    states: list[State[Any]] = [failed, Crashed(), Cancelled(), Completed()]
    assert [deployments.find_exit_code(ended(state)) for state in states] == [1, 1, 1, 0]


@pytest.mark.slow
def test_trigger_prints_the_runs_page_and_waits_for_its_end(
    weekly: tuple[httpx.Client, dict[str, Any]],
    prefect_api: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, deployment = weekly
    answer = trigger(WEEKLY, ["training.lr=0.2"])
    run = client.get(f"/flow_runs/{answer[0]['id']}").json()
    assert run["parameters"]["parameters"]["training"] == {"model": "linear-regression", "seed": "auto", "lr": 0.2}
    page = f"{prefect_api.removesuffix('/api')}/runs/flow-run/{run['id']}"
    assert answer[1].splitlines()[1] == page
    monkeypatch.setattr(deployments, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(deployments, "LATE", timedelta())
    monkeypatch.setattr(interrupt, "done", "")
    of_it = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "id": {"not_any_": [run["id"]]}}}

    def end() -> None:
        manual = eventually(
            lambda: [
                each for each in client.post("/flow_runs/filter", json=of_it).json() if not each["auto_scheduled"]
            ],
            30,
        )
        time.sleep(0.5)  # it is asked for meanwhile
        state = {"type": "FAILED", "message": "Flow run encountered an exception: DataError: no file"}
        client.post(f"/flow_runs/{manual[0]['id']}/set_state", json={"state": state, "force": True})

    ending = threading.Thread(target=end)
    ending.start()
    document, _, failure = trigger(WEEKLY, wait=True)
    ending.join()
    assert (document["exit_code"], document["state"]) == (4, "Failed")
    assert capsys.readouterr().err.count("no worker has taken it yet") == 1
    assert interrupt.done == f"run {document['run']} goes on", "what Ctrl-C would have said"
    assert failure is not None
    assert failure.exit_code == 4
    assert failure.found == "DataError: no file"


def test_why_a_run_was_refused_is_told_by_trigger_as_by_the_command_that_retrains() -> None:
    error = GateFailed("refused by train_loss 1.6", "train_loss: less than 0.5 required", "train longer")
    assert str(read_failure(str(error), 3, "nightly: refused")) == str(error)
    assert "nightly: crashed: no reason" in read_failure("", 1, "nightly: crashed").found


@pytest.mark.slow
def test_every_parameter_that_trigger_lists_is_taken_with_the_value_that_it_shows(
    weekly: tuple[httpx.Client, dict[str, Any]],
) -> None:
    rows = trigger("softmax-nightly", list_params=True)[0]["parameters"]
    shown = {row["name"]: row["value"] for row in rows}
    assert (shown["training.lr"], shown["training.num_epochs"], shown["predict"]) == (0.5, 20, True)
    assert {"name", "training.seed", "gates.min_test_accuracy", "data.source"} <= shown.keys()
    assert all(row["description"] for row in rows)
    assert shown["name"] == "", "the model's own"
    given = [f"{name}={json.dumps(value)}" for name, value in shown.items() if value is not None]
    parameters = RetrainParameters.model_validate(nest_assignments(given))
    assert (parameters.training.lr, parameters.training.num_epochs) == (0.5, 20)


@pytest.mark.slow  # a process of its own: the limit is read when a flow is imported
def test_a_run_that_takes_longer_than_its_limit_ends_as_failed_with_that_reason(server: str) -> None:
    before = [run["id"] for run in post(server, "flow_runs/filter", {"sort": "START_TIME_DESC"})]
    environment = os.environ | {"PREFECT_API_URL": server, "GRADMILL_TIME_LIMIT": "00:00:03"}
    command = [GRADMILL, "retrain", "linear-regression", "--epochs", "3000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert_clear(done, 1)
    assert "GRADMILL_TIME_LIMIT" in done.stderr
    newest = post(server, "flow_runs/filter", {"sort": "START_TIME_DESC"})
    (run,) = (run for run in newest if run["id"] not in before)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "TimedOut")
    assert run["state"]["message"] == "Flow run exceeded timeout of 3.0 second(s)"
