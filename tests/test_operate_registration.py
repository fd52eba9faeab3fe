"""Registration on a real server: it completes what is missing and leaves what somebody has set."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

import flows.cli.app
from flows.server import automations, changes, deployments, occasions, registration, skipping
from flows.server.kept import Kept
from flows.server.retrains import Retrains
from prefect_ui import NAMES, Server, edit, writable_fields
from tasks.errors import UsageError
from tasks.store import artifact_paths


@pytest.mark.slow
def test_what_somebody_set_stays_and_what_is_changed_is_printed(
    ui: Server, prefect_api: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flows.cli.app.run(["register"]) == 0
    stdout, said = capfd.readouterr()
    assert stdout == f"registered: {', '.join(NAMES)}\n"
    assert {line.removesuffix(": created") for line in said.splitlines()} >= set(NAMES)
    ui.add_schedule("softmax-nightly")
    ui.set_schedule("linear-weekly", active=False)
    mine = {"parameters": {"training": {"model": "softmax-regression", "lr": 0.25}}}
    ui.set("softmax-nightly", parameters=mine, description="Ours.")
    ui.set("linear-weekly", paused=True)
    heartbeats = next(each for each in ui.list("automations") if "heartbeats" in each["name"])
    ui.add_automation(heartbeats | {"name": occasions.RUNS})

    monkeypatch.setenv("GRADMILL_HOME", "/srv/gradmill")
    assert flows.cli.app.run(["register"]) == 0
    said = capfd.readouterr().err
    assert "softmax-nightly: changed pull_steps\n" in said
    assert "softmax-nightly: kept as set: description, parameters\n" in said
    assert "linear-weekly: kept as set: paused, schedule weekly\n" in said
    (step,) = ui.deployment("softmax-nightly")["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"]["directory"] == "/srv/gradmill"
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, "15 12 24 12 *": True}
    assert ui.crons("linear-weekly") == {"30 3 * * 1": False}
    assert ui.deployment("softmax-nightly")["parameters"] == mine
    assert ui.deployment("softmax-nightly")["description"] == "Ours."
    assert ui.deployment("linear-weekly")["paused"]
    assert occasions.RUNS in {each["name"] for each in ui.list("automations")}


@pytest.mark.slow
def test_of_an_edited_file_only_what_nobody_has_set_is_written(
    ui: Server, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert registration.register() == NAMES
    before = ui.list("deployments")
    capfd.readouterr()
    registration.register()
    assert ui.list("deployments") == before, "nothing is written where nothing has changed"
    assert capfd.readouterr().err == ""

    ui.add_schedule("softmax-nightly")
    ui.set_schedule("linear-weekly")  # deleted
    ui.set_schedule("predict-daily", schedule={"cron": "1 1 * * *", "timezone": "UTC"})
    ui.set("maintenance-weekly", parameters={"parameters": {"keep": 3}})
    twice = [{"cron": "0 4 * * *", "slug": "nightly"}, {"cron": "0 16 * * *", "slug": "daily"}]
    edit(home, "softmax-nightly", parameters={"parameters": {"name": "x"}}, schedules=twice)
    edit(home, "linear-weekly", description="Another.", tags=["gradmill", "new"])
    edit(home, "predict-daily", schedules=[{"cron": "0 7 * * *", "slug": "daily"}])
    edit(home, "maintenance-weekly", parameters={"parameters": {"keep": 9}}, concurrency_limit=2)
    registration.register()
    assert ui.crons("softmax-nightly") == {"0 4 * * *": True, "0 16 * * *": True, "15 12 24 12 *": True}
    assert ui.deployment("softmax-nightly")["parameters"] == {"parameters": {"name": "x"}}
    assert ui.crons("linear-weekly") == {}
    assert ui.deployment("linear-weekly")["tags"] == ["gradmill", "new"]
    assert ui.crons("predict-daily") == {"1 1 * * *": True}
    assert ui.deployment("maintenance-weekly")["parameters"] == {"parameters": {"keep": 3}}
    assert ui.deployment("maintenance-weekly")["global_concurrency_limit"]["limit"] == 2
    assert sorted(capfd.readouterr().err.splitlines()) == [
        "linear-weekly: changed description, tags",
        "linear-weekly: kept as set: schedule weekly",
        "maintenance-weekly: changed concurrency_limit",
        "maintenance-weekly: kept as set: parameters",
        "predict-daily: kept as set: schedule daily",
        "softmax-nightly: changed parameter_openapi_schema, parameters, schedule nightly, schedule daily",
    ]


@pytest.mark.slow
def test_a_deployment_that_we_did_not_register_keeps_its_settings(ui: Server, home: Path) -> None:
    """As one of ``prefect deploy --all``, or of a Gradmill that kept no note of what it registered."""
    registration.register()
    for variable in ui.list("variables"):
        ui.api.delete(f"/variables/name/{variable['name']}").raise_for_status()
    ui.set("linear-weekly", tags=["mine"])
    edit(home, "linear-weekly", parameters={"parameters": {"name": "x"}})
    registration.register()
    assert ui.deployment("linear-weekly")["parameters"]["parameters"]["training"]["model"] == "linear-regression"
    assert ui.deployment("linear-weekly")["tags"] == ["mine", "gradmill"], "our tag is what we find it by"


@pytest.mark.slow
def test_an_automation_that_somebody_has_edited_stays_and_ours_is_brought_up_to_date(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zombies() -> dict[str, Any]:
        return next(each for each in ui.list("automations") if "heartbeats" in each["name"])

    registration.register()
    monkeypatch.setattr(automations, "SILENT_SECONDS", 200)
    registration.register()
    assert zombies()["trigger"]["within"] == 200
    edited = zombies() | {"description": "Ours.", "enabled": False}
    ui.api.put(f"/automations/{edited['id']}", json=writable_fields(edited)).raise_for_status()
    monkeypatch.setattr(automations, "SILENT_SECONDS", 300)
    registration.register()
    assert (zombies()["trigger"]["within"], zombies()["description"], zombies()["enabled"]) == (200, "Ours.", False)


@pytest.mark.slow
def test_what_somebody_set_is_set_on_another_server_too(ui: Server, home: Path) -> None:
    registration.register()
    ui.add_schedule("softmax-nightly")
    ui.set("softmax-nightly", paused=True)
    mine = {"parameters": {"name": "softmax-regression", "batch_size": 7}}
    ui.set("predict-daily", parameters=mine)
    ui.set_schedule("predict-daily", schedule={"cron": "1 1 * * *", "timezone": "Asia/Tokyo"})
    ui.set_schedule("linear-weekly")  # deleted
    ui.set_schedule("maintenance-weekly", active=False)
    registration.register()
    ui.forget()
    edit(home, "predict-daily", description="Of tomorrow.", parameters={"parameters": {"batch_size": 9}})
    registration.register()
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, "15 12 24 12 *": True}
    assert ui.deployment("softmax-nightly")["paused"]
    assert ui.deployment("predict-daily")["parameters"] == mine
    assert ui.deployment("predict-daily")["description"] == "Of tomorrow."
    assert ui.deployment("predict-daily")["schedules"][0]["schedule"]["timezone"] == "Asia/Tokyo"
    assert ui.crons("predict-daily") == {"1 1 * * *": True}
    assert ui.crons("linear-weekly") == {}
    assert ui.crons("maintenance-weekly") == {"0 5 * * 0": False}
    ui.set("softmax-nightly", paused=False)
    ui.set_schedule("maintenance-weekly", active=True)
    registration.register()
    assert Kept.of("softmax-nightly").items == Kept.of("maintenance-weekly").items == {}, "as declared again"


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(folder))


@pytest.mark.slow
def test_a_registration_without_the_artifacts_resets_nothing_and_those_that_set_it_still_can(
    ui: Server, home: Path, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration.register()
    ui.set_schedule("linear-weekly")  # deleted
    changes.change(changes.named("predict-daily"), True, parameters={"batch_size": 7}, paused=True)
    changes.change(changes.named("evaluate"), True, cron="0 9 1 * *")
    registration.register()
    before = ui.list("deployments")
    for _ in range(2):  # in a container that keeps nothing
        shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
        elsewhere(monkeypatch, tmp_path / "nothing")
        registration.register()
        assert ui.list("deployments") == before
        assert Kept.of("predict-daily") == Kept(), "it is others' to change"
    elsewhere(monkeypatch, artifacts)
    changes.forget(changes.named("predict-daily"), there=False)
    changes.forget(changes.named("evaluate"), there=True)
    registration.register()
    elsewhere(monkeypatch, tmp_path / "nothing")
    registration.register()
    assert ui.deployment("predict-daily")["parameters"]["parameters"] == {"name": "softmax-regression"}
    assert not ui.deployment("predict-daily")["paused"]
    assert (ui.crons("evaluate"), ui.crons("linear-weekly")) == ({}, {})
    changes.forget(changes.named("linear-weekly"), there=True)
    assert ui.crons("linear-weekly") == {"30 3 * * 1": True}, "who asks for it may"


@pytest.mark.slow
def test_what_another_folder_has_set_is_changed_by_a_command_and_not_back_by_a_registration(
    ui: Server, home: Path, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration.register()
    changes.change(changes.named("predict-daily"), True, parameters={"batch_size": 7})
    elsewhere(monkeypatch, tmp_path / "others")
    changes.change(changes.named("predict-daily"), True, parameters={"max_rejects": 3})
    mine = {"name": "softmax-regression", "batch_size": 7, "max_rejects": 3}
    assert ui.deployment("predict-daily")["parameters"]["parameters"] == mine
    elsewhere(monkeypatch, artifacts)
    registration.register()
    assert ui.deployment("predict-daily")["parameters"]["parameters"] == mine


@pytest.mark.slow
def test_a_schedule_added_on_one_server_is_added_to_one_that_is_there_and_deleted_where_it_was(
    ui: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration.register()
    when = {"cron": "15 12 24 12 *", "timezone": "Europe/Lisbon", "day_or": True}
    content = {"schedule": when, "active": True, "parameters": {}, "slug": None}
    Kept(added=[content]).keep("softmax-nightly")  # as the registration on another server leaves it
    registration.register()
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, "15 12 24 12 *": True}
    ui.api.delete(schedule_path(ui, "softmax-nightly", "15 12 24 12 *")).raise_for_status()
    registration.register()
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True}
    assert Kept.of("softmax-nightly").added == []


def schedule_path(ui: Server, name: str, cron: str) -> str:
    found = ui.deployment(name)
    (schedule,) = [each for each in found["schedules"] if each["schedule"]["cron"] == cron]
    return f"/deployments/{found['id']}/schedules/{schedule['id']}"


@pytest.mark.slow
def test_a_command_sets_for_good_with_a_server_or_without(ui: Server, home: Path) -> None:
    def change(name: str, there: bool = True, **asked: Any) -> None:
        changes.change(changes.named(name), there, **asked)

    change("predict-daily", there=False, parameters={"input": "/data/today"}, timezone="Europe/Berlin")
    change("evaluate", there=False, cron="0 9 1 * *")
    change("linear-regression", there=False, paused=True)
    registration.register()
    found = ui.deployment("predict-daily")
    assert found["parameters"]["parameters"] == {"name": "softmax-regression", "input": "/data/today"}
    assert found["schedules"][0]["schedule"] == {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "day_or": True}
    assert ui.crons("evaluate") == {"0 9 1 * *": True}
    assert ui.deployment("linear-weekly")["paused"]
    change("tune-monthly", cron="0 1 1 * *")
    assert ui.crons("tune-monthly") == {"0 1 1 * *": True}, "a time switches it on"
    ui.set("softmax-nightly", parameters={"parameters": {"training": {"model": "softmax-regression", "lr": 0.25}}})
    change("softmax-nightly", parameters={"training": {"num_epochs": 3}})
    asked = {"model": "softmax-regression", "lr": 0.25, "num_epochs": 3}
    assert ui.deployment("softmax-nightly")["parameters"]["parameters"]["training"] == asked, "on what was set there"
    before = ui.list("deployments")
    edit(home, "softmax-nightly", parameters={"parameters": {"name": "x"}}, schedules=[])
    edit(home, "linear-weekly", concurrency_limit=3)
    registration.register()
    assert ui.deployment("softmax-nightly") == next(each for each in before if each["name"] == "softmax-nightly")
    for name in ("predict-daily", "linear-weekly", "evaluate"):
        changes.forget(changes.named(name), there=True)
    assert ui.crons("predict-daily") == {"0 6 * * *": True}
    assert ui.deployment("predict-daily")["parameters"]["parameters"] == {"name": "softmax-regression"}
    assert not ui.deployment("linear-weekly")["paused"]


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("nobody", {"paused": True}, "no deployment nobody"),
        ("predict-daily", {"cron": "nonsense"}, "nonsense"),
        ("predict-daily", {"parameters": {"batch_size": 0}}, "predict-daily refuses batch_size"),
        ("predict-daily", {"parameters": {"input": "today"}}, "input=today"),
        ("evaluate", {"parameters": {"data": "labelled.csv"}}, "data=labelled.csv"),
        ("softmax-nightly", {"parameters": {"data": {"source": "x.csv"}}}, "data.source=x.csv"),
        ("softmax-nightly", {"parameters": {"data": "/x.csv"}}, "refuses data: '/x.csv'"),
        ("evaluate", {"timezone": "UTC"}, "no time"),
    ],
)
def test_what_cannot_be_set_is_exit_2_and_nothing_is_kept(
    name: str, asked: dict[str, Any], words: str, home: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        changes.change(changes.named(name), False, **asked)
    assert not artifact_paths.all_deployment_settings().exists()


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command prints."""
    capsys.readouterr()
    assert flows.cli.app.run(list(words)) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


