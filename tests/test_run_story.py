"""What a run tells in Prefect, read back from a real server; and the deployments as a real server takes them."""

import base64
import os
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import BaseModel

import flows.cli.app
from candidate import Candidate
from command_line import gradmill
from conftest import REPOSITORY, Pipeline
from flows.evaluate import evaluate
from flows.predict import predict
from flows.retrain import retrain
from prefect_api import api_client, post, wait_for
from tasks.errors import GateFailed
from tasks.parameters import (
    EvaluateParameters,
    MaintainParameters,
    PredictParameters,
    RetrainParameters,
    TuneParameters,
)
from tasks.stage import live

PARAMETERS: dict[str, type[BaseModel]] = {
    "retrain": RetrainParameters,
    "predict": PredictParameters,
    "evaluate": EvaluateParameters,
    "maintain": MaintainParameters,
    "tune": TuneParameters,
}


def artifact(api: str, key: str, run: str | None = None) -> dict[str, Any]:
    of_the_run = {} if run is None else {"flow_run_id": {"any_": [run]}}
    wanted = {"artifacts": {"key": {"any_": [key]}, **of_the_run}, "sort": "CREATED_DESC"}
    found: dict[str, Any] = wait_for(api, "artifacts/filter", wanted)
    return found


def flow_run(api: str, run: str) -> dict[str, Any]:
    with api_client(api) as client:
        found: dict[str, Any] = client.get(f"/flow_runs/{run}").raise_for_status().json()
    return found


def tags(api: str, run: str) -> set[str]:
    return set(flow_run(api, run)["tags"])


def event(api: str, name: str, model: str) -> dict[str, Any]:
    # By the model, not only by the name: the server shows 50 at once, and other tests publish more than that.
    wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [live.model_resource(model)]}}}
    found: dict[str, Any] = wait_for(api, "events/filter", wanted)
    return found


def test_a_published_run_tells_verdict_gates_pictures_card_tags_and_event(pipeline: Pipeline) -> None:
    report = pipeline.report("softmax-regression")
    verdict = artifact(pipeline.server, f"{report.name}-verdict")
    assert verdict["data"].startswith(f"# {report.name}: published version {report.version}")
    for gate in report.gates:
        assert re.search(rf"^\| {gate.name} \| {gate.verdict} \| .* \|$", verdict["data"], re.MULTILINE)
    for stage in report.seconds:
        assert f"| {stage} |" in verdict["data"]
    pictures = artifact(pipeline.server, f"{report.name}-pictures")["data"]
    shown = [base64.b64decode(each) for each in re.findall(r"base64,([^)]+)\)", pictures)]
    assert shown == [
        Path(report.run, name).read_bytes()
        for name in ("learning-curve.png", "confusion-matrix.png", "reliability.png", "misclassified.png")
    ]
    card = artifact(pipeline.server, f"{report.name}-card")["data"]
    assert "library_name" not in card, "no front matter"
    assert ".png)" not in card, "the UI shows no local files"
    assert tags(pipeline.server, verdict["flow_run_id"]) >= {f"model:{report.name}", "verdict:published"}
    overview = artifact(pipeline.server, f"{report.name}-overview")
    assert overview["description"].startswith(f"version {report.version} live since ")
    payload = event(pipeline.server, "gradmill.model.published", report.name)["payload"]
    assert (payload["version"], payload["sha256"]) == (report.version, report.model_sha256)
    assert payload["path"] == report.model_path


