"""Deployments on a real server: made once, brought up to date as to code, and otherwise left as somebody sets them."""

import json
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import Resource, ResourceSpecification
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema

from command_line import typed
from flows.server import alerts, api, deployments, registration, up
from flows.server.status import describe
from prefect_ui import NAMES, Server, edit
from tasks.errors import EnvironmentProblem, UsageError
from tasks.parameters import RetrainParameters, TuneParameters
from tasks.stage import live_progress
from tasks.store import artifact_paths, own_data, schedules, state

ADDED = "15 12 24 12 *"  # of a schedule that somebody adds in the UI


@pytest.fixture
def houses(two_versions: None, artifacts: Path) -> str:
    """Own names with two versions each."""
    for name in ("houses", "flats"):
        shutil.copytree(artifact_paths.model("linear-regression"), artifact_paths.model(name))
    return "houses"


def said(*words: str, code: int = 0) -> str:
    """What a command prints, its errors where it is to fail."""
    done = typed(*words)
    assert done.returncode == code, done
    return done.stderr if code else done.stdout


def answered(*words: str) -> Any:
    return json.loads(said(*words, "--json"))


def without_server() -> Any:
    return temporary_settings({PREFECT_API_URL: ""})


def named(ui: Server) -> set[str]:
    return {each["name"] for each in ui.list("deployments")}


def on_drift(ui: Server, name: str = "houses") -> dict[str, Any] | None:
    """What starts a retrain of the name when its input drifts."""
    return next((each for each in ui.list("automations") if each["name"] == f"gradmill: retrain {name} on drift"), None)


# Registration


@pytest.mark.slow
def test_code_is_brought_up_to_date_and_what_somebody_set_stays(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said("register") == f"registered: {', '.join(NAMES)}\n"
    before = ui.list("deployments")
    assert typed("register").stderr == "", "nothing is said"
    assert ui.list("deployments") == before, "nothing is written where nothing has changed"
    ui.add_schedule("softmax-nightly")
    ui.set_schedule("linear-weekly", active=False)
    ui.set_schedule("maintenance-weekly")  # deleted
    mine = {"parameters": {"training": {"model": "softmax-regression", "lr": 0.25}}}
    ui.set("softmax-nightly", parameters=mine, description="Ours.", tags=["mine"])
    ui.set("linear-weekly", paused=True)
    ui.api.delete(f"/deployments/{ui.deployment('evaluate')['id']}").raise_for_status()
    limits = {"/work_pools/gradmill": "concurrency_limit", "/v2/concurrency_limits/gpu": "limit"}
    for path, field in limits.items():
        ui.api.patch(path, json={field: 3}).raise_for_status()
    edit(home, "predict-daily", parameters={"parameters": {"batch_size": 9}}, schedules=[])
    monkeypatch.setenv("GRADMILL_HOME", "/srv/gradmill")
    told = typed("register").stderr
    assert "softmax-nightly: changed pull_steps, tags\n" in told
    assert "evaluate: not on this server, gradmill register --reset evaluate makes it\n" in told
    for name in NAMES[1:]:
        (step,) = ui.deployment(name)["pull_steps"]
        assert step["prefect.deployments.steps.set_working_directory"]["directory"] == "/srv/gradmill"
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, ADDED: True}
    assert (ui.crons("linear-weekly"), ui.crons("maintenance-weekly")) == ({"30 3 * * 1": False}, {})
    nightly = ui.deployment("softmax-nightly")
    assert (nightly["parameters"], nightly["description"]) == (mine, "Ours.")
    assert nightly["tags"] == ["mine", "gradmill"], "our tag is what we find it by"
    assert [ui.api.get(path).json()[field] for path, field in limits.items()] == [3, 3]
    assert ui.deployment("predict-daily")["parameters"]["parameters"] == {"name": "softmax-regression"}
    reset = [word for name in ("evaluate", "softmax-nightly", "predict-daily") for word in ("--reset", name)]
    assert said("register", *reset) == f"registered: {', '.join(NAMES)}\n"
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True}
    assert ui.deployment("softmax-nightly")["parameters"]["parameters"]["training"]["lr"] == 0.5
    assert ui.deployment("predict-daily")["parameters"]["parameters"] == {"batch_size": 9}
    assert ui.crons("predict-daily") == {}
    assert ui.deployment("linear-weekly")["paused"], "of which no reset was asked for"
    assert "no deployment evalaute is declared" in said("register", "--reset", "evalaute", code=2)
    ui.api.delete(f"/variables/name/{registration.REGISTERED}").raise_for_status()
    registration.register()
    assert ui.deployment("linear-weekly")["paused"], "also where an older gradmill has registered"


