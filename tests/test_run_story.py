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

import numpy as np
import pyarrow as pa
import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from candidate import Contender
from command_line import gradmill, output, refused, typed
from conftest import REPOSITORY, Pipeline
from flows.evaluate import evaluate
from flows.pages.overview import format_headline
from flows.predict import predict
from flows.server.deployments import FORMS
from prediction_jobs import FEATURES, NAME
from prefect_api import api_client, post, wait_for
from table_files import written
from tasks.parameters import EvaluateParameters, PredictParameters
from tasks.stage import live_progress
from tasks.store import artifact_paths, state


def artifact(api: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = wait_for(
        api, "artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    )
    return found


def page(api: str, key: str) -> tuple[str, dict[str, Any]]:
    """The newest page under this key, and the flow run that has made it."""
    found = artifact(api, key)
    with api_client(api) as client:
        return found["data"], client.get(f"/flow_runs/{found['flow_run_id']}").raise_for_status().json()


def event(api: str, name: str, model: str, **payload: object) -> dict[str, Any]:
    """Of a model: the server shows 50 at once, and other tests publish more than that."""
    wanted = {"filter": {"event": {"name": [name]}, "resource": {"id": [live_progress.model_resource(model)]}}}
    found: dict[str, Any] = wait_for(
        api, "events/filter", wanted, lambda each: each["payload"].items() >= payload.items()
    )
    return found


def test_a_published_run_tells_verdict_gates_pictures_card_tags_event_and_progress(
    pipeline: Pipeline, server: str
) -> None:
    report = pipeline.report("softmax-regression")
    api, name = server, report.name
    verdict, run = page(api, f"{name}-verdict")
    assert verdict.startswith(f"# {name}: published version {report.version}")
    for gate in report.gates:
        assert re.search(rf"^\| {gate.name} \| {gate.verdict} \| .* \|$", verdict, re.MULTILINE)
    pictures = re.findall(r"base64,([^)]+)\)", artifact(api, f"{name}-pictures")["data"])
    drawn = ("learning-curve.png", "confusion-matrix.png", "reliability.png", "misclassified.png")
    assert [base64.b64decode(each) for each in pictures] == [Path(report.run, each).read_bytes() for each in drawn]
    card = artifact(api, f"{name}-card")["data"]
    assert not [each for each in ("library_name", ".png)") if each in card], "no front matter and no local files"
    assert {*run["tags"]} >= {f"model:{name}", "verdict:published"}
    event(
        api, "gradmill.model.published", name,
        version=report.version, sha256=report.model_sha256, path=report.model_path,
    )  # fmt: skip
    of_the_run = {"flow_run_id": {"any_": [run["id"]]}}
    progress = post(api, "artifacts/filter", {"artifacts": of_the_run | {"type": {"any_": ["progress"]}}})
    assert {(each["description"], each["data"]) for each in progress} == {
        ("epochs trained", 100.0), ("rows predicted", 100.0),
    }  # fmt: skip


def test_a_judgement_tells_its_figures_beside_those_at_publication(prefect_api: str, two_versions: None) -> None:
    judged = evaluate(EvaluateParameters.model_validate({"name": NAME, "version": 1}))
    told, run = page(prefect_api, f"{NAME}-judgement")
    assert told.startswith(f"# {NAME} version 1 on 1,000 rows")
    assert re.search(rf"^\| loss \| .* \| {judged.published['loss']:.4g} \|$", told, re.MULTILINE)
    assert judged.metrics["loss"] == pytest.approx(judged.published["loss"], rel=1e-3)
    assert {f"model:{NAME}", "verdict:as published"} <= {*run["tags"]}
    event(prefect_api, "gradmill.model.evaluated", NAME, version=1)


@pytest.mark.slow
def test_a_prediction_tells_its_rows_model_and_drift(prefect_api: str, candidates: list[Contender]) -> None:
    published = candidates[0].publish()
    done = predict(PredictParameters(name=NAME))
    told, run = page(prefect_api, f"{NAME}-predictions")
    assert told.startswith("# 1,000 rows predicted")
    assert published.model.sha256 in told
    assert "drift:stable" in run["tags"]
    written = {"filter": {"event": {"name": ["gradmill.predictions.written"]}}}
    ours = wait_for(prefect_api, "events/filter", written, lambda each: each["payload"]["path"] == str(done.path))
    assert (ours["payload"]["version"], ours["payload"]["rows"]) == (1, 1000)


@pytest.mark.slow
def test_promotion_and_rollback_are_events_where_there_is_a_server(prefect_api: str, two_versions: None) -> None:
    with temporary_settings({PREFECT_API_URL: ""}):
        output(f"rollback {NAME}")  # no server is no reason to fail
    for command in (f"promote {NAME} 2", f"rollback {NAME}", f"unfreeze {NAME}"):
        output(command)
    for change, version in (("unfrozen", 1), ("promoted", 2), ("rolled-back", 1)):
        event(prefect_api, f"gradmill.model.{change}", NAME, version=version)


@pytest.mark.slow  # a command for each promotion
def test_the_published_service_loads_its_model_anew_on_each_promotion(
    server: str, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = (REPOSITORY / "docs/on-duty.md").read_text().partition("## Events")[2]
    script = told.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in script.splitlines() if line.strip()]) <= 12
    promoted = {"linear-regression version 1", "linear-regression version 2"}
    for candidate in candidates[:2]:
        candidate.publish()
    monkeypatch.setenv("PREFECT_API_URL", server)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        lines = iter(service.stdout.readline, "")
        heard = set[str]()
        for turn in range(20):  # it hears only what happens once it listens
            assert gradmill("promote", "linear-regression", str(1 + turn % 2)).returncode == 0
            if select.select([service.stdout], [], [], 3)[0]:
                heard.add(next(lines).split(":")[0])
            if heard >= promoted:  # one that comes late finds the champion of then
                break
        service.kill()
    assert heard >= promoted  # the server may still send what other tests have published


@pytest.mark.slow  # Prefect's own commands
def test_all_deployments_register_with_their_schedules_and_valid_parameters(server: str) -> None:
    environment = os.environ | {"PREFECT_API_URL": server, "GRADMILL_HOME": str(REPOSITORY)}
    pool = ["work-pool", "create", "gradmill", "--type", "process", "--overwrite"]  # another test may have made it
    for command in (pool, ["deploy", "--all"]):
        prefect = [sys.executable, "-m", "prefect", "--no-prompt", *command]
        subprocess.run(prefect, env=environment, cwd=REPOSITORY, capture_output=True, check=True)
    deployed = {each["name"]: each for each in post(server, "deployments/filter", {})}
    for wanted in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]:
        ours, limit = deployed[wanted["name"]], wanted["concurrency_limit"]
        (step,) = ours["pull_steps"]
        assert step == {"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}
        crons = [each["schedule"]["cron"] for each in ours["schedules"]]
        assert crons == [each["cron"] for each in wanted.get("schedules", [])]
        assert ours["concurrency_options"]["collision_strategy"] == limit["collision_strategy"]
        assert ours["job_variables"]["env"].keys() == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "GRADMILL_TIME_LIMIT"}
        assert "gradmill" in ours["tags"], "automations know our runs by it"
        FORMS[ours["entrypoint"]].model_validate(wanted["parameters"]["parameters"])


