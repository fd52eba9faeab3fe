"""Schedules of own names: kept in artifacts/, told to a real server, never reset by a registration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import Resource, ResourceSpecification

from flows.server import automations, deployments, registration
from flows.server.retrains import Retrains
from flows.server.status import status
from prefect_api import api_client
from tasks.errors import UsageError
from tasks.parameters import RetrainParameters
from tasks.parameters.data import NO_WINDOW
from tasks.stage import live
from tasks.store import artifact_paths, own_data

NAME = "linear-regression"
DEPLOYMENT = f"retrain-{NAME}"


@pytest.fixture
def api(prefect_api: str, artifacts: Path, two_versions: None) -> Iterator[httpx.Client]:
    """The server of all tests, with the deployments of prefect.yaml and without ours."""
    client = api_client(prefect_api)
    registration.register()
    yield client
    for deployment in listed(client):
        client.delete(f"/deployments/{deployment['id']}").raise_for_status()
    client.close()


def listed(client: httpx.Client) -> list[dict[str, Any]]:
    return list(client.post("/deployments/filter", json={}).raise_for_status().json())


def ours(client: httpx.Client) -> dict[str, Any] | None:
    return next((each for each in listed(client) if each["name"] == DEPLOYMENT), None)


def crons(deployment: dict[str, Any]) -> list[str]:
    return [each["schedule"]["cron"] for each in deployment["schedules"]]


def form(deployment: dict[str, Any]) -> set[str]:
    """The fields that Prefect's form shows of training and data."""
    definitions = deployment["parameter_openapi_schema"]["definitions"]
    return {*definitions["Training"]["properties"], *definitions["Data"]["properties"]}


def told(cron: str) -> None:
    Retrains.add(NAME, cron=cron, timezone="Europe/Berlin").tell_server(registration.declarations())


@pytest.mark.parametrize(("window", "split"), [("90d", {"time_column": "day"}), (NO_WINDOW, {})])
def test_what_is_scheduled_leaves_the_split_to_the_versions_but_for_the_time_column_of_a_window(
    window: str, split: dict[str, str]
) -> None:
    data = {"source": "days", "target": "price", "window": window, "test": 0.3, "time_column": "day"}
    own_data.leave_split_open(data)
    assert data == {"source": "days", "target": "price", "window": window, **split}
    RetrainParameters.model_validate({"name": "houses", "data": data})


@pytest.mark.slow
def test_a_schedule_is_a_deployment_with_all_parameters_that_registering_keeps(api: httpx.Client) -> None:
    told("0 3 * * *")
    found = ours(api)
    assert found is not None
    assert (crons(found), found["schedules"][0]["schedule"]["timezone"]) == (["0 3 * * *"], "Europe/Berlin")
    parameters = RetrainParameters.model_validate(found["parameters"]["parameters"])
    assert (parameters.name, parameters.training.seed) == (NAME, 1), "the champion's"
    assert form(found) >= {"loss", "synthetic_w"}
    assert not form(found) & {"dropout", "class_weight", "resize", "source"}, "of no use to this name"
    path = f"/deployments/{found['id']}"
    api.patch(path, json={"parameters": {"parameters": {"name": NAME, "training": {"lr": 0.5}}}}).raise_for_status()
    registration.register()
    kept = ours(api)
    assert kept is not None
    assert kept["parameters"]["parameters"]["training"] == {"lr": 0.5}, "what somebody has set stays"
    assert form(kept) >= {"dropout"}, "the form is that of what was set, which names no model"
    schedule = f"{path}/schedules/{kept['schedules'][0]['id']}"
    api.patch(schedule, json={"schedule": {"cron": "1 1 * * *", "timezone": "UTC"}}).raise_for_status()
    registration.register()
    assert crons(ours(api) or {}) == ["1 1 * * *"], "what somebody has set stays"
    told("0 4 * * *")
    again = ours(api)
    assert again is not None
    assert crons(again) == ["0 4 * * *"]
    Retrains.remove(NAME)
    Retrains.remove_from_server(NAME)
    registration.register()
    assert ours(api) is None


def drift(client: httpx.Client) -> dict[str, Any] | None:
    """What starts a retrain of the name when its input drifts."""
    found = client.post("/automations/filter", json={}).raise_for_status().json()
    return next((each for each in found if each["name"] == f"gradmill: retrain {NAME} on drift"), None)


