"""What whoever is up looks at: runs that cannot tell their own end, and the overview of their name."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running

from candidate import Candidate
from flows.evaluate import evaluate
from flows.predict import predict
from flows.server import api, connection, up
from prefect_api import post
from tasks.parameters import EvaluateParameters, PredictParameters
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
    with locks.hold_lock(artifact_paths.lock(folder.path), "held"):
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


# The overview on the server


def newest(api: str, kind: str) -> dict[str, Any]:
    """The newest page of a kind, as the server has it."""
    wanted = {"artifacts": {"key": {"any_": [f"{NAME}-{kind}"]}}, "sort": "CREATED_DESC"}
    return dict(post(api, "artifacts/filter", wanted)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("two_versions")
def test_the_overview_links_to_the_page_of_the_last_prediction_and_judgement_and_to_the_deployment(
    prefect_api: str,
) -> None:
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("retrain")
        tags = ["gradmill", f"model:{NAME}"]
        deployment = client.create_deployment(flow_id=flow, name="nightly", tags=tags, entrypoint="flows.retrain")
    for _ in range(2):
        predict(PredictParameters(name=NAME))
        assert (
            f"[predictions](/artifacts/artifact/{newest(prefect_api, 'predictions')['id']})"
            in newest(prefect_api, "overview")["data"]
        )
    evaluate(EvaluateParameters.model_validate({"name": NAME}))
    page = newest(prefect_api, "overview")["data"]
    assert f"[judgement](/artifacts/artifact/{newest(prefect_api, 'judgement')['id']})" in page
    assert f"[deployment nightly](/deployments/deployment/{deployment})" in page
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployment)


@pytest.mark.usefixtures("two_versions")
def test_beside_up_a_run_leaves_the_page_to_it_and_never_to_one_that_is_dead(prefect_api: str) -> None:
    artifact_paths.prefect_home().mkdir(exist_ok=True)
    artifact_paths.pages_asked().mkdir()
    asked = up.Watch()
    predict(PredictParameters(name=NAME))
    before = newest(prefect_api, "overview")["updated"]
    with locks.hold_lock(artifact_paths.up_lock(), "up"):
        connection.make_service(prefect_api).write(artifact_paths.service())
        predict(PredictParameters(name=NAME))
        assert newest(prefect_api, "overview")["updated"] == before
        asked.look()
        newer = newest(prefect_api, "overview")["updated"]
        assert newer > before
        asked.look()
        assert newest(prefect_api, "overview")["updated"] == newer, "each is written once"
    predict(PredictParameters(name=NAME))
    assert newest(prefect_api, "overview")["updated"] > newer


@pytest.mark.slow
@pytest.mark.usefixtures("two_versions")
def test_a_page_that_cannot_be_written_is_asked_for_still_and_tried_again_later(
    prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact_paths.pages_asked().mkdir(parents=True)
    (artifact_paths.pages_asked() / NAME).touch()
    asked = up.Watch()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        asked.look()
    assert f"{NAME}-overview could not be written" in capsys.readouterr().err
    asked.look()
    assert (artifact_paths.pages_asked() / NAME).exists(), "it is not tried twice a second"
    up.Watch().look()
    assert not [*artifact_paths.pages_asked().iterdir()]
    assert "live since" in newest(prefect_api, "overview")["description"]