def test_a_retrain_shows_its_learning_curve_and_progress_and_logs_a_line_for_each_fact(pipeline: Pipeline) -> None:
    report = pipeline.report("softmax-regression")
    curve = artifact(pipeline.server, f"{report.name}-learning-curve")
    (shown,) = re.findall(r"base64,([^)]+)\)", curve["data"])
    assert base64.b64decode(shown) == Path(report.run, "learning-curve.png").read_bytes()
    run = curve["flow_run_id"]
    of_the_run = {"artifacts": {"flow_run_id": {"any_": [run]}, "type": {"any_": ["progress"]}}}
    progress = post(pipeline.server, "artifacts/filter", of_the_run)
    assert {(each["description"], each["data"]) for each in progress} == {
        ("epochs trained", 100.0),
        ("rows predicted", 100.0),
    }
    logs = {"logs": {"flow_run_id": {"any_": [run]}, "level": {"ge_": 20}}}
    wait_for(pipeline.server, "logs/filter", logs, lambda line: line["task_run_id"] is None and is_last(line))
    lines = post(pipeline.server, "logs/filter", logs)
    assert 20 < len(lines) < 60
    reused = (
        "nothing has changed: reused what an earlier run left"  # by more than one stage, where other tests ran first
    )
    facts = [line["message"] for line in lines if not is_last(line) and line["message"] != reused]
    assert len(set(facts)) == len(facts)


def is_last(line: dict[str, Any]) -> bool:
    """Whether a run or one of its tasks logs nothing after this."""
    return str(line["message"]).startswith("Finished in state")


