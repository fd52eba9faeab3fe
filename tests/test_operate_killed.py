"""Runs that cannot tell their own end: whoever is up tells it for them, on the overview of their name."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed, Running

from candidate import Candidate
from flows.server import api, up
from prefect_api import post
from tasks.store import artifact_paths, locks
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"


@flow(name="retrain")
def of_a_command() -> None:
    """Stands for a retrain: its process is none of ours."""


@pytest.fixture
def begun(candidates: list[Candidate], prefect_api: str, two_versions: None) -> tuple[FlowRun, RunFolder]:
    """A run of a command that is in its training since two minutes."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(of_a_command, state=Running())
    folder = RunFolder.open(
        f"20261126T030000-{NAME}-{str(run.id)[:8]}", candidates[0].parameters.model_dump(mode="json")
    )
    folder.note(seconds={"train": 1.0})
    ago = (datetime.now(UTC) - timedelta(minutes=2)).timestamp()
    os.utime(folder.path / artifact_paths.RUN, (ago, ago))
    return run, folder


def headline(address: str) -> str:
    wanted = {"artifacts": {"key": {"any_": [api.overview_key(NAME)]}}}
    return "".join(each["description"] for each in post(address, "artifacts/latest/filter", wanted))


@pytest.mark.slow
def test_a_run_that_somebody_marks_as_crashed_is_on_its_overview(
    begun: tuple[FlowRun, RunFolder], prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    watch, another = up.Watch(), up.Watch()
    watch.look()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(begun[0].id, Crashed(), force=True)
    watch.look()
    assert "interrupted in train" not in headline(prefect_api), "it is not asked again at once"
    assert "ended" not in capsys.readouterr().err
    another.look()
    assert f"ended       {begun[0].name}: crashed\n" in capsys.readouterr().err
    assert "last run was interrupted in train" in headline(prefect_api)


@pytest.mark.slow
def test_a_run_of_a_command_is_crashed_once_nobody_holds_its_folder_and_not_before(
    begun: tuple[FlowRun, RunFolder], prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = begun

    def state(marks: bool = True) -> str:
        up.Watch(marks).look()
        return str(
            post(prefect_api, "flow_runs/filter", {"flow_runs": {"id": {"any_": [str(run.id)]}}})[0]["state_type"]
        )

    assert state() == "RUNNING", "it has begun just now"
    monkeypatch.setattr(up, "QUIET", timedelta(0))
    with locks.locked(artifact_paths.lock(folder.path), "held"):
        assert state() == "RUNNING"
    assert state(marks=False) == "RUNNING", "an exporter on another host may not see the lock"
    assert state() == "CRASHED"
    assert "last run was interrupted in train" in headline(prefect_api)


def test_of_the_due_runs_of_a_deployment_the_newest_stays_and_the_others_are_named(
    prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    timing = [{"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}]
    facts = {"flow_id": post(prefect_api, "flows/", {"name": "superseded"})["id"], "tags": ["gradmill"]}
    deployment = post(prefect_api, "deployments/", facts | {"name": "minutely", "schedules": timing})["id"]
    now = datetime.now(UTC)
    span = {
        "start_time": (now - timedelta(minutes=3)).isoformat(),
        "end_time": (now + timedelta(minutes=2)).isoformat(),
    }
    with get_client(sync_client=True) as client:
        post(prefect_api, f"deployments/{deployment}/schedule", span | {"min_runs": 5})
        up.leave_out_superseded(client)
        found = post(prefect_api, "flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [deployment]}}})
        client.delete_deployment(deployment)
    skipped, waiting = (
        [run["expected_start_time"] for run in found if (run["state_name"] == "Skipped") == is_skipped]
        for is_skipped in (True, False)
    )
    assert max(skipped) < min(waiting) <= datetime.now(UTC).isoformat()
    assert len(skipped) >= 2
    assert capsys.readouterr().err.count("skipped     ") == len(skipped)
