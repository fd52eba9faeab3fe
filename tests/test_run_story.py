"""What a run tells in Prefect, read back from a real server, and the deployments as a real server takes them."""

import base64
import json
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

from candidate import Contender
from command_line import gradmill, typed
from conftest import REPOSITORY, Pipeline
from flows.evaluate import evaluate
from flows.pages import run_pages
from flows.pages.overview import format_headline
from flows.predict import predict
from flows.retrain import retrain
from prediction_jobs import FEATURES, NAME, predict_rows
from prefect_api import api_client, post, wait_for
from tasks.errors import GateFailed
from tasks.parameters import (
    EvaluateParameters,
    MaintainParameters,
    PredictParameters,
    RetrainParameters,
    TuneParameters,
)
from tasks.stage import live_progress
from tasks.store import artifact_paths, state
from tasks.store.page import render_markdown

PARAMETERS: dict[str, type[BaseModel]] = {
    "retrain": RetrainParameters,
    "predict": PredictParameters,
    "evaluate": EvaluateParameters,
    "maintain": MaintainParameters,
    "tune": TuneParameters,
}


def artifact(api: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_for(
        api, "artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    )
    return found


def flow_run(api: str, run: str) -> dict[str, Any]:
    with api_client(api) as client:
        found: dict[str, Any] = client.get(f"/flow_runs/{run}").raise_for_status().json()
    return found


def tags(api: str, run: str) -> set[str]:
    return set(flow_run(api, run)["tags"])


def event(api: str, name: str, of: str) -> dict[str, Any]:
    """Of a model or another resource: the server shows 50 at once, and other tests publish more than that."""
    resource = of if "." in of else live_progress.model_resource(of)
    wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [resource]}}}
    found: dict[str, Any] = wait_for(api, "events/filter", wanted)
    return found


def pictures(artifact: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(each) for each in re.findall(r"base64,([^)]+)\)", artifact["data"])]


def test_a_published_run_tells_verdict_gates_pictures_card_tags_and_event(pipeline: Pipeline) -> None:
    report = pipeline.report("softmax-regression")
    api, name = pipeline.server, report.name
    verdict = artifact(api, f"{name}-verdict")
    assert verdict["data"].startswith(f"# {name}: published version {report.version}")
    for gate in report.gates:
        assert re.search(rf"^\| {gate.name} \| {gate.verdict} \| .* \|$", verdict["data"], re.MULTILINE)
    drawn = ("learning-curve.png", "confusion-matrix.png", "reliability.png", "misclassified.png")
    assert pictures(artifact(api, f"{name}-pictures")) == [Path(report.run, each).read_bytes() for each in drawn]
    card = artifact(api, f"{name}-card")["data"]
    assert "library_name" not in card, "no front matter"
    assert ".png)" not in card, "the UI shows no local files"
    assert tags(api, verdict["flow_run_id"]) >= {f"model:{name}", "verdict:published"}
    assert artifact(api, f"{name}-overview")["description"].startswith(f"version {report.version} live since ")
    payload = event(api, "gradmill.model.published", name)["payload"]
    published = (report.version, report.model_sha256, report.model_path)
    assert (payload["version"], payload["sha256"], payload["path"]) == published


def test_a_retrain_shows_its_progress_and_logs_a_line_for_each_fact(pipeline: Pipeline) -> None:
    report = pipeline.report("softmax-regression")
    run = {"any_": [artifact(pipeline.server, f"{report.name}-learning-curve")["flow_run_id"]]}
    of_the_run = {"artifacts": {"flow_run_id": run, "type": {"any_": ["progress"]}}}
    progress = [(each["description"], each["data"]) for each in post(pipeline.server, "artifacts/filter", of_the_run)]
    assert set(progress) == {("epochs trained", 100.0), ("rows predicted", 100.0)}
    logs = {"logs": {"flow_run_id": run, "level": {"ge_": 20}}}
    wait_for(pipeline.server, "logs/filter", logs, lambda line: line["task_run_id"] is None and is_last(line))
    lines = post(pipeline.server, "logs/filter", logs)
    # More than one stage says that it is reused, where other tests ran first.
    facts = [each["message"] for each in lines if not is_last(each) and "reused what an earlier" not in each["message"]]
    assert 20 < len(lines) < 60
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
    payload = event(prefect_api, "gradmill.model.refused", "hopeless")["payload"]
    assert payload["refused_by"] == ["test_loss", "parameter_error"]
    run = verdict["flow_run_id"]
    found = flow_run(prefect_api, run)
    assert "verdict:refused" in found["tags"]
    assert (found["state"]["type"], found["state"]["name"]) == ("FAILED", "Refused")
    assert found["state"]["message"].startswith("refused by test_loss")
    event(prefect_api, "prefect.flow-run.Refused", f"prefect.flow-run.{run}")