UNREADABLE: dict[str, bytes | dict[str, Any]] = {
    "a schedule has no slug": {"schedules": [{"cron": "0 3 * * *"}]},
    "nonsense": {"schedules": [{"cron": "nonsense", "slug": "x"}]},
    "build: Extra inputs are not permitted": {"build": [{"x": {}}]},
    "entrypoint flows/retrain.py:retrain is none of": {"entrypoint": "flows/retrain.py:retrain"},
    "NO_SUCH is not set": {"description": "{{ $NO_SUCH }}"},
    "work_pool": {"work_pool": None},
    r"prefect\.yaml is not as gradmill register takes it": b"deployments: {",
    r"prefect\.yaml is not as": b"\xff\xfe\x00",
    r"prefect\.yaml is not": b"[]",
}


class Killed(BaseException):
    """Where a kill would end the process."""


@pytest.mark.slow  # a registration for every request of one
def test_an_end_after_any_request_loses_nothing_and_the_next_registration_completes_it(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, left = SyncPrefectClient.request, 0

    def until_killed(self: SyncPrefectClient, method: Any, *arguments: Any, **options: Any) -> httpx.Response:
        nonlocal left
        answer = request(self, method, *arguments, **options)
        is_filter = arguments[0].endswith("/filter")
        left -= method in ("PATCH", "DELETE", "PUT") or (method == "POST" and not is_filter)
        if left < 0:
            raise Killed
        return answer

    monkeypatch.setattr(SyncPrefectClient, "request", until_killed)
    for requests in range(40):
        ui.forget()
        left = requests
        try:
            registration.register()
        except Killed:
            pass
        else:
            break
        for name in named(ui):
            ui.set(name, paused=True)
        begun, left = named(ui), 1000
        registration.register()
        assert named(ui) == set(NAMES)
        assert {name for name in NAMES if ui.deployment(name)["paused"]} == begun
    assert 10 < requests < 39, "it has been ended at every one of its requests"


@pytest.mark.parametrize("words", UNREADABLE)
def test_what_register_does_not_take_is_named(words: str, home: Path) -> None:
    fault = UNREADABLE[words]
    if isinstance(fault, bytes):
        (home / "prefect.yaml").write_bytes(fault)
    else:
        edit(home, "softmax-nightly", **fault)
    with pytest.raises(UsageError, match=words):
        registration.read_declared(home)


def test_what_the_server_does_not_take_is_named(ui: Server, home: Path) -> None:
    edit(home, "predict-daily", parameters={"parameters": {"batch_size": -1}})
    with pytest.raises(EnvironmentProblem, match="deployment predict-daily is not accepted"):
        registration.register()
    edit(home, "predict-daily", parameters={}, work_pool={"name": "no-such"})
    with pytest.raises(EnvironmentProblem, match="no-such"):
        registration.register()


def test_forms_are_those_of_the_flows() -> None:
    from flows.evaluate import evaluate
    from flows.maintain import maintain
    from flows.predict import predict
    from flows.retrain import retrain

    for flow in (retrain, predict, evaluate, maintain):
        form = deployments.FORMS[f"flows.{flow.name}.{flow.fn.__name__}"]
        assert deployments.describe_form(form) == parameter_schema(flow).model_dump(exclude_unset=True)


@pytest.mark.slow
def test_what_will_not_run_is_said_at_once(ui: Server, home: Path) -> None:
    registration.register()
    for name in NAMES[2:]:
        ui.set(name, paused=True)
    ui.set_schedule("linear-weekly", active=False)
    ui.api.patch("/work_pools/gradmill", json={"is_paused": True}).raise_for_status()
    idle, pool_paused = deployments.list_idle(registration.POOL), describe(state.read()).pool_paused
    ui.api.patch("/work_pools/gradmill", json={"is_paused": False}).raise_for_status()
    assert pool_paused
    assert idle[:2] == [("work pool gradmill", "paused, so no run begins"), ("linear-weekly", "no active schedule")]
    assert idle[2:] == [(name, "paused") for name in NAMES[2:]]
    assert deployments.next_runs() == []


@pytest.mark.slow
def test_a_run_that_never_began_gives_its_place_back(ui: Server, home: Path) -> None:
    """As after Ctrl-C while a worker was submitting it; a server that starts anew has forgotten the lease."""
    registration.register()
    weekly = f"/deployments/{ui.deployment('linear-weekly')['id']}/create_flow_run"
    first, second = (ui.api.post(weekly, json={}).raise_for_status().json()["id"] for _ in range(2))

    def submit(run: str) -> str:
        answer = ui.api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "PENDING", "name": "Submitting"}})
        return str(answer.raise_for_status().json()["state"]["name"])

    assert (submit(first), submit(second)) == ("Submitting", "AwaitingConcurrencySlot")
    with api.client() as client:
        assert [str(run.id) for run in up.crash_dead_runs(client, up.list_begun(client), up.REASON)] == [first]
    assert ui.api.get(f"/flow_runs/{first}").json()["state_type"] == "CRASHED"
    assert submit(second) == "Submitting"