@pytest.mark.slow
def test_drift_starts_a_retrain_once_it_is_asked_for_and_registering_leaves_it_on_or_off(api: httpx.Client) -> None:
    def tell(**asked: Any) -> None:
        Retrains.add(NAME, **asked).tell_server(registration.declarations())

    tell(on_drift=True)
    deployment, automation = ours(api), drift(api)
    assert deployment is not None
    assert automation is not None
    assert (crons(deployment), automation["enabled"]) == ([], True)
    assert [each["deployment_id"] for each in automation["actions"]] == [deployment["id"]]
    assert DEPLOYMENT not in [name for name, _ in deployments.idle(registration.POOL)]
    assert [each.name for each in status().deployments if each.on_drift] == [DEPLOYMENT]
    api.patch(f"/automations/{automation['id']}", json={"enabled": False}).raise_for_status()
    registration.register()
    assert drift(api) == automation | {"enabled": False, "updated": (drift(api) or {})["updated"]}
    tell(cron="0 3 * * *")
    scheduled, again = ours(api), drift(api)
    assert scheduled is not None
    assert again is not None
    assert (crons(scheduled), again["enabled"]) == (["0 3 * * *"], True), "what is not given stays"
    tell(on_drift=False)
    assert drift(api) is None
    tell(on_drift=True)
    Retrains.remove(NAME)
    Retrains.remove_from_server(NAME)
    registration.register()
    assert (ours(api), drift(api)) == (None, None)


@pytest.mark.slow
def test_what_ends_without_a_server_is_gone_after_the_next_registration_and_leaves_nothing(api: httpx.Client) -> None:
    Retrains.add(NAME, cron="0 3 * * *", on_drift=True)
    registration.register()
    assert drift(api)
    Retrains.add(NAME, on_drift=False)
    registration.register()
    assert (drift(api), ours(api) is None) == (None, False)
    notes = {each["name"] for each in variables(api)}
    Retrains.remove(NAME)
    registration.register()
    assert ours(api) is None
    assert notes - {each["name"] for each in variables(api)}, "the note of what was registered goes, too"
    assert not list(artifact_paths.all_removed_schedules().iterdir())
    Retrains.add(NAME, cron="0 3 * * *")
    Retrains.remove(NAME)
    Retrains.add(NAME, cron="0 4 * * *")
    registration.register()
    assert crons(ours(api) or {}) == ["0 4 * * *"], "taken up again"


def variables(client: httpx.Client) -> list[dict[str, Any]]:
    return list(client.post("/variables/filter", json={}).raise_for_status().json())


def test_a_retrain_that_finds_drift_starts_no_other() -> None:
    trigger = automations.on_drift("houses", UUID(int=1)).trigger
    assert isinstance(trigger, EventTrigger)
    assert {"gradmill.drift", "gradmill.data"} <= trigger.expect

    def starts(flow: str, name: str = "houses") -> bool:
        labels = {"prefect.resource.id": live.model_resource(name), live.FLOW: flow}
        match = trigger.match
        assert isinstance(match, ResourceSpecification)
        return match.matches(Resource(labels))

    assert starts("predict")
    assert starts("none"), "told by no flow"
    assert not starts("retrain")
    assert not starts("predict", "boats")


def test_a_schedule_is_kept_with_the_artifacts(artifacts: Path, two_versions: None) -> None:
    Retrains.add(NAME, cron="0 3 * * *", timezone="UTC")
    assert artifact_paths.schedule(NAME).is_relative_to(artifacts)
    assert [(each.name, each.cron) for each in Retrains.kept()] == [(NAME, "0 3 * * *")]
    Retrains.remove(NAME)
    assert Retrains.kept() == []


@pytest.mark.parametrize(
    ("name", "cron", "zone"),
    [
        ("nobody", "0 3 * * *", "UTC"),
        (NAME, "0 3", "UTC"),
        (NAME, "0 3 * * *", "Mars"),
        (NAME, None, "UTC"),
        (NAME, "0 0 31 2 *", "UTC"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    name: str, cron: str | None, zone: str, artifacts: Path, two_versions: None
) -> None:
    with pytest.raises(UsageError) as refused:
        Retrains.add(name, cron=cron, timezone=zone)
    assert "Value error" not in refused.value.found, "a word of the library that looked"
    assert Retrains.kept() == []


def test_what_was_not_scheduled_cannot_be_taken_back(artifacts: Path) -> None:
    with pytest.raises(UsageError, match="no schedule of houses"):
        Retrains.remove("houses")
