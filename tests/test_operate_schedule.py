"""Scheduled operation as the person on duty meets it: real server, worker and schedules, on SQLite or PostgreSQL."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import assert_clear
from duty import Duty
from flows.cli.options import nest_assignments
from prefect_api import eventually
from prefect_ui import NAMES

pytestmark = pytest.mark.slow
NAME = "linear-regression"


def started(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["start_time"])


def test_up_says_where_it_is_and_what_runs_next(duty: Duty) -> None:
    assert duty.lines[1].split() == ["Prefect", "UI", duty.ui]
    not_scheduled = {"evaluate", "tune-monthly"}
    assert {line.split()[1] for line in duty.lines if line.startswith("next")} == {*NAMES} - not_scheduled
    other, words = (
        {"GRADMILL_ARTIFACTS": str(duty.artifacts.with_name("other"))},
        f"port {duty.port} of 127.0.0.1 is taken",
    )
    assert_clear(duty.gradmill("up", "--port", str(duty.port), PREFECT_API_URL="", **other), 2, words)
    assert (duty.artifacts / ".prefect").stat().st_mode & 0o077 == 0, "saved blocks hold secrets"


def test_a_schedule_fires_and_the_worker_runs_it(duty: Duty) -> None:
    deployment = duty.deployment("linear-weekly")["id"]
    soon = {"interval": 40, "anchor_date": (datetime.now(UTC) + timedelta(seconds=15)).isoformat()}
    before, number = {run["id"] for run in duty.list("flow_runs")}, duty.live_version(NAME)
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
    verdict = (
        "published" if duty.live_version(NAME) != number else "unchanged"
    )  # as whatever ran before has left the store
    assert {"model:linear-regression", f"verdict:{verdict}"} <= set(run["tags"])


def test_who_waits_for_a_run_is_told_its_stages_in_order_and_why_it_was_refused(duty: Duty) -> None:
    done = duty.gradmill("trigger", "linear-weekly", "--param", "training.num_epochs=1", "--wait")
    assert done.returncode == 3, done.stderr
    assert f"{duty.ui}/runs/flow-run/" in done.stdout + done.stderr, "its page"
    assert "test_loss" in done.stderr
    # Long enough for the server to hear of its stages while it runs.
    long = ("--param", "force=true", "--param", "training.num_epochs=500")
    done = duty.gradmill("trigger", "linear-weekly", *long, "--wait")
    assert done.returncode == 0, done.stderr
    stages = ["download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"]
    told = re.findall(rf"(?m)^.+: ({'|'.join(stages)})$", done.stderr)
    assert len(told) > 3
    assert told == [each for each in stages if each in told]


def test_the_next_run_is_left_out_and_no_other(duty: Duty) -> None:
    def planned() -> list[datetime]:
        wanted = {"deployments": {"name": {"any_": ["predict-daily"]}}, "sort": "EXPECTED_START_TIME_ASC"}
        states = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        runs = duty.post("/flow_runs/filter", wanted | states)
        return [datetime.fromisoformat(run["expected_start_time"]) for run in runs if run["auto_scheduled"]]

    before = eventually(planned, 60, "runs are planned")
    answer = json.loads(duty.does("skip", "predict-daily", "--json"))
    assert [datetime.fromisoformat(answer[each]) for each in ("skipped", "next")] == before[:2]
    duty.does("schedule", "predict-daily", "--param", "batch_size=7")
    after = eventually(planned, 60, "the server plans anew")
    assert after[0] == before[1], "a change brings the skipped run not back"
    duty.does("pause", "predict-daily")
    assert planned() == []
    assert "predict-daily has no upcoming run: paused" in duty.gradmill("skip", "predict-daily").stderr
    duty.does("register", "--reset", "predict-daily")


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
        assert_clear(done, 2, f"linear-weekly refuses {wrong.partition('=')[0]}: ")
        body = {"parameters": {"parameters": nest_assignments([wrong])}}
        assert duty.api.post(create, json=body).status_code in (409, 422), "so does the server itself"
    together = duty.gradmill("trigger", "linear-weekly", "--param", "training.weight_decay=auto")
    assert_clear(together, 2, "weight decay is chosen for your own data only")
    assert_clear(duty.gradmill("trigger", "no-such"), 2)
    assert duty.triggered() == before
    run = duty.ended(json.loads(duty.does("trigger", "linear-weekly", "--param", "training.seed=7", "--json"))["id"])
    assert run["parameters"]["parameters"]["training"] == {"model": NAME, "seed": 7}


def test_drift_retrains_once_its_automation_is_switched_on(duty: Duty, tmp_path: Path) -> None:
    duty.published(NAME)
    named = {"automations": {"name": {"any_": [f"gradmill: retrain {NAME} when its input drifts"]}}}
    (automation,) = duty.post("/automations/filter", named)
    assert not automation["enabled"]
    duty.api.patch(f"/automations/{automation['id']}", json={"enabled": True}).raise_for_status()
    np.save(tmp_path / "moved.npy", np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32) + 5)
    duty.does("predict", str(tmp_path / "moved.npy"), "--name", NAME)

    def retrained() -> list[dict[str, Any]]:
        runs = duty.post("/flow_runs/filter", {"deployments": {"name": {"any_": ["linear-weekly"]}}})
        return [run for run in runs if run["created_by"] and run["created_by"]["type"] == "AUTOMATION"]

    (run,) = eventually(retrained, 60, "the automation starts a run")
    duty.api.patch(f"/automations/{automation['id']}", json={"enabled": False}).raise_for_status()
    assert duty.ended(run["id"])["state_type"] == "COMPLETED"


def test_maintenance_runs_as_a_deployment(duty: Duty) -> None:
    duty.published(NAME)
    assert duty.ended(duty.trigger("maintenance-weekly", keep=1))["state_type"] == "COMPLETED"
    duty.does("verify", NAME)