# Declared deployments, changed by commands


@pytest.mark.slow
def test_commands_change_a_declared_deployment_for_good(ui: Server, home: Path) -> None:
    registration.register()
    answer = answered("schedule", "predict-daily", "--param", "input=/data/today", "--timezone", "Europe/Berlin")
    asked = {"name": "softmax-regression", "input": "/data/today"}
    assert answer["schedules"] == [{"cron": "0 6 * * *", "timezone": "Europe/Berlin"}]
    assert ui.deployment("predict-daily")["parameters"] == {"parameters": answer["parameters"]} == {"parameters": asked}
    assert said("pause", "predict-daily").startswith("predict-daily is paused until gradmill resume")
    assert said("schedule", "predict-daily", "--cron", "0 7 * * *").startswith("predict-daily is paused; after")
    assert "predict-daily runs at '0 7 * * *' (Europe/Berlin) again" in said("resume", "predict-daily")
    for name, cron in (("evaluate", "0 9 1 * *"), ("tune-monthly", "0 1 1 * *")):
        said("schedule", name, "--cron", cron)
        assert ui.crons(name) == {cron: True}, "a time makes it and switches it on"
    ui.set("softmax-nightly", parameters={"parameters": {"training": {"model": "softmax-regression", "lr": 0.25}}})
    said("schedule", "softmax-regression", "--param", "training.num_epochs=3")
    training = {"model": "softmax-regression", "lr": 0.25, "num_epochs": 3}
    assert ui.deployment("softmax-nightly")["parameters"]["parameters"]["training"] == training, "on what was set there"
    said("pause", "linear-regression")
    assert ui.deployment("linear-weekly")["paused"], "a model's name is that of what retrains it"
    before = ui.list("deployments")
    registration.register()
    assert ui.list("deployments") == before


