"""Searches by a schedule: kept in artifacts/ beside the retrains', and told to a real server."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import flows.cli.app
from conftest import Pipeline
from flows.server import deployments, registration
from flows.server.retrains import Retrains
from flows.server.searches import Searches
from prefect_api import api_client
from tasks.parameters import TuneParameters
from tasks.store import artifact_paths

NAME = "linear-regression"


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    capsys.readouterr()
    assert flows.cli.app.run([*command, "--json"]) == 0, capsys.readouterr()
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_search_is_scheduled_beside_the_retrains_of_its_name(
    two_versions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    told = answer(capsys, "schedule", NAME, "--tune")
    assert told == {
        "schema_version": 1, "name": NAME, "cron": "0 2 1 * *", "timezone": "UTC", "deployment": f"search-{NAME}",
        "registered": False, "retrains_are_tuned": True,
    }  # fmt: skip
    Retrains.add(NAME, cron="0 3 * * *")
    assert flows.cli.app.run(["schedule", NAME, "--tune", "--timezone", "Europe/Berlin", "--cron", "0 4 1 * *"]) == 0
    assert "take no notice: gradmill retrain" in capsys.readouterr().out, "its retrains are scheduled without --tuned"
    assert answer(capsys, "schedule", NAME, "--tune")["cron"] == "0 4 1 * *", "what is not given again stays"
    (kept,) = Searches.kept()
    assert TuneParameters.model_validate(kept.parameters).training.seed == 1, "the champion's"
    declared = {each.name: each for each in registration.declarations()}
    assert {f"search-{NAME}", f"retrain-{NAME}"} <= declared.keys()
    assert declared[f"search-{NAME}"].flow == "tune"
    assert flows.cli.app.run(["unschedule", NAME]) == 0
    assert f"gradmill unschedule {NAME} --tune ends that" in capsys.readouterr().out
    assert [each.name for each in Searches.kept()] == [NAME], "the search goes on"
    answer(capsys, "unschedule", f"search-{NAME}")
    assert Searches.kept() == []
    assert flows.cli.app.run(["unschedule", NAME, "--tune"]) == 2


@pytest.mark.parametrize(
    "options", [("nobody",), (NAME, "--cron", "nonsense"), (NAME, "--keep", "3"), (NAME, "--on-drift")]
)
def test_what_cannot_be_scheduled_is_exit_2_and_keeps_nothing(
    two_versions: None, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.cli.app.run(["schedule", *options, "--tune"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
    assert not artifact_paths.search_schedules().exists()


@pytest.fixture
def api(prefect_api: str, artifacts: Path, two_versions: None) -> Iterator[httpx.Client]:
    """The server of all tests, without our deployments afterwards."""
    client = api_client(prefect_api)
    yield client
    for deployment in listed(client).values():
        client.delete(f"/deployments/{deployment['id']}").raise_for_status()
    client.close()


def listed(client: httpx.Client) -> dict[str, dict[str, Any]]:
    found = client.post("/deployments/filter", json={}).raise_for_status().json()
    return {each["name"]: each for each in found}


@pytest.mark.slow
def test_a_server_keeps_searches_by_a_schedule_and_the_monthly_one_is_off(api: httpx.Client) -> None:
    registration.register()
    Searches.add(NAME, cron="0 4 1 * *").tell_server(registration.declarations())
    Retrains.add(NAME, cron="0 3 * * *")
    registration.register()
    found = listed(api)
    (own,), (monthly,) = found[f"search-{NAME}"]["schedules"], found["tune-monthly"]["schedules"]
    assert (own["schedule"]["cron"], own["active"]) == ("0 4 1 * *", True)
    assert (monthly["schedule"]["cron"], monthly["active"]) == ("0 2 1 * *", False)
    assert f"retrain-{NAME}" in found
    assert "tune-monthly" not in [name for name, _ in deployments.idle(registration.POOL)], "it is off on purpose"
    assert deployments.trigger("tune-monthly", {"search": {"trials": 2}})
    form = found["tune-monthly"]["parameter_openapi_schema"]["definitions"]
    assert "default" not in form["Training"]["properties"]["schedule"], "or it were fixed"
    Retrains.remove(NAME)
    Retrains.remove_from_server(NAME)
    assert f"search-{NAME}" in listed(api)
    Searches.remove(NAME)
    Searches.remove_from_server(NAME)
    registration.register()
    assert not {f"search-{NAME}", f"retrain-{NAME}"} & listed(api).keys()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["softmax-regression", "linear-regression"])
def test_a_server_takes_what_is_scheduled_for_the_books_models(
    model: str, api: httpx.Client, pipeline: Pipeline, artifacts: Path
) -> None:
    name = pipeline.report(model).name
    shutil.copytree(pipeline.artifacts / "models" / name, artifacts / "models" / name)
    for kind in (Searches, Retrains):
        kind.add(name, cron="0 4 1 * *").tell_server(registration.declarations())
        parameters = listed(api)[kind.DEPLOYMENT.format(name)]["parameters"]["parameters"]
        assert None not in [*parameters["data"].values(), *parameters["training"].values()]
        kind.remove(name)
        kind.remove_from_server(name)