@pytest.mark.slow
def test_words_of_a_command_say_whether_it_runs_and_a_name_is_that_of_what_retrains_it(
    home: Path, two_versions: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_settings({PREFECT_API_URL: ""}):
        assert "is paused until" in said(capsys, "pause", "softmax-nightly")
        answer = said(capsys, "schedule", "softmax-regression", "--cron", "0 4 * * *")
        assert answer.startswith("softmax-nightly is paused; after gradmill resume softmax-nightly it runs at '0 4")
        assert "softmax-nightly runs at '0 4 * * *' (UTC) again" in said(capsys, "resume", "softmax-regression")
        assert "evaluate runs at no time" in said(capsys, "schedule", "evaluate", "--param", "data=/x.csv")
        assert "no schedule of it is on" in said(capsys, "resume", "tune-monthly")
        said(capsys, "schedule", "linear-regression", "--cron", "0 5 * * *")
        assert Retrains.kept() == [], "kept as it is, prefect.yaml retrains it"
        assert "--keep of deployment linear-weekly" in said(capsys, "schedule", "linear-weekly", "--keep", "3", code=2)
        theirs = {"schedule": {"cron": "5 17 * * *", "timezone": "UTC"}, "active": True, "parameters": {}, "slug": None}
        Kept(added=[theirs]).keep("softmax-nightly")
        answer = said(capsys, "unschedule", "softmax-regression")
        assert "softmax-nightly is as declared again" in answer
        assert "what was added in the UI stays, at '5 17 * * *' (UTC): delete it there" in answer
        shutil.move(artifact_paths.model("linear-regression"), artifact_paths.model("houses"))
        monkeypatch.setattr(Retrains, "asked", lambda self: {"name": self.name})
        said(capsys, "schedule", "houses", "--cron", "0 5 * * *")
        said(capsys, "pause", "houses")
        answer = said(capsys, "schedule", "houses", "--keep", "3")
        assert "at '0 5 * * *' (UTC) by deployment retrain-houses, which is paused until" in answer
        assert "schedule retrain-houses --param" in said(capsys, "schedule", "houses", "--param", "x=1", code=2)
        assert "the next gradmill up starts without it" in said(capsys, "unschedule", "houses")


def test_trigger_and_skip_say_at_once_what_cannot_be(ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registration.register()
    with pytest.raises(UsageError, match=r"data=labelled\.csv"):
        deployments.trigger("evaluate", {"data": "labelled.csv"})
    monkeypatch.setattr(deployments, "SCHEDULER_SECONDS", 600)
    begun = time.monotonic()
    with pytest.raises(UsageError, match="no run of evaluate is to come: no active schedule"):
        skipping.skip("evaluate")
    assert time.monotonic() - begun < 300


@pytest.mark.slow
def test_what_the_server_plans_while_a_deployment_is_paused_does_not_run(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration.register()
    deployment = ui.deployment("predict-daily")["id"]

    def planned() -> int:
        return sum(run["deployment_id"] == deployment and run["auto_scheduled"] for run in ui.list("flow_runs"))

    request = SyncPrefectClient.request
    late: list[int] = []

    def planning(self: SyncPrefectClient, method: Any, *arguments: Any, **options: Any) -> Any:
        """As with a scheduler that has read the deployment before it was paused, and puts its runs in afterwards."""
        answer = request(self, method, *arguments, **options)
        if method == "PATCH" and not late:
            ui.api.post(f"/deployments/{deployment}/schedule", json={"min_runs": 3}).raise_for_status()
            late.append(planned())
        return answer

    monkeypatch.setattr(SyncPrefectClient, "request", planning)
    changes.change(changes.named("predict-daily"), True, paused=True)
    assert (late, planned()) == ([3], 0)