# What a batch prediction tells: what has drifted and where to, the first rejected rows, and the last jobs


def rows(path: Path, moved: float = 0, broken: int = 0) -> str:
    """A CSV of rows for the book's linear model; the first ``broken`` have no number in their second column."""
    x1, x2 = FEATURES.T
    return str(written(path, {"x1": x1 + moved, "x2": pa.array(x2, mask=np.arange(len(x2)) < broken)}))


def test_a_job_counts_wherever_it_writes_and_its_figures_are_kept_without_its_paths(
    prefect_api: str, candidates: list[Contender], tmp_path: Path
) -> None:
    candidates[0].publish()
    moved, second = rows(tmp_path / "moved.csv", moved=9), rows(tmp_path / "second.csv")

    def run(place: str, words: str = "") -> None:
        output(f"predict {words} --name {NAME} --output {tmp_path / place}")

    def told() -> tuple[str, list[str]]:
        found = json.loads(typed("status", "--json").stdout)
        return str(found["models"][0]["drift"]), [each for each in found["attention"] if "done-elsewhere" in each]

    pages = []
    for source, place in ((second, "second"), (moved, "moved"), (second, "second")):
        run(place, source)  # the last is done already, and older
        pages.append(str(artifact(prefect_api, f"{NAME}-predictions")["data"]))
    run("second", f"{second} --max-drift 9")
    run("split")  # of the test split, as each retrain does
    output(f"predict --name {NAME}")
    drift, faults = told()
    assert re.fullmatch(r"DRIFT: prediction above \S+ \d+ % of rows, 10 % at training", drift)
    assert not faults
    assert pages[1].startswith(f"# {drift}")
    figures = output("metrics")
    assert f'gradmill_last_prediction_drift{{name="{NAME}"}} 1.0' in figures
    assert "DRIFT in the prediction of " in format_headline(state.read_name(NAME))
    kept = {path.name: path for path in (artifact_paths.all_predictions() / ".done-elsewhere").iterdir()}
    assert kept.keys() == {f"{NAME}.input.json", f"{NAME}.test.json"}
    assert not any(str(tmp_path) in path.read_text() for path in kept.values())
    output("maintain --keep 1")
    assert told()[0] == drift
    damaged = kept[f"{NAME}.input.json"]
    damaged.write_text("{")
    found, (fault,) = told()
    assert (found, str(damaged) in fault) == ("None", True)
    run("third", second)
    assert told() == ("None", []), "the next job has written it anew"
    run("one.csv", moved)
    assert told()[0] == drift


def test_a_prediction_that_fails_has_a_page_that_says_what_to_do(
    prefect_api: str, candidates: list[Contender], tmp_path: Path
) -> None:
    candidates[0].publish()
    source = rows(tmp_path / "broken.csv", broken=200)
    refused(4, f"predict {source} --name {NAME}")
    told = artifact(prefect_api, f"{NAME}-predictions")["data"]
    assert told.startswith(f"# {NAME}: nothing was predicted")
    for row in (
        r"\*\*Found\*\* \| .* of 2,500 rows cannot be predicted",
        r"\*\*To do\*\* \| .*--max-rejects",
        rf"\*\*Input\*\* \| `{source}` ",
    ):
        assert re.search(rf"^\| {row}", told, re.MULTILINE)