def test_a_judgement_tells_its_figures_beside_those_at_publication(prefect_api: str, two_versions: None) -> None:
    judged = evaluate(EvaluateParameters.model_validate({"name": NAME, "version": 1}))
    page = artifact(prefect_api, f"{NAME}-judgement")
    assert page["data"].startswith(f"# {NAME} version 1 on 1,000 rows")
    assert re.search(rf"^\| loss \| .* \| {judged.published['loss']:.4g} \|$", page["data"], re.MULTILINE)
    assert judged.metrics["loss"] == pytest.approx(judged.published["loss"], rel=1e-3)
    assert {f"model:{NAME}", "verdict:as published"} <= tags(prefect_api, page["flow_run_id"])
    told = {"filter": {"event": {"name": ["gradmill.model.evaluated"]}}}  # other tests judge versions, too
    wait_for(prefect_api, "events/filter", told, lambda each: each["payload"]["version"] == 1)


@pytest.mark.slow
def test_a_prediction_tells_its_rows_model_and_drift(prefect_api: str, candidates: list[Contender]) -> None:
    published = candidates[0].publish()
    done = predict(PredictParameters(name=NAME))
    page = artifact(prefect_api, f"{NAME}-predictions")
    assert page["data"].startswith("# 1,000 rows predicted")
    assert published.model.sha256 in page["data"]
    assert "drift:stable" in tags(prefect_api, page["flow_run_id"])
    predict(PredictParameters(name=NAME))  # nothing has changed: nothing is written
    marker = predict(PredictParameters(name=NAME, batch_size=7))
    written = {"filter": {"event": {"name": ["gradmill.predictions.written"]}}}
    wait_for(prefect_api, "events/filter", written, lambda each: each["payload"]["path"] == str(marker.path))
    told = [each["payload"] for each in post(prefect_api, "events/filter", written)["events"]]
    (ours,) = [each for each in told if each["path"] == str(done.path)]
    assert (ours["version"], ours["rows"]) == (1, 1000)


@pytest.mark.slow
def test_promotion_and_rollback_are_events_where_there_is_a_server(prefect_api: str, two_versions: None) -> None:
    with temporary_settings({PREFECT_API_URL: ""}):
        assert typed("rollback", NAME).returncode == 0, "no server is no reason to fail"
    for command in (("promote", NAME, "2"), ("rollback", NAME), ("unfreeze", NAME)):
        assert typed(*command).returncode == 0
    for change, version in (("unfrozen", 1), ("promoted", 2), ("rolled-back", 1)):
        assert event(prefect_api, f"gradmill.model.{change}", NAME)["payload"]["version"] == version


@pytest.mark.slow  # a command for each promotion
def test_the_published_service_loads_its_model_anew_on_each_promotion(
    server: str, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
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
    pool = ["work-pool", "create", "gradmill", "--type", "process", "--overwrite"]  # another test may have made it
    for command in (pool, ["deploy", "--all"]):
        prefect = [sys.executable, "-m", "prefect", "--no-prompt", *command]
        subprocess.run(prefect, env=environment, cwd=REPOSITORY, capture_output=True, check=True)
    deployed = {each["name"]: each for each in post(server, "deployments/filter", {})}
    declared = {each["name"]: each for each in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]}
    names = {"softmax-nightly", "linear-weekly", "predict-daily", "evaluate", "maintenance-weekly", "tune-monthly"}
    assert set(deployed) >= set(declared) == names
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}
    variables = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", "GRADMILL_TIME_LIMIT": "12:00:00"}
    for name, wanted in declared.items():
        ours, limit = deployed[name], wanted["concurrency_limit"]
        crons = [each["cron"] for each in wanted.get("schedules", [])]
        assert ours["entrypoint"] == wanted["entrypoint"]
        assert [each["schedule"]["cron"] for each in ours["schedules"]] == crons
        assert ours["global_concurrency_limit"]["limit"] == 1
        assert ours["concurrency_options"]["collision_strategy"] == limit["collision_strategy"]
        assert (ours["pull_steps"], ours["job_variables"]["env"]) == ([step], variables)
        assert ours["enforce_parameter_schema"]
        assert "gradmill" in ours["tags"], "automations know our runs by it"
        PARAMETERS[ours["entrypoint"].rpartition(".")[2]].model_validate(wanted["parameters"]["parameters"])


# What a batch prediction tells: what has drifted and where to, the first rejected rows, and the last jobs