@pytest.mark.slow
def test_a_refused_run_tells_which_gate_refused_it_and_ends_in_a_state_of_its_own_that_is_a_failure(
    prefect_api: str,
) -> None:
    training = {"model": "linear-regression", "num_epochs": 1, "lr": 0.001}
    with pytest.raises(GateFailed) as refusal:
        retrain(RetrainParameters.model_validate({"name": "hopeless", "training": training}))
    assert refusal.value.report.outcome == "refused", "the error is the one that the stage has raised"  # type: ignore[attr-defined]
    verdict = artifact(prefect_api, "hopeless-verdict")
    assert verdict["data"].startswith("# hopeless: refused by test_loss, parameter_error")
    assert re.search(r"^\| test_loss \| \*\*refused\*\* \| .* \| at most .* \|$", verdict["data"], re.MULTILINE)
    payload = event(prefect_api, "gradmill.model.refused", "hopeless")["payload"]
    assert payload["refused_by"] == ["test_loss", "parameter_error"]
    found = flow_run(prefect_api, run := verdict["flow_run_id"])
    assert "verdict:refused" in found["tags"]
    assert (found["state"]["type"], found["state"]["name"]) == ("FAILED", "Refused")
    assert found["state"]["message"].startswith("refused by test_loss")
    ended = {
        "filter": {"event": {"name": ["prefect.flow-run.Refused"]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
    }
    told = wait_for(prefect_api, "events/filter", ended)["resource"]
    assert told["prefect.state-type"] == "FAILED"


def test_a_judgement_tells_its_figures_beside_those_at_publication(prefect_api: str, two_versions: None) -> None:
    judged = evaluate(EvaluateParameters.model_validate({"name": "linear-regression", "version": 1}))
    page = artifact(prefect_api, "linear-regression-judgement")
    assert page["data"].startswith("# linear-regression version 1 on 1,000 rows")
    (line,) = [line for line in page["data"].splitlines() if line.startswith("| loss |")]
    assert line.endswith(f"| {judged.published['loss']:.4g} |")
    assert judged.metrics["loss"] == pytest.approx(judged.published["loss"], rel=1e-3)
    assert {"model:linear-regression", "verdict:as published"} <= tags(prefect_api, page["flow_run_id"])
    told = {"filter": {"event": {"name": ["gradmill.model.evaluated"]}}}  # other tests judge versions, too
    wait_for(prefect_api, "events/filter", told, lambda each: each["payload"]["version"] == 1)


@pytest.mark.slow
def test_a_prediction_tells_its_rows_model_and_drift(prefect_api: str, candidates: list[Candidate]) -> None:
    published = candidates[0].publish()
    done = predict(PredictParameters(name="linear-regression"))
    summary = artifact(prefect_api, "linear-regression-predictions")["data"]
    assert summary.startswith("# 1,000 rows predicted")
    assert published.model.sha256 in summary
    assert "| drift | stable" in summary
    assert "drift:stable" in tags(prefect_api, artifact(prefect_api, "linear-regression-predictions")["flow_run_id"])
    written = {"filter": {"event": {"name": ["gradmill.predictions.written"]}}}
    ours = wait_for(prefect_api, "events/filter", written, lambda each: each["payload"]["path"] == str(done.path))
    assert (ours["payload"]["version"], ours["payload"]["rows"]) == (1, 1000)
    predict(PredictParameters(name="linear-regression"))  # nothing has changed: nothing is written
    marker = predict(PredictParameters(name="linear-regression", batch_size=7))
    wait_for(prefect_api, "events/filter", written, lambda each: each["payload"]["path"] == str(marker.path))
    told = post(prefect_api, "events/filter", written)["events"]
    assert [each["payload"]["path"] for each in told].count(str(done.path)) == 1


@pytest.mark.slow
def test_promotion_and_rollback_are_events_where_there_is_a_server(
    prefect_api: str, candidates: list[Candidate]
) -> None:
    for candidate in candidates[:2]:
        candidate.publish()
    with temporary_settings({PREFECT_API_URL: ""}):
        assert flows.cli.app.run(["rollback", "linear-regression"]) == 0, "no server is no reason to fail"
    assert flows.cli.app.run(["promote", "linear-regression", "2"]) == 0
    assert flows.cli.app.run(["rollback", "linear-regression"]) == 0
    assert flows.cli.app.run(["unfreeze", "linear-regression"]) == 0
    assert event(prefect_api, "gradmill.model.unfrozen", "linear-regression")["payload"]["version"] == 1
    assert event(prefect_api, "gradmill.model.promoted", "linear-regression")["payload"]["version"] == 2
    assert event(prefect_api, "gradmill.model.rolled-back", "linear-regression")["payload"]["version"] == 1


@pytest.mark.slow  # a command for each promotion
def test_the_published_service_loads_its_model_anew_on_each_promotion(
    server: str, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = (REPOSITORY / "docs/on-duty.md").read_text().partition("## Events")[2]
    script = told.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in script.splitlines() if line.strip()]) <= 12
    for candidate in candidates[:2]:
        candidate.publish()
    monkeypatch.setenv("PREFECT_API_URL", server)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        lines = iter(service.stdout.readline, "")
        heard = []
        for turn in range(20):  # it hears only what happens once it listens
            assert gradmill("promote", "linear-regression", str(1 + turn % 2)).returncode == 0
            if select.select([service.stdout], [], [], 3)[0]:
                heard.append(next(lines).split(":")[0])
            if len(set(heard)) == 2:  # one that comes late finds the champion of then
                break
        service.kill()
    assert set(heard) == {"linear-regression version 1", "linear-regression version 2"}


@pytest.mark.slow  # Prefect's own commands
def test_all_deployments_register_with_their_schedules_and_valid_parameters(server: str) -> None:
    environment = os.environ | {"PREFECT_API_URL": server, "GRADMILL_HOME": str(REPOSITORY)}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    create = ["work-pool", "create", "gradmill", "--type", "process", "--overwrite"]  # another test may have made it
    subprocess.run([*prefect, *create], env=environment, check=True)
    done = subprocess.run(
        [*prefect, "deploy", "--all"], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = post(server, "deployments/filter", {})
    deployed = {each["name"]: each for each in found}
    declared = {each["name"]: each for each in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]}
    assert (
        set(deployed)
        >= set(declared)
        == {"softmax-nightly", "linear-weekly", "predict-daily", "evaluate", "maintenance-weekly", "tune-monthly"}
    )
    for name, wanted in declared.items():
        ours = deployed[name]
        assert ours["entrypoint"] == wanted["entrypoint"]
        assert [each["schedule"]["cron"] for each in ours["schedules"]] == [
            each["cron"] for each in wanted.get("schedules", [])
        ]
        assert ours["global_concurrency_limit"]["limit"] == 1
        assert ours["concurrency_options"]["collision_strategy"] == wanted["concurrency_limit"]["collision_strategy"]
        (step,) = ours["pull_steps"]
        assert step == {"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}
        assert ours["enforce_parameter_schema"]
        assert "gradmill" in ours["tags"], "automations know our runs by it"
        environment = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "GRADMILL_TIME_LIMIT": "12:00:00"}
        assert ours["job_variables"]["env"] == environment
        PARAMETERS[ours["entrypoint"].rpartition(".")[2]].model_validate(wanted["parameters"]["parameters"])
