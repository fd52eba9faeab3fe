"""Deployments on a real server: made once, brought up to date as to code, and otherwise left as somebody sets them."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import tags
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import Resource, ResourceSpecification
from prefect.settings import PREFECT_API_URL, temporary_settings

from command_line import answer, output, refused, typed
from flows.retrain import retrain
from flows.server import alerts, api, registration, up
from flows.server.status import describe
from prefect_ui import NAMES, Server, edit, keep
from tasks.errors import EnvironmentProblem, UsageError
from tasks.parameters import RetrainParameters
from tasks.stage import live_progress
from tasks.store import artifact_paths, housekeeping, identity, state

ADDED = "15 12 24 12 *"  # of a schedule that somebody adds in the UI


@pytest.fixture
def houses(two_versions: None, ui: Server, home: Path) -> Server:
    """Own names with two versions each, and a server on which all that is declared is registered."""
    for name in ("houses", "flats"):
        shutil.copytree(artifact_paths.model("linear-regression"), artifact_paths.model(name))
    registration.register()
    return ui


def without_server() -> Any:
    return temporary_settings({PREFECT_API_URL: ""})


def named(ui: Server) -> set[str]:
    return {each["name"] for each in ui.list("deployments")}


def settings(ui: Server) -> dict[str, dict[str, Any]]:
    """What somebody may set of each deployment."""
    fields = ("parameters", "description", "tags", "paused", "schedules")
    return {each["name"]: {field: each[field] for field in fields} for each in ui.list("deployments")}


def asked(ui: Server, name: str = "retrain-houses") -> Any:
    return ui.deployment(name)["parameters"]["parameters"]


def on_drift(ui: Server) -> bool | None:
    """Whether what starts a retrain of houses when its input drifts is on; None where there is no such thing."""
    automations = {each["name"]: each["enabled"] for each in ui.list("automations")}
    return automations.get("gradmill: retrain houses on drift")


# Registration


@pytest.mark.slow
def test_code_is_brought_up_to_date_and_what_somebody_set_stays(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert output("register") == f"registered: {', '.join(NAMES)}\n"
    before = ui.list("deployments")
    assert typed("register").stderr == "", "nothing is said"
    assert ui.list("deployments") == before, "nothing is written where nothing has changed"
    ui.add_schedule("softmax-nightly")
    ui.set_schedule("linear-weekly", active=False)
    ui.set_schedule("maintenance-weekly")  # deleted
    mine = {"parameters": {"training": {"model": "softmax-regression", "lr": 0.25}}}
    ui.set("softmax-nightly", parameters=mine, description="Ours.", tags=["mine"])
    ui.set("linear-weekly", paused=True)
    ui.remove("evaluate")
    ui.api.patch("/work_pools/gradmill", json={"concurrency_limit": 3}).raise_for_status()
    edit(home, "predict-daily", parameters={"parameters": {"batch_size": 9}}, schedules=[])
    monkeypatch.setenv("GRADMILL_HOME", "/srv/gradmill")
    there = settings(ui)
    told = typed("register").stderr
    assert "softmax-nightly: changed pull_steps, tags\n" in told
    assert "evaluate: not on this server, gradmill register --reset evaluate makes it\n" in told
    there["softmax-nightly"]["tags"] = ["mine", "gradmill", identity.require().tag]  # what we find it by
    assert settings(ui) == there
    assert ui.api.get("/work_pools/gradmill").json()["concurrency_limit"] == 3
    for name in there:
        (step,) = ui.deployment(name)["pull_steps"]
        assert step["prefect.deployments.steps.set_working_directory"]["directory"] == "/srv/gradmill"
    reset = "register --reset evaluate --reset softmax-nightly --reset predict-daily"
    assert output(reset) == f"registered: {', '.join(NAMES)}\n"
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True}
    assert asked(ui, "softmax-nightly")["training"]["lr"] == 0.5
    assert (asked(ui, "predict-daily"), ui.crons("predict-daily")) == ({"batch_size": 9}, {})
    assert ui.deployment("linear-weekly")["paused"], "of which no reset was asked for"
    refused(2, "register --reset evalaute", "no deployment evalaute is declared")
    ui.api.delete(f"/variables/name/{registration.REGISTERED}").raise_for_status()
    registration.register()
    assert ui.deployment("linear-weekly")["paused"], "also where an older gradmill has registered"


UNREADABLE: dict[str, bytes | dict[str, Any]] = {
    "a schedule has no slug": {"schedules": [{"cron": "0 3 * * *"}]},
    "nonsense": {"schedules": [{"cron": "nonsense", "slug": "x"}]},
    "build: Extra inputs are not permitted": {"build": [{"x": {}}]},
    "entrypoint flows/retrain.py:retrain is not one of": {"entrypoint": "flows/retrain.py:retrain"},
    "NO_SUCH is not set": {"description": "{{ $NO_SUCH }}"},
    "work_pool": {"work_pool": None},
    r"prefect\.yaml is not as gradmill register takes it": b"deployments: {",
    r"prefect\.yaml is not as": b"\xff\xfe\x00",
    r"prefect\.yaml is not": b"[]",
}


class KilledProcess(BaseException):
    """Where a kill would end the process."""


@pytest.mark.slow  # a registration for every request of one
def test_an_end_after_any_request_loses_nothing_and_the_next_registration_completes_it(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, left = SyncPrefectClient.request, 0

    def until_killed(self: SyncPrefectClient, method: Any, path: Any, **options: Any) -> httpx.Response:
        nonlocal left
        answer = request(self, method, path, **options)
        left -= method != "GET" and not path.endswith("/filter")
        if left < 0:
            raise KilledProcess
        return answer

    monkeypatch.setattr(SyncPrefectClient, "request", until_killed)
    kinds = {"linear-weekly", "evaluate", "tune-monthly"}  # scheduled, not scheduled, switched off
    keep(home, kinds)
    for requests in range(40):
        ui.forget()
        left = requests
        try:
            registration.register()
        except KilledProcess:
            pass
        else:
            break
        for name in named(ui):
            ui.set(name, paused=True)
        begun, left = named(ui), 1000
        registration.register()
        assert {name: each["paused"] for name, each in settings(ui).items()} == {name: name in begun for name in kinds}
    assert len(kinds) < requests < 39, "it has been ended at every one of its requests"


@pytest.mark.parametrize("words", UNREADABLE)
def test_what_register_does_not_take_is_named(words: str, home: Path) -> None:
    fault = UNREADABLE[words]
    if isinstance(fault, bytes):
        (home / "prefect.yaml").write_bytes(fault)
    else:
        edit(home, "softmax-nightly", **fault)
    with pytest.raises(UsageError, match=words):
        registration.read_declared()


def test_what_the_server_does_not_take_is_named(ui: Server, home: Path) -> None:
    edit(home, "predict-daily", parameters={"parameters": {"batch_size": -1}})
    with pytest.raises(EnvironmentProblem, match="deployment predict-daily is not accepted"):
        registration.register()
    edit(home, "predict-daily", parameters={}, work_pool={"name": "no-such"})
    with pytest.raises(EnvironmentProblem, match="no-such"):
        registration.register()


@pytest.mark.slow
def test_a_run_that_never_began_gives_its_place_back(ui: Server, home: Path) -> None:
    """As after Ctrl-C while a worker was submitting it; a server that starts anew has forgotten the lease."""
    registration.register()
    weekly = f"/deployments/{ui.deployment('linear-weekly')['id']}/create_flow_run"
    first, second = (ui.api.post(weekly, json={}).raise_for_status().json()["id"] for _ in range(2))

    def submit(run: str) -> Any:
        pending = {"state": {"type": "PENDING", "name": "Submitting"}}
        return ui.api.post(f"/flow_runs/{run}/set_state", json=pending).raise_for_status().json()["state"]["name"]

    assert (submit(first), submit(second)) == ("Submitting", "AwaitingConcurrencySlot")
    with api.client() as client:
        begun = [run for run in up.list_begun(client) if str(run.id) in (first, second)]  # other tests leave runs, too
        assert [str(run.id) for run in up.crash_dead_runs(client, begun, up.REASON)] == [first]
    assert submit(second) == "Submitting"


# Deployments changed by commands


@pytest.mark.slow
def test_commands_change_a_declared_deployment_for_good(ui: Server, home: Path) -> None:
    registration.register()
    found = answer("schedule predict-daily --param input=/data/today --timezone Europe/Berlin")
    assert found["schedules"] == [{"cron": "0 6 * * *", "timezone": "Europe/Berlin"}]
    assert asked(ui, "predict-daily") == {"name": "softmax-regression", "input": "/data/today"} == found["parameters"]
    assert output("pause predict-daily").startswith("predict-daily is paused until gradmill resume")
    assert output("schedule predict-daily --cron '0 7 * * *'").startswith("predict-daily is paused; after")
    assert "predict-daily runs at '0 7 * * *' (Europe/Berlin) again" in output("resume predict-daily")
    output("schedule softmax-regression --param training.num_epochs=3")  # a model's name is that of what retrains it
    training = {"model": "softmax-regression", "lr": 0.5, "num_epochs": 3}
    assert asked(ui, "softmax-nightly")["training"].items() >= training.items(), "on what is set there"
    output("schedule evaluate --cron '0 9 1 * *'")
    assert ui.crons("evaluate") == {"0 9 1 * *": True}, "a time makes it and switches it on"
    assert "unscheduled" not in ui.deployment("evaluate")["tags"]
    output("schedule tune-monthly --timezone Europe/Berlin")
    assert ui.crons("tune-monthly") == {"0 2 1 * *": False}
    assert "unscheduled" in ui.deployment("tune-monthly")["tags"], "a zone switches nothing on"
    before = ui.list("deployments")
    registration.register()
    assert ui.list("deployments") == before


NIGHTLY = "schedule houses --cron '0 3 * * *'"
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
    "schedule linear-weekly nobody --cron '0 3 * * *'": "no model named nobody",
    "schedule nobody --cron '0 3 * * *'": "nobody",
    "schedule houses": "",
    "schedule houses --cron nonsense": "nonsense",
    "schedule houses --cron '0 0 31 2 *'": "0 0 31 2 *",
    "schedule houses --cron ''": "",
    f"{NIGHTLY} --timezone Mars": "Mars",
    f"{NIGHTLY} --timezone ''": "",
    f"{NIGHTLY} --param training.lr={'[' * 5000}": "",
    f"{NIGHTLY} --param lr=x": "lr",
    f"{NIGHTLY} --param training=5": "training",
    f"{NIGHTLY} --param name=flats": "name=flats for retrain-houses",
    "schedule Houses --cron '0 3 * * *'": "Houses",
}


@pytest.mark.slow
def test_what_cannot_be_set_is_exit_2_and_changes_nothing(houses: Server) -> None:
    before = houses.list("deployments")
    for command, found in CANNOT.items():
        refused(2, command, found)
    assert houses.list("deployments") == before
    assert not artifact_paths.retention("houses").exists()
    with without_server():
        refused(1, "pause softmax-nightly", "no gradmill up is running")
        refused(2, "schedule softmax-nightly --cron '61 3 * * *'", "61 3")
        refused(2, f"{NIGHTLY} --param bad=1", "retrain-houses refuses bad: 1")


@pytest.mark.slow
def test_a_run_of_a_names_deployment_without_the_name_is_refused(prefect_api: str, artifacts: Path) -> None:
    with tags("gradmill", "model:houses"), pytest.raises(UsageError) as caught:
        retrain()
    assert "a run of the deployment of houses with the parameters of softmax-regression" in caught.value.found
    assert not (artifacts / "runs").exists()


@pytest.mark.slow
def test_a_schedule_is_a_deployment_that_is_left_as_somebody_sets_it(houses: Server) -> None:
    ui, name = houses, "retrain-houses"
    found = answer("schedule houses flats --cron '0 3 * * *' --timezone Europe/Berlin")
    assert [(each["deployment"], each["keep"]) for each in found["schedules"]] == [(name, 30), ("retrain-flats", 30)]
    assert ui.deployment(name)["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
    parameters = RetrainParameters.model_validate(asked(ui))
    assert (parameters.name, parameters.training.seed) == ("houses", 1), "the champion's"
    ui.set_schedule(name, schedule={"cron": "1 1 * * *", "timezone": "UTC"})
    ui.add_schedule(name)
    set_there = {"parameters": {"name": "houses", "training": {"lr": 0.5}}}
    ui.set(name, paused=True, tags=["gradmill", identity.require().tag, "mine"], parameters=set_there)
    ui.remove("retrain-flats")
    there = settings(ui)
    told = output("schedule houses --keep 3 --param training.num_epochs=2")
    assert f"{name} is paused; after gradmill resume {name} it runs at '1 1 * * *' (UTC), at '{ADDED}'" in told
    registration.register()
    there[name]["parameters"] = {"parameters": {"name": "houses", "training": {"lr": 0.5, "num_epochs": 2}}}
    assert settings(ui) == there, "what somebody has set stays, and what somebody deletes stays deleted"
    assert housekeeping.Retention.read(artifact_paths.retention("houses")).keep == 3
    ui.set_schedule(name, active=False)
    output("schedule houses --keep 4 --timezone Europe/Paris")
    assert not ui.crons(name)["1 1 * * *"], "one that is off stays so"
    output("schedule houses --param training.lr=0.25 --cron '0 4 * * *'")
    assert (ui.crons(name)["0 4 * * *"], asked(ui)["training"]["lr"]) == (True, 0.25)
    refused(2, "remove houses --yes", f"gradmill unschedule {name}, then remove the name")
    ui.remove(name)
    registration.register()
    assert named(ui) == set(NAMES)
    output("schedule evaluate --param name=houses --param data=/data/labelled.csv --cron '0 3 29 2 *'")
    assert [each["name"] for each in answer("status houses")["deployments"]] == ["evaluate"]
    output("schedule evaluate --param name=flats")
    assert [tag for tag in ui.deployment("evaluate")["tags"] if tag.startswith("model:")] == ["model:flats"]
    output("schedule evaluate --param name=houses")
    refused(2, "remove houses --yes", "gradmill pause evaluate, then remove the name")
    output("pause evaluate")
    output("schedule houses --cron '1 1 * * *'")
    output("unschedule houses")
    assert not artifact_paths.retention("houses").exists()
    registration.register()
    assert named(ui) == set(NAMES)


OLD = {
    "name": "houses", "cron": "0 3 * * *", "timezone": "UTC", "on_drift": True, "keep": 7,
    "parameters": {"name": "houses", "training": {"model": "linear-regression"}},
}  # fmt: skip


def take_over(documents: dict[str, Any]) -> None:
    """Register a store that has these documents of schedules."""
    folder = artifact_paths.schedules_of_before()
    (folder / "searches").mkdir(parents=True)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps({"schema_version": 1} | document))
    registration.register()
    assert not folder.exists()
    assert housekeeping.Retention.read(artifact_paths.retention("houses")).keep == 7


@pytest.mark.slow
def test_schedules_of_82fab8f3_are_taken_over_and_what_was_set_or_deleted_on_its_server_stays(houses: Server) -> None:
    output("schedule houses flats --cron '2 2 * * *'")
    houses.set("retrain-flats", parameters={"parameters": {"name": "flats", "training": {"lr": 0.5}}})
    houses.api.patch("/variables/name/gradmill_registered", json={"value": "theirs"}).raise_for_status()
    known = OLD | {"flow": "retrain", "server": "theirs"}
    changed = known | {"name": "flats", "cron": "0 5 * * *", "paused": True, "pending": ["paused", "time"]}
    deleted = known | {"flow": "tune"}
    schedules = {"retrain-houses": known, "retrain-flats": changed, "search-houses": deleted}
    take_over({"_schedules.json": {"schedules": schedules}})
    assert houses.crons("retrain-houses") == {"2 2 * * *": True}
    assert houses.crons("retrain-flats") == {"0 5 * * *": True}, "what its server has not heard of is set there"
    assert houses.deployment("retrain-flats")["paused"]
    assert asked(houses, "retrain-flats")["training"] == {"lr": 0.5}, "as somebody has set it there"
    assert named(houses) == {*NAMES, "retrain-houses", "retrain-flats"}


@pytest.mark.slow
def test_schedules_of_c692a25_are_taken_over_once(houses: Server) -> None:
    take_over({"houses.json": OLD, "searches/houses.json": OLD | {"on_drift": False}})
    assert (houses.crons("retrain-houses"), on_drift(houses)) == ({"0 3 * * *": True}, True)
    assert named(houses) == {*NAMES, "retrain-houses", "search-houses"}
    output("unschedule search-houses")
    houses.set("retrain-houses", paused=True)
    registration.register()
    assert houses.deployment("retrain-houses")["paused"]


def test_a_damaged_document_of_schedules_stops_no_registration(
    houses: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = artifact_paths.schedules_of_before()
    folder.mkdir()
    (folder / "_schedules.json").write_text("{")
    assert registration.register() == NAMES
    assert f"no schedule of {folder} is taken over" in capsys.readouterr().err


@pytest.mark.slow
def test_drift_starts_a_retrain_once_it_is_asked_for_and_registering_leaves_it_on_or_off(houses: Server) -> None:
    ui = houses
    output("schedule houses --on-drift")
    (automation,) = (each for each in ui.list("automations") if "retrain houses on drift" in each["name"])
    deployment = ui.deployment("retrain-houses")
    assert (deployment["schedules"], on_drift(ui)) == ([], True)
    assert [each["deployment_id"] for each in automation["actions"]] == [deployment["id"]]
    assert [each.name for each in describe(state.read()).deployments if each.on_drift] == ["retrain-houses"]
    ui.api.patch(f"/automations/{automation['id']}", json={"enabled": False}).raise_for_status()
    registration.register()
    output(NIGHTLY)
    assert (ui.crons("retrain-houses"), on_drift(ui)) == ({"0 3 * * *": True}, False), "as it was"
    output("schedule houses --on-drift")
    assert on_drift(ui), "asked for anew"
    output("schedule houses --no-on-drift")
    assert on_drift(ui) is None
    output("unschedule houses")
    assert on_drift(ui) is None


@pytest.mark.parametrize(
    ("flow", "name", "is_ours", "is_started"),
    [
        ("predict", "houses", True, True),
        ("none", "houses", True, True),
        ("retrain", "houses", True, False),
        ("predict", "boats", True, False),
        ("predict", "houses", False, False),
    ],
)
def test_drift_of_the_name_in_this_store_starts_a_retrain_and_what_a_retrain_finds_starts_no_other(
    flow: str, name: str, is_ours: bool, is_started: bool
) -> None:
    trigger = alerts.load("retrain_on_drift", NAME="houses", DEPLOYMENT_ID=UUID(int=1)).trigger
    assert isinstance(trigger, EventTrigger)
    assert {"gradmill.drift", "gradmill.data"} <= trigger.expect
    assert isinstance(trigger.match, ResourceSpecification)
    labels = {"prefect.resource.id": live_progress.model_resource(name), live_progress.FLOW: flow}
    labels |= {live_progress.STORE: identity.require().id if is_ours else "another"}
    assert trigger.match.matches(Resource(labels)) == is_started


@pytest.mark.slow
def test_another_store_on_a_server_is_refused_with_the_owner_and_changes_nothing_until_it_adopts(
    houses: Server, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output(NIGHTLY)
    before, owner = houses.list("deployments"), identity.require()
    other = Path(shutil.copytree(artifacts, tmp_path / "other"))
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(other))
    refused(2, "register", f"is a copy of the store {owner.id} in {artifacts}", "gradmill up --adopt")
    (other / "store.json").unlink()  # and now a store of its own
    for command in (
        "register",
        "schedule houses --cron '9 9 * * *'",
        "pause houses",
        "skip houses",
        "trigger retrain-houses",
        "unschedule houses",
        "remove houses --yes",
    ):
        refused(2, command, f"belong to the store {owner.id} in {artifacts}", "--adopt")
    assert houses.list("deployments") == before
    output("register --adopt")
    tags = {each["name"]: each["tags"] for each in houses.list("deployments")}
    assert [name for name, words in tags.items() if identity.require().tag not in words or owner.tag in words] == []
    assert houses.crons("retrain-houses") == {"0 3 * * *": True}
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(artifacts))
    refused(2, "unschedule houses", f"{other} on ", "--adopt")


def test_a_store_keeps_its_id_where_it_is_renamed_or_its_host_is_and_a_copy_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(folder: Path, host: str = "one") -> str:
        monkeypatch.setenv("GRADMILL_ARTIFACTS", str(folder))
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        return identity.require().id

    first, moved, copy = (tmp_path / name for name in ("first", "moved", "copy"))
    made = use(first)
    assert use(first, "two") == made, "a container's host name is new at each start"
    first.rename(moved)
    assert use(moved, "three") == made
    (moved / ".store").chmod(0o400)  # its change time is new
    assert use(moved, "three") == made
    shutil.copytree(moved, copy)
    with pytest.raises(UsageError, match=f"is a copy of the store {made}"):
        use(copy, "three")
    assert identity.require(adopt=True).id != made
    assert use(moved, "three") == made
