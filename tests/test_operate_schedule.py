"""Scheduled operation as the person on duty meets it: real server, worker and schedules, on SQLite or PostgreSQL."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import assert_clear
from duty import Duty
from flows.cli.options import nest_assignments
from notification_stand_ins import Endpoint, endpoint
from prefect_api import eventually

pytestmark = pytest.mark.slow
NAME = "linear-regression"
DEPLOYMENTS = {"softmax-nightly", "linear-weekly", "predict-daily", "evaluate", "maintenance-weekly", "tune-monthly"}


def started(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["start_time"])


def test_up_says_where_it_is_and_what_runs_next(duty: Duty) -> None:
    assert duty.lines[1].split() == ["Prefect", "UI", duty.ui]
    assert {line.split()[1] for line in duty.lines if line.startswith("next")} == DEPLOYMENTS - {
        "evaluate",
        "tune-monthly",
    }
    taken = duty.gradmill("up", "--port", str(duty.port), PREFECT_API_URL="")
    assert taken.returncode == 2
    assert f"another gradmill up is at work in {duty.artifacts}" in taken.stderr
    elsewhere = duty.gradmill(
        "up", "--port", str(duty.port), PREFECT_API_URL="", GRADMILL_ARTIFACTS=str(duty.artifacts.with_name("other"))
    )
    assert_clear(elsewhere, 2)
    assert f"port {duty.port} of 127.0.0.1 is taken" in elsewhere.stderr
    assert (duty.artifacts / ".prefect").stat().st_mode & 0o077 == 0, "saved blocks hold secrets"


def test_a_schedule_fires_and_the_worker_runs_it(duty: Duty) -> None:
    deployment = duty.deployment("linear-weekly")["id"]
    soon = {"interval": 40, "anchor_date": (datetime.now(UTC) + timedelta(seconds=15)).isoformat()}
    before = {run["id"] for run in duty.post("/flow_runs/filter", {})}
    (schedule,) = duty.post(f"/deployments/{deployment}/schedules", [{"active": True, "schedule": soon}])

    def fired() -> list[dict[str, Any]]:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        return [run for run in duty.post("/flow_runs/filter", wanted) if run["id"] not in before]

    try:
        run = eventually(fired, 180, "the schedule fires")[0]
    finally:
        duty.api.delete(f"/deployments/{deployment}/schedules/{schedule['id']}").raise_for_status()
    assert run["auto_scheduled"]
    assert run["name"].startswith("linear-regression concise 20")
    assert {"model:linear-regression", "verdict:published"} <= set(run["tags"])


def test_who_waits_for_a_run_is_told_its_stages_in_order(duty: Duty) -> None:
    done = duty.gradmill("trigger", "linear-weekly", "--param", "force=true", "--wait")
    assert done.returncode == 0, done.stderr
    stages = ["download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"]
    told = re.findall(rf"(?m)^.+: ({'|'.join(stages)})$", done.stderr)
    assert len(told) > 3
    assert told == [each for each in stages if each in told]


def test_the_next_run_is_left_out_and_no_other(duty: Duty) -> None:
    def planned() -> list[str]:
        wanted = {"deployments": {"name": {"any_": ["predict-daily"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        states = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        runs = duty.post("/flow_runs/filter", wanted | states)
        return [run["expected_start_time"] for run in runs if run["auto_scheduled"]]

    before = [datetime.fromisoformat(each) for each in eventually(planned, 60, "runs are planned")]
    done = duty.gradmill("skip", "predict-daily", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [datetime.fromisoformat(answer[each]) for each in ("skipped", "next")] == before[:2]
    assert duty.gradmill("schedule", "predict-daily", "--param", "batch_size=7").returncode == 0
    after = eventually(planned, 60, "the server plans anew")
    assert datetime.fromisoformat(after[0]) == before[1], "a change brings the skipped run not back"
    assert duty.gradmill("pause", "predict-daily").returncode == 0
    assert (duty.deployment("predict-daily")["paused"], planned()) == (True, [])
    assert "predict-daily is to come: paused" in duty.gradmill("skip", "predict-daily").stderr
    assert duty.gradmill("resume", "predict-daily").returncode == 0
    assert not duty.deployment("predict-daily")["paused"]
    assert duty.gradmill("register", "--reset", "predict-daily").returncode == 0
    assert duty.deployment("predict-daily")["parameters"]["parameters"] == {"name": "softmax-regression"}


def test_a_second_retrain_waits_for_the_first(duty: Duty) -> None:
    first, second = (duty.ended(run) for run in [duty.trigger("linear-weekly") for _ in range(2)])
    first, second = sorted([first, second], key=started)
    assert started(second) >= datetime.fromisoformat(first["end_time"])


def test_a_second_prediction_is_cancelled_while_the_first_runs(duty: Duty) -> None:
    duty.published(NAME)
    soon = (datetime.now(UTC) + timedelta(seconds=15)).isoformat()  # the worker looks ahead that far: it takes both
    runs = [duty.trigger("predict-daily", soon, name=NAME) for _ in range(2)]
    assert sorted(duty.ended(run)["state_type"] for run in runs) == ["CANCELLED", "COMPLETED"]


def test_trigger_takes_what_the_form_takes_and_refuses_the_rest_before_anything_runs(duty: Duty) -> None:
    before = duty.triggered()
    create = f"/deployments/{duty.deployment('linear-weekly')['id']}/create_flow_run"
    for wrong in ("training.lr=-1", "training.num_epochs=0", "training.schedule=magic", "nonsense=1", "name=../x"):
        done = duty.gradmill("trigger", "linear-weekly", "--param", wrong)
        assert_clear(done, 2)
        assert f"linear-weekly refuses {wrong.partition('=')[0]}: " in done.stderr
        body = {"parameters": {"parameters": nest_assignments([wrong])}}
        assert duty.api.post(create, json=body).status_code in (409, 422), "so does the server itself"
    together = duty.gradmill("trigger", "linear-weekly", "--param", "training.dropout=0.1")
    assert_clear(together, 2)
    assert "dropout is for softmax regression" in together.stderr
    assert_clear(duty.gradmill("trigger", "no-such"), 2)
    assert duty.triggered() == before
    done = duty.gradmill("trigger", "linear-weekly", "--param", "training.seed=7", "--json")
    name = json.loads(done.stdout)["run"]
    (run,) = duty.post("/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
    assert run["parameters"]["parameters"]["training"] == {"model": NAME, "seed": 7}
    duty.ended(run["id"])


@pytest.fixture
def webhook() -> Iterator[Endpoint]:
    """A webhook on this machine."""
    with endpoint() as service:
        yield service


def test_a_refusal_is_notified_with_its_reason_and_status_shows_it(duty: Duty, webhook: Endpoint) -> None:
    duty.save_webhook("on-duty", webhook.url)
    unknown = duty.gradmill("register", GRADMILL_NOTIFY="custom-webhook/nobody")
    assert unknown.returncode == 2
    assert "custom-webhook/nobody: no such block" in unknown.stderr
    assert "custom-webhook/on-duty" in unknown.stderr, "what there is instead"
    registered = duty.gradmill("register", GRADMILL_NOTIFY="custom-webhook/on-duty")
    assert registered.returncode == 0, registered.stderr
    run = duty.ended(duty.trigger("linear-weekly", name="hopeless", training={"model": NAME, "num_epochs": 1}))
    assert run["state_type"] == "FAILED"
    subject = f"{run['name']}: Refused"  # a disk that is nearly full is told, too

    def sent() -> list[str]:
        return [each.document["body"] for each in webhook.received if each.document["subject"] == subject]

    (body,) = eventually(sent, 60, "it is notified")
    assert "test_loss" in body
    status = json.loads(duty.gradmill("status", "--json").stdout)
    (weekly,) = [each for each in status["deployments"] if each["name"] == "linear-weekly"]
    assert (weekly["last_run"], weekly["state"], weekly["verdict"]) == (run["name"], "Refused", "refused")
    assert weekly["message"] == run["state"]["message"]
    assert datetime.fromisoformat(weekly["next_start"]) > datetime.now(UTC)
    pointers = (duty.artifacts / "models").glob("*/champion.json")
    live = {pointer.parent.name: json.loads(pointer.read_text())["version"] for pointer in pointers}
    assert {model["name"]: model["version"] for model in status["models"]} == live
    assert [worker["status"] for worker in status["workers"]].count("ONLINE") == 1
    assert status["stuck"] == []  # what is stuck: test_operate_status.py
    page = duty.gradmill("status").stdout
    for words in ("refused", "linear-weekly", "test_loss", "online"):
        assert words in page


def test_drift_retrains_once_its_automation_is_switched_on(duty: Duty, tmp_path: Path) -> None:
    duty.published(NAME)
    name = f"gradmill: retrain {NAME} when its input drifts"
    (automation,) = duty.post("/automations/filter", {"automations": {"name": {"any_": [name]}}})
    assert not automation["enabled"]
    duty.api.patch(f"/automations/{automation['id']}", json={"enabled": True}).raise_for_status()
    assert duty.gradmill("register").returncode == 0
    (automation,) = duty.post("/automations/filter", {"automations": {"name": {"any_": [name]}}})
    assert automation["enabled"], "registering again leaves it as it is"
    before = {run["id"] for run in duty.post("/flow_runs/filter", {})}
    np.save(tmp_path / "moved.npy", np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32) + 5)
    predicted = duty.gradmill("predict", str(tmp_path / "moved.npy"), "--name", NAME, "--json")
    assert json.loads(predicted.stdout)["drift"]["verdict"] == "drift"

    def retrained() -> list[dict[str, Any]]:
        wanted = {"deployments": {"name": {"any_": ["linear-weekly"]}}}
        new = [run for run in duty.post("/flow_runs/filter", wanted) if run["id"] not in before]
        return [run for run in new if run["created_by"] and run["created_by"]["type"] == "AUTOMATION"]

    (run,) = eventually(retrained, 60, "the automation starts a run")
    duty.api.patch(f"/automations/{automation['id']}", json={"enabled": False}).raise_for_status()
    assert duty.ended(run["id"])["state_type"] == "COMPLETED"


def test_maintenance_runs_as_a_deployment(duty: Duty) -> None:
    duty.published(NAME)
    assert duty.ended(duty.trigger("maintenance-weekly", keep=1))["state_type"] == "COMPLETED"
    assert duty.gradmill("verify", NAME).returncode == 0
