"""What ``gradmill status`` and ``trigger`` say of runs, on a real server."""

import json
import os
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.concurrency._leases import maintain_concurrency_lease
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, exception_to_failed_state
from prefect.utilities.asyncutils import run_coro_as_sync

from command_line import GRADMILL, assert_clear, typed
from flows import interrupt
from flows.cli.operate import trigger
from flows.cli.options import nest_assignments
from flows.pages import run_names
from flows.server import api, connection, deployments, registration, status
from prefect_api import post
from prefect_ui import Server
from tasks.errors import DataError, DeviceMissing, GateFailed, GradmillError, TrainingDiverged, UsageError
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.store import artifact_paths, locks, state
from tasks.store.run_folder import RunFolder

WEEKLY = "linear-weekly"


def test_runs_that_nobody_takes_are_stuck_and_no_others(prefect_api: str) -> None:
    flow = post(prefect_api, "flows/", {"name": "stuck"})["id"]
    past, future = (
        {"scheduled_time": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()} for minutes in (-2, 2)
    )
    due: dict[str, Any] = {"type": "SCHEDULED", "state_details": past}
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "late": ("gradmill", due),
        "second": ("gradmill", due | {"name": "AwaitingConcurrencySlot"}),
        "not due": ("gradmill", due | {"state_details": future}),
        "of others": ("others", due),
    }
    for name, (tag, its_state) in runs.items():
        post(prefect_api, "flow_runs/", {"flow_id": flow, "name": name, "tags": [tag], "state": its_state})
    found = status.describe(state.read())
    told = [{each.name: each.reason for each in part if each.name in runs} for part in (found.stuck, found.queued)]
    assert told == [{"late": "no worker has taken it"}, {"second": "waits for another run of its deployment"}]


@pytest.mark.slow
def test_status_reads_more_than_the_200_rows_that_a_server_answers_at_once(ui: Server, prefect_api: str) -> None:
    flow, numbers = post(prefect_api, "flows/", {"name": "many"})["id"], range(201)
    past = {"scheduled_time": (datetime.now(UTC) - timedelta(minutes=2)).isoformat()}
    due = {"flow_id": flow, "tags": ["gradmill"], "state": {"type": "SCHEDULED", "state_details": past}}
    trigger_of_it = {"type": "event", "posture": "Reactive", "expect": ["nothing"], "threshold": 1}
    off = {"enabled": False, "trigger": trigger_of_it, "actions": [{"type": "do-nothing"}]}

    def make(kind: str, document: dict[str, Any]) -> str:
        return str(ui.api.post(f"/{kind}/", json=document).raise_for_status().json()["id"])

    runs = [make("flow_runs", due | {"name": f"many {number}"}) for number in numbers]
    alerts = [make("automations", off | {"name": f"gradmill: notify of {number}"}) for number in numbers]
    document = json.loads(typed("status", "--json").stdout)
    for kind, ids in {"flow_runs": runs, "automations": alerts}.items():
        for each in ids:
            ui.api.delete(f"/{kind}/{each}").raise_for_status()
    assert {each["name"] for each in document["stuck"]} >= {f"many {number}" for number in numbers}
    assert {*document["alerts_off"]} == {*map(str, numbers)}


@pytest.fixture
def weekly(ui: Server, prefect_api: str) -> tuple[httpx.Client, dict[str, Any]]:
    """A server with our deployments, and one of them; it has no runs."""
    registration.register()
    return ui.api, ui.deployment(WEEKLY)


@pytest.mark.slow
def test_the_last_judged_run_is_told_beside_a_newer_one_that_was_not(
    weekly: tuple[httpx.Client, dict[str, Any]],
) -> None:
    client, deployment = weekly

    def ran(name: str, *tags: str, **ended: Any) -> Any:
        """What is told of the deployment after another run."""
        facts = {"flow_id": deployment["flow_id"], "deployment_id": deployment["id"], "tags": ["gradmill", *tags]}
        client.post("/flow_runs/", json=facts | {"name": name, "state": ended}).raise_for_status()
        (each,) = [each for each in status.describe(state.read()).deployments if each.name == WEEKLY]
        assert each.judged is not None
        return each.last_run, each.verdict, each.judged.run, each.judged.verdict, each.judged.message

    def told() -> str:
        return "\n".join(line for line in status.describe(state.read()).attention if line.startswith(WEEKLY))

    reason = "GateFailed: refused by champion_recall"
    judged = ("first", "refused", reason)
    assert ran("first", "verdict:refused", type="FAILED", message=reason) == ("first", "refused", *judged)
    assert re.fullmatch(rf"{WEEKLY}: Failed at \d{{4}}-\d\d-\d\d \d\d:\d\d: {reason}", told())
    asked = RetrainParameters.model_validate({"training": {"model": "linear-regression"}}).model_dump(mode="json")
    by_command = RunFolder.open("20991101T030000-linear-regression-00000001", asked)
    by_command.note(stages={"unchanged": {"outcome": "unchanged", "version": 1, "detail": "of these rows"}})
    assert told() == "", "a retrain by the command line has ended well since"
    for tag, verdict, end in (
        ("verdict:unchanged", "unchanged", "COMPLETED"),
        ("drift:drift", "drift", "COMPLETED"),
        ("of no verdict", None, "CANCELLED"),
    ):
        assert ran(tag, tag, type=end) == (tag, verdict, *judged)
    done = typed("status", "--check")
    assert done.returncode == 1, "no worker is online; a disk may be nearly full, too"
    for words in (f"refused {datetime.now(UTC):%m-%d}", f"{WEEKLY}: refused: {reason}"):
        assert words in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("weekly")
