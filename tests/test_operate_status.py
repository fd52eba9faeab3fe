"""What ``gradmill status`` and ``trigger`` say of runs, on a real server."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import typer
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
from tasks.store.run_folder import RunFolder

WEEKLY = "linear-weekly"


def test_runs_that_nobody_takes_are_stuck_and_no_others(prefect_api: str) -> None:
    flow = post(prefect_api, "flows/", {"name": "stuck"})["id"]
    past, future = (
        {"scheduled_time": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()} for minutes in (-2, 2)
    )
    made = {}
    for name, tag, state_of_it in (
        ("late", "gradmill", {"type": "SCHEDULED", "state_details": past}),
        ("second", "gradmill", {"type": "SCHEDULED", "name": "AwaitingConcurrencySlot", "state_details": past}),
        ("running", "gradmill", {"type": "RUNNING"}),
        ("not due", "gradmill", {"type": "SCHEDULED", "state_details": future}),
        ("of others", "others", {"type": "SCHEDULED", "state_details": past}),
        ("ended", "gradmill", {"type": "COMPLETED"}),
    ):
        facts = {"flow_id": flow, "name": name, "tags": [tag], "state": state_of_it}
        made[post(prefect_api, "flow_runs/", facts)["id"]] = name
    found = status.describe(state.read())
    told = [{made[each.id]: each.reason for each in part if each.id in made} for part in (found.stuck, found.queued)]
    assert told == [{"late": "no worker has taken it"}, {"second": "waits for another run of its deployment"}]


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

    def ran(name: str, *tags: str, **state_of_it: Any) -> Any:
        """What is told of the deployment after another run."""
        facts = {"flow_id": deployment["flow_id"], "deployment_id": deployment["id"], "tags": ["gradmill", *tags]}
        made = client.post("/flow_runs/", json=facts | {"name": name, "state": {"type": "RUNNING"}})
        path = f"/flow_runs/{made.raise_for_status().json()['id']}/set_state"
        client.post(path, json={"state": state_of_it, "force": True}).raise_for_status()
        (each,) = [each for each in status.describe(state.read()).deployments if each.name == WEEKLY]
        assert each.judged is not None
        return each.last_run, each.verdict, each.judged.run, each.judged.verdict, each.judged.message

    reason = "GateFailed: refused by champion_recall"
    judged = ("first", "refused", reason)
    assert ran("first", "verdict:refused", type="FAILED", message=reason) == ("first", "refused", *judged)

    def told() -> list[str]:
        return [line for line in status.describe(state.read()).attention if line.startswith(WEEKLY)]

    (line,) = told()
    assert re.fullmatch(rf"{WEEKLY}: Failed at \d{{4}}-\d\d-\d\d \d\d:\d\d: {reason}", line)
    asked = RetrainParameters.model_validate({"training": {"model": "linear-regression"}}).model_dump(mode="json")
    by_command = RunFolder.open("20991101T030000-linear-regression-00000001", asked)
    by_command.note(stages={"unchanged": {"outcome": "unchanged", "version": 1, "detail": "of these rows"}})
    assert told() == [], "a retrain by the command line has ended well since"
    assert ran("second", "verdict:unchanged", type="COMPLETED") == ("second", "unchanged", *judged)
    assert ran("third", "drift:drift", type="COMPLETED") == ("third", "drift", *judged)
    assert ran("fourth", type="CANCELLED") == ("fourth", None, *judged)
    document, tell, failure, _ = command.status(check=True)
    assert not any(line.startswith(WEEKLY) for line in document["attention"])
    assert any("no worker is online" in each for each in document["attention"])  # a disk that is nearly full, too
    assert callable(tell)
    tell()
    output = capsys.readouterr().out
    assert f"refused {datetime.now(UTC):%m-%d}" in output
    assert f"{WEEKLY}: refused: {reason}" in output
    assert max(map(len, output.splitlines())) < 160
    assert isinstance(failure, typer.Exit)
    assert failure.exit_code == 1


CODES = {GateFailed: 3, TrainingDiverged: 3, DataError: 4, DeviceMissing: 5, UsageError: 2, GradmillError: 1}
RUNS_END: list[tuple[Any, int]] = [(error("found UsageError: x", "y", "z"), code) for error, code in CODES.items()]
RUNS_END += [(ValueError("DataErrors: none"), 1), (Crashed(), 1), (Cancelled(), 1), (Completed(), 0)]


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


def ended(state: State[Any]) -> FlowRun:
    return FlowRun(flow_id=uuid4(), state=state)


@pytest.mark.parametrize(("end", "code"), RUNS_END)
def test_a_runs_exit_code_is_that_of_the_error_that_prefect_has_noted(end: Any, code: int) -> None:
    state_of_it = run_coro_as_sync(exception_to_failed_state(end)) if isinstance(end, Exception) else end
    assert deployments.find_exit_code(ended(state_of_it)) == code


@pytest.mark.slow
def test_trigger_prints_the_runs_page_and_waits_for_its_end(
    weekly: tuple[httpx.Client, dict[str, Any]],
    prefect_api: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client, deployment = weekly
    document, answer, *_ = trigger(WEEKLY, ["training.lr=0.2"])
    run = client.get(f"/flow_runs/{document['id']}").json()
    assert run["parameters"]["parameters"]["training"] == {"model": "linear-regression", "seed": "auto", "lr": 0.2}
    assert str(answer).splitlines()[1] == f"{prefect_api.removesuffix('/api')}/runs/flow-run/{run['id']}"
    monkeypatch.setattr(deployments, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(deployments, "LATE", timedelta())
    monkeypatch.setattr(interrupt, "done", "")
    of_it = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "id": {"not_any_": [run["id"]]}}}

    def manual() -> list[dict[str, Any]]:
        found = client.post("/flow_runs/filter", json=of_it).json()
        return [each for each in found if not each["auto_scheduled"]]

    def end() -> None:
        (second,) = eventually(manual, 30)
        time.sleep(0.5)  # it is asked for meanwhile
        failed = {"type": "FAILED", "message": "Flow run encountered an exception: DataError: no file"}
        client.post(f"/flow_runs/{second['id']}/set_state", json={"state": failed, "force": True})

    ending = threading.Thread(target=end)
    ending.start()
    document, _, failure, _ = trigger(WEEKLY, wait=True)
    ending.join()
    assert (document["exit_code"], document["state"]) == (4, "Failed")
    assert capsys.readouterr().err.count("no worker has taken it yet") == 1
    assert interrupt.done == f"run {document['run']} goes on", "what Ctrl-C would have said"
    assert isinstance(failure, GradmillError)
    assert (failure.exit_code, failure.found) == (4, "DataError: no file")


def test_why_a_run_was_refused_is_told_by_trigger_as_by_the_command_that_retrains() -> None:
    error = GateFailed("refused by train_loss 1.6", "train_loss: less than 0.5 required", "train longer")
    assert str(read_failure(str(error), 3, "nightly: refused")) == str(error)
    assert "nightly: crashed: no reason" in read_failure("", 1, "nightly: crashed").found


@pytest.mark.slow
def test_every_parameter_that_trigger_lists_is_taken_with_the_value_that_it_shows(
    weekly: tuple[httpx.Client, dict[str, Any]],
) -> None:
    rows = trigger("softmax-nightly", list_params=True)[0]["parameters"]
    assert all(row["description"] for row in rows)
    shown = {row["name"]: row["value"] for row in rows}
    assert {"name": "", "predict": True, "training.lr": 0.5}.items() <= shown.items()
    given = [f"{name}={json.dumps(value)}" for name, value in shown.items() if value is not None]
    parameters = RetrainParameters.model_validate(nest_assignments(given))
    assert (parameters.training.lr, parameters.training.num_epochs) == (0.5, 20)


@pytest.mark.slow  # a process of its own: the limit is read when a flow is imported
def test_a_run_that_takes_longer_than_its_limit_ends_as_failed_with_that_reason(server: str) -> None:
    before = [run["id"] for run in post(server, "flow_runs/filter", {"sort": "START_TIME_DESC"})]
    environment = os.environ | {"PREFECT_API_URL": server, "GRADMILL_TIME_LIMIT": "00:00:03"}
    command = [GRADMILL, "retrain", "linear-regression", "--epochs", "3000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert_clear(done, 1)
    assert "GRADMILL_TIME_LIMIT" in done.stderr
    newest = post(server, "flow_runs/filter", {"sort": "START_TIME_DESC"})
    (run,) = (run for run in newest if run["id"] not in before)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "TimedOut")
    assert run["state"]["message"] == "Flow run exceeded timeout of 3.0 second(s)"