def rows(path: Path, moved: float = 0, broken: int = 0) -> str:
    """A CSV of rows for the book's linear model; the first ``broken`` have no number in their second column."""
    lines = [f"{a + moved},{'' if number < broken else b}" for number, (a, b) in enumerate(FEATURES.tolist())]
    path.write_text("\n".join(["x1,x2", *lines]) + "\n")
    return str(path)


def test_a_page_names_input_rejects_and_the_last_jobs(
    prefect_api: str, candidates: list[Contender], tmp_path: Path
) -> None:
    candidates[0].publish()
    predict_rows(input=rows(tmp_path / "monday.csv"))
    page = render_markdown(
        run_pages.prediction_page(predict_rows(input=rows(tmp_path / "tuesday|.csv", moved=9, broken=12)))
    )
    head, *_ = page.splitlines()
    shares = re.fullmatch(r"# DRIFT: prediction above (\S+) (\d+) % of rows, 10 % at training", head)
    assert shares, "a tenth of the test split lies above the last decile"
    assert int(shares[2]) > 90
    for command in ("status", "metrics"):
        said = " ".join(typed(command).stdout.split())
        assert head.removeprefix("# ") in said, f"{command} says the same"
    rejects = page.partition("## Rejected rows")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| tuesday\\\|.csv \| (\d+) \| x2 is .* \|$", rejects, re.MULTILINE)
    assert listed == [*"0123456789"], "the first ten of twelve"
    assert "All 12 are in" in rejects
    jobs = page.partition("## The last jobs")[2].splitlines()[4:]
    assert [line.split(" | ")[1:5] for line in jobs[:2]] == [
        ["1", "tuesday\\|.csv", "2,488", "12"],
        ["1", "monday.csv", "2,500", "0"],
    ]


def test_a_job_counts_wherever_it_writes_and_its_figures_are_kept_without_its_paths(
    prefect_api: str, candidates: list[Contender], tmp_path: Path
) -> None:
    candidates[0].publish()
    moved, second = rows(tmp_path / "moved.csv", moved=9), rows(tmp_path / "second.csv")

    def run(*words: str) -> None:
        assert typed("predict", *words[:-1], "--name", NAME, "--output", tmp_path / words[-1]).returncode == 0

    def told() -> tuple[str, list[str]]:
        found = json.loads(typed("status", "--json").stdout)
        return str(found["models"][0]["drift"]), [each for each in found["attention"] if "done-elsewhere" in each]

    for source, output in ((second, "second"), (moved, "moved"), (second, "second")):
        run(source, output)  # the last is done already, and older
    run(second, "--max-drift", "9", "second")
    run("split")  # of the test split, as each retrain does
    assert typed("predict", "--name", NAME).returncode == 0
    assert re.fullmatch(r"DRIFT: prediction above \S+ \d+ % of rows, 10 % at training", told()[0])
    assert told()[1] == []
    figures = typed("metrics").stdout
    assert f'gradmill_last_prediction_drift{{name="{NAME}"}} 1.0' in figures
    assert f'gradmill_prediction_jobs{{name="{NAME}",status="done"}} 3.0' in figures
    assert format_headline(state.read_name(NAME)).partition("; DRIFT in the prediction of ")[2]
    kept = {path.name: path for path in (artifact_paths.all_predictions() / ".done-elsewhere").iterdir()}
    assert kept.keys() == {f"{NAME}.input.json", f"{NAME}.test.json"}
    assert not any(str(tmp_path) in path.read_text() for path in kept.values())
    assert typed("maintain", "--keep", "1").returncode == 0
    assert told()[0].startswith("DRIFT")
    damaged = kept[f"{NAME}.input.json"]
    damaged.write_text("{")
    assert told() == ("None", [each for each in told()[1] if str(damaged) in each])
    assert typed("metrics").returncode == 4
    run(second, "third")
    assert told() == ("None", []), "the next job has written it anew"
    run(moved, "one.csv")
    assert told()[0].startswith("DRIFT")


def test_a_prediction_that_fails_has_a_page_that_says_what_to_do(
    prefect_api: str, candidates: list[Contender], tmp_path: Path
) -> None:
    candidates[0].publish()
    source = rows(tmp_path / "broken.csv", broken=200)
    assert typed("predict", source, "--name", NAME).returncode == 4
    wanted = {"artifacts": {"key": {"any_": [f"{NAME}-predictions"]}}, "sort": "CREATED_DESC"}
    page = post(prefect_api, "artifacts/filter", wanted)[0]["data"]
    assert page.startswith(f"# {NAME}: nothing was predicted")
    for row in (
        r"\*\*Found\*\* \| .* of 2,500 rows cannot be read",
        r"\*\*To do\*\* \| .*--max-rejects",
        rf"\*\*Input\*\* \| `{source}` ",
    ):
        assert re.search(rf"^\| {row}", page, re.MULTILINE)