def test_every_skip_leaves_out_one_more_run_and_status_has_the_next_that_begins() -> None:
    skipped = []
    for _ in range(5):  # the server itself plans three
        with api.client() as client:
            due, later = deployments.skip(client, WEEKLY)
        (each,) = [each for each in status.describe(state.read()).deployments if each.name == WEEKLY]
        assert (later, each.next_start) == (due + timedelta(days=7), later)
        skipped.append(due)
    assert skipped == sorted({*skipped})


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
    run = ended(Completed())
    with temporary_settings({PREFECT_API_URL: prefect_api.replace("://", "://me:word@")}):
        assert (status.describe(state.read()).api_url or "").rstrip("/") == prefect_api
        assert api.ui() == prefect_api.removesuffix("/api")
        assert "word" not in (deployments.find_page(run) or "")
    with temporary_settings({PREFECT_API_URL: "http://server:4200/api", PREFECT_UI_URL: "http://127.0.0.1:9/"}):
        assert api.ui() == "http://127.0.0.1:9"
        assert (deployments.find_page(run) or "").startswith("http://127.0.0.1:9/")


def ended(state: State[Any]) -> FlowRun:
    return FlowRun(flow_id=uuid4(), state=state)


@pytest.mark.parametrize(("end", "code"), RUNS_END)
def test_a_runs_exit_code_is_that_of_the_error_that_prefect_has_noted(end: Any, code: int) -> None:
    state_of_it = run_coro_as_sync(exception_to_failed_state(end)) if isinstance(end, Exception) else end
    assert deployments.find_exit_code(ended(state_of_it)) == code


@pytest.mark.slow
def test_who_waits_for_a_run_is_told_that_no_worker_takes_it_and_how_it_ended(
    weekly: tuple[httpx.Client, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client, deployment = weekly
    of_it = {"flow_runs": {"deployment_id": {"any_": [deployment["id"]]}}}
    waited: list[float] = []

    def wait(seconds: float) -> None:
        """Between two requests; after the fourth the run is at its end."""
        waited.append(seconds)
        if len(waited) == 4:
            (run,) = (run for run in client.post("/flow_runs/filter", json=of_it).json() if not run["auto_scheduled"])
            failed = {"type": "FAILED", "message": "Flow run encountered an exception: DataError: no file"}
            client.post(f"/flow_runs/{run['id']}/set_state", json={"state": failed, "force": True})

    monkeypatch.setattr(deployments, "time", SimpleNamespace(sleep=wait, monotonic=time.monotonic))
    monkeypatch.setattr(deployments, "LATE", timedelta())
    monkeypatch.setattr(interrupt, "done", "")
    document, _, failure, _ = trigger(WEEKLY, wait=True)
    assert (document["exit_code"], document["state"]) == (4, "Failed")
    assert capsys.readouterr().err.count("no worker has taken it yet") == 1
    assert interrupt.done == f"run {document['run']} goes on", "what Ctrl-C would have said"
    assert isinstance(failure, GradmillError)
    assert (failure.exit_code, failure.found) == (4, "DataError: no file")


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


def test_what_older_versions_have_left_is_said_once_and_needs_nobody(artifacts: Path) -> None:
    assert "older versions" not in typed("status").stdout
    for leftover in artifact_paths.LEFTOVERS:
        (artifacts / leftover).mkdir(parents=True)
    words = f"left by older versions, no longer read, safe to delete: {', '.join(artifact_paths.LEFTOVERS)}"
    assert " ".join(typed("status").stdout.split()).count(words) == 1
    document = json.loads(typed("status", "--json").stdout)
    assert document["leftovers"] == [*artifact_paths.LEFTOVERS]
    assert not any("older" in each for each in document["attention"])


@pytest.mark.slow  # a process of its own: the limit is read when a flow is imported
def test_a_run_that_takes_longer_than_its_limit_ends_as_failed_with_that_reason(server: str) -> None:
    before = [run["id"] for run in post(server, "flow_runs/filter", {"sort": "START_TIME_DESC"})]
    environment = os.environ | {"PREFECT_API_URL": server, "GRADMILL_TIME_LIMIT": "00:00:03"}
    command = [GRADMILL, "retrain", "linear-regression", "--epochs", "3000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert_clear(done, 1, "GRADMILL_TIME_LIMIT")
    newest = post(server, "flow_runs/filter", {"sort": "START_TIME_DESC"})
    (run,) = (run for run in newest if run["id"] not in before)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "TimedOut")
    assert run["state"]["message"] == "Flow run exceeded timeout of 3.0 second(s)"


@pytest.mark.slow  # three attempts of Prefect to renew what the server does not know
def test_a_run_that_has_lost_its_slot_does_not_say_that_it_took_too_long(prefect_api: str, artifacts: Path) -> None:
    @flow(timeout_seconds=43200)
    def lose_slot() -> None:
        slot = maintain_concurrency_lease(uuid4(), 300, raise_on_lease_renewal_failure=True)
        with slot, run_names.open_run("x", PredictParameters()):
            time.sleep(60)

    ended = lose_slot(return_state=True)
    assert ended.name == "Failed"
    assert "the run has lost its concurrency slot" in str(ended.message)