@pytest.mark.slow
def test_what_cannot_be_set_is_exit_2_and_changes_nothing(houses: str, ui: Server, home: Path) -> None:
    registration.register()
    before = ui.list("deployments")
    for words, found in CANNOT.items():
        error = said(*(TEXTS.get(word, word) for word in words.split()), code=2)
        assert found in error
        assert len(error.splitlines()) == 3
        assert "Value error" not in error, "a word of the library that looked"
    assert ui.list("deployments") == before
    assert not artifact_paths.schedules().exists()
    with without_server():
        assert "none is running" in said("pause", "softmax-nightly", code=1)


# Schedules of own names


@pytest.mark.slow
def test_a_schedule_is_a_deployment_that_is_left_as_somebody_sets_it_and_a_new_server_is_told_of_it(
    houses: str, ui: Server, home: Path
) -> None:
    def asked() -> Any:
        return ui.deployment("retrain-houses")["parameters"]["parameters"]

    registration.register()
    answer = answered("schedule", "houses", "flats", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin")
    assert [(each["deployment"], each["keep"]) for each in answer["schedules"]] == [
        ("retrain-houses", 30), ("retrain-flats", 30)
    ]  # fmt: skip
    assert ui.deployment("retrain-houses")["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
    parameters = RetrainParameters.model_validate(asked())
    assert (parameters.name, parameters.training.seed) == ("houses", 1), "the champion's"
    set_there = {"name": "houses", "training": {"lr": 0.5}}
    ui.set_schedule("retrain-houses", schedule={"cron": "1 1 * * *", "timezone": "UTC"})
    ui.set("retrain-houses", paused=True, parameters={"parameters": set_there})
    ui.api.delete(f"/deployments/{ui.deployment('retrain-flats')['id']}").raise_for_status()
    answer = said("schedule", "houses", "--keep", "3")
    assert "at '1 1 * * *' (UTC) by deployment retrain-houses, which is paused until gradmill resume" in answer
    registration.register()
    assert asked() == set_there, "what somebody has set stays"
    assert "retrain-flats" not in named(ui), "what somebody deletes stays deleted"
    assert list(schedules.read().schedules) == ["retrain-houses"]
    ui.forget()
    registration.register()
    assert (ui.crons("retrain-houses"), ui.deployment("retrain-houses")["paused"]) == ({"1 1 * * *": True}, True)
    ui.api.delete(f"/deployments/{ui.deployment('retrain-houses')['id']}").raise_for_status()
    registration.register()
    assert named(ui) == set(NAMES), "also on a server that was told of it when it was new"
    said("schedule", "houses", "--cron", "1 1 * * *")
    ui.add_schedule("retrain-houses")
    ui.set_schedule("retrain-houses", active=False)
    ui.set("retrain-houses", tags=["gradmill", "mine"], parameters={"parameters": set_there})
    said("schedule", "houses", "--keep", "4", "--param", "training.num_epochs=2")
    assert asked() == {"name": "houses", "training": {"lr": 0.5, "num_epochs": 2}}, "onto what was set there"
    assert ADDED in ui.crons("retrain-houses")
    assert [*ui.crons("retrain-houses").values()].count(False) == 1, "one that is off stays so"
    assert ui.deployment("retrain-houses")["tags"] == ["gradmill", "mine"]
    assert schedules.read().schedules["retrain-houses"].cron == "1 1 * * *", "not that of a schedule that was added"
    said("schedule", "houses", "--param", "training.lr=0.25", "--cron", "0 4 * * *")
    assert (ui.crons("retrain-houses")["0 4 * * *"], asked()["training"]["lr"]) == (True, 0.25)
    assert answered("unschedule", "houses")["removed_from_server"]
    registration.register()
    assert named(ui) == set(NAMES)


@pytest.mark.slow
def test_what_is_told_without_a_server_the_next_registration_tells_it(houses: str, ui: Server, home: Path) -> None:
    registration.register()
    said("schedule", "flats", "--cron", "0 2 * * *")
    with without_server():
        for name in ("houses", "flats"):
            assert "no run begins until gradmill up is started" in said("schedule", name, "--cron", "0 4 * * *")
        said("pause", "flats")
    assert "retrain-houses" not in named(ui)
    registration.register()
    assert ui.crons("retrain-houses") == ui.crons("retrain-flats") == {"0 4 * * *": True}
    assert ui.deployment("retrain-flats")["paused"]
    with without_server():
        assert "the next gradmill up starts without it" in said("unschedule", "houses")
        said("unschedule", "flats")
        said("schedule", "flats", "--cron", "0 5 * * *")
    registration.register()
    assert named(ui) == {*NAMES, "retrain-flats"}
    assert ui.crons("retrain-flats") == {"0 5 * * *": True}, "taken up again"
    assert schedules.read().ended == {}


def test_schedules_that_an_older_gradmill_has_written_are_read_and_its_server_keeps_what_is_set(
    houses: str, ui: Server, home: Path
) -> None:
    folder = artifact_paths.schedules().parent
    parameters = own_data.repeat_parameters("houses", {})
    search = {field: parameters[field] for field in ("name", "training", "data")}
    old = {"schema_version": 1, "name": "houses", "cron": "0 3 * * *", "timezone": "UTC", "parameters": parameters}
    for place, document in {
        "houses": old | {"on_drift": True, "keep": 7},
        "schedules": old | {"name": "schedules", "keep": 0},
        "removed/retrain-boats": {"schema_version": 1, "name": "boats"},
        "searches/houses": old | {"parameters": search},
    }.items():
        path = folder / f"{place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    registration.register()
    assert {"retrain-houses", "search-houses"} <= named(ui)
    assert on_drift(ui)
    kept = schedules.read().of_flow("retrain")
    assert (kept["houses"].keep, kept["schedules"].keep) == (7, 1)


@pytest.mark.slow
def test_drift_starts_a_retrain_once_it_is_asked_for_and_registering_leaves_it_on_or_off(
    houses: str, ui: Server, home: Path
) -> None:
    registration.register()
    said("schedule", "houses", "--on-drift")
    deployment, automation = ui.deployment("retrain-houses"), on_drift(ui)
    assert automation is not None
    assert (deployment["schedules"], automation["enabled"]) == ([], True)
    assert [each["deployment_id"] for each in automation["actions"]] == [deployment["id"]]
    assert "retrain-houses" not in [name for name, _ in deployments.list_idle(registration.POOL)]
    assert [each.name for each in describe(state.read()).deployments if each.on_drift] == ["retrain-houses"]
    ui.api.patch(f"/automations/{automation['id']}", json={"enabled": False}).raise_for_status()
    registration.register()
    assert not (on_drift(ui) or {})["enabled"]
    said("schedule", "houses", "--cron", "0 3 * * *")
    assert (ui.crons("retrain-houses"), (on_drift(ui) or {})["enabled"]) == ({"0 3 * * *": True}, False), "as it was"
    said("schedule", "houses", "--on-drift")
    assert (on_drift(ui) or {})["enabled"], "asked for anew"
    said("schedule", "houses", "--no-on-drift")
    assert on_drift(ui) is None
    artifact_paths.schedules().unlink()  # as where the artifacts were restored from before
    said("schedule", "houses", "--on-drift")
    assert on_drift(ui), "a deployment that is there and no time are no contradiction"
    said("schedule", "houses", "--on-drift")
    said("unschedule", "houses")
    assert on_drift(ui) is None


def test_a_retrain_that_finds_drift_starts_no_other() -> None:
    trigger = alerts.load("retrain_on_drift", NAME="houses", DEPLOYMENT_ID=UUID(int=1)).trigger
    assert isinstance(trigger, EventTrigger)
    assert {"gradmill.drift", "gradmill.data"} <= trigger.expect

    def starts(flow: str, name: str = "houses") -> bool:
        labels = {"prefect.resource.id": live_progress.model_resource(name), live_progress.FLOW: flow}
        match = trigger.match
        assert isinstance(match, ResourceSpecification)
        return match.matches(Resource(labels))

    assert starts("predict")
    assert starts("none"), "told by no flow"
    assert not starts("retrain")
    assert not starts("predict", "boats")


@pytest.mark.slow
def test_a_search_is_scheduled_beside_the_retrains_of_its_name(houses: str, ui: Server, home: Path) -> None:
    registration.register()
    answer = answered("schedule", "houses", "--tune")
    facts = {"cron": "0 2 1 * *", "timezone": "UTC", "deployment": "search-houses", "registered": True}
    assert answer == {"schema_version": 1, "name": "houses", "retrains_are_tuned": True} | facts
    said("schedule", "houses", "--cron", "0 3 * * *")
    answer = said("schedule", "houses", "--tune", "--timezone", "Europe/Berlin", "--cron", "0 4 1 * *")
    assert "do not use what is found: gradmill retrain" in answer, "its retrains are scheduled without --tuned"
    assert answered("schedule", "houses", "--tune")["cron"] == "0 4 1 * *", "what is not given again stays"
    asked = TuneParameters.model_validate(ui.deployment("search-houses")["parameters"]["parameters"])
    assert asked.training.seed == 1, "the champion's"
    assert "gradmill unschedule houses --tune ends the search" in said("unschedule", "houses")
    assert named(ui) == {*NAMES, "search-houses"}, "the search goes on"
    declared = (home / "prefect.yaml").read_text()
    (home / "prefect.yaml").write_text(declared[: declared.index("  - name: tune-monthly")])
    assert "declares no deployment of the flow tune" in said("register", code=2)
    (home / "prefect.yaml").write_text(declared)
    said("unschedule", "search-houses")
    assert named(ui) == set(NAMES), "nothing was forgotten meanwhile"
    assert "no schedule that searches" in said("unschedule", "houses", "--tune", code=2)


CANNOT = {
    "pause nobody": "no schedule of nobody",
    "schedule predict-daily --cron nonsense": "nonsense",
    "schedule predict-daily --param batch_size=0": "predict-daily refuses batch_size",
    "schedule predict-daily --param input=today": "input=today",
    "schedule evaluate --param data=labelled.csv": "data=labelled.csv",
    "schedule softmax-nightly --param data.source=x.csv": "data.source=x.csv",
    "schedule softmax-nightly --param data=/x.csv": "refuses data: '/x.csv'",
    "schedule evaluate --timezone UTC": "no cron",
    "schedule evaluate": "nothing to change of evaluate",
    "schedule linear-weekly --keep 3": "--keep of deployment linear-weekly",
    "unschedule softmax-nightly": "prefect.yaml declares softmax-nightly",
    "unschedule boats": "no schedule of boats",
    "schedule linear-weekly nobody --cron NIGHTLY": "no model nobody",
    "schedule nobody --cron NIGHTLY": "nobody",
    "schedule houses": "",
    "schedule houses --cron nonsense": "nonsense",
    "schedule houses --cron NEVER": "0 0 31 2 *",
    "schedule houses --cron NOTHING": "",
    "schedule houses --cron NIGHTLY --timezone Mars": "Mars",
    "schedule houses --cron NIGHTLY --timezone NOTHING": "",
    "schedule houses --cron NIGHTLY --param DEEP": "",
    "schedule houses --cron NIGHTLY --param lr=x": "lr",
    "schedule houses --cron NIGHTLY --param training=5": "training",
    "schedule Houses --cron NIGHTLY": "Houses",
    "schedule houses --tune --keep 3": "--keep",
    "schedule houses --tune --on-drift": "--on-drift",
}


TEXTS = {"NIGHTLY": "0 3 * * *", "NEVER": "0 0 31 2 *", "NOTHING": "", "DEEP": f"training.lr={'[' * 5000}"}
