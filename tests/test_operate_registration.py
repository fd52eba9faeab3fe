"""Registration on a real server: it completes what is missing and leaves what somebody has set, killed or not."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema

import flows.cli.app
from command_line import GRADMILL
from conftest import REPOSITORY
from flows.server import automations, changes, deployments, occasions, registration, skipping
from flows.server.declared import declared, schema
from flows.server.kept import Kept
from flows.server.registered import digest, writable
from flows.server.retrains import Retrains
from flows.server.status import status
from prefect_api import api_client
from tasks.errors import EnvironmentProblem, UsageError
from tasks.store import artifact_paths

NAMES = ["evaluate", "linear-weekly", "maintenance-weekly", "predict-daily", "softmax-nightly", "tune-monthly"]
DECEMBER = {"schedule": {"cron": "15 12 24 12 *", "timezone": "Europe/Lisbon"}, "active": True}


def writable_fields(automation: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in automation.items() if name not in ("id", "created", "updated")}


class Server:
    """What somebody sees and sets in Prefect's UI."""

    def __init__(self, address: str) -> None:
        self.api = api_client(address)

    def list(self, kind: str) -> list[dict[str, Any]]:
        return list(self.api.post(f"/{kind}/filter", json={}).raise_for_status().json())

    def deployment(self, name: str) -> dict[str, Any]:
        return {each["name"]: each for each in self.list("deployments")}[name]

    def set(self, name: str, **fields: Any) -> None:
        self.api.patch(f"/deployments/{self.deployment(name)['id']}", json=fields).raise_for_status()

    def add_schedule(self, name: str) -> None:
        self.api.post(f"/deployments/{self.deployment(name)['id']}/schedules", json=[DECEMBER]).raise_for_status()

    def set_schedule(self, name: str, **fields: Any) -> None:
        found = self.deployment(name)
        path = f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}"
        (self.api.patch(path, json=fields) if fields else self.api.delete(path)).raise_for_status()

    def add_automation(self, automation: dict[str, Any]) -> None:
        self.api.post("/automations/", json=writable_fields(automation)).raise_for_status()

    def crons(self, name: str) -> dict[str, bool]:
        """Each schedule's times, and whether it is active."""
        return {each["schedule"]["cron"]: each["active"] for each in self.deployment(name)["schedules"]}

    def forget(self) -> None:
        """Remove all that a registration makes."""
        for kind, path in (("deployments", "id"), ("automations", "id"), ("variables", "name")):
            for each in self.list(kind):
                where = f"/variables/name/{each['name']}" if path == "name" else f"/{kind}/{each['id']}"
                self.api.delete(where).raise_for_status()


@pytest.fixture
def ui(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server of all tests without any deployment."""
    for name in ("GRADMILL_HOME", "GRADMILL_NOTIFY"):
        monkeypatch.delenv(name, raising=False)
    found = Server(server)
    found.forget()
    yield found
    found.forget()
    found.api.close()


@pytest.fixture
def home(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ``prefect.yaml`` to edit, from which ``register`` in this process reads."""
    (tmp_path / "prefect.yaml").write_bytes((REPOSITORY / "prefect.yaml").read_bytes())
    monkeypatch.setattr(registration, "home", lambda: tmp_path)
    return tmp_path


def edit(home: Path, name: str, **fields: Any) -> None:
    document = yaml.safe_load((home / "prefect.yaml").read_text())
    (deployment,) = [each for each in document["deployments"] if each["name"] == name]
    deployment.update(fields)
    (home / "prefect.yaml").write_text(yaml.safe_dump(document))


def command(server: Server, *, cwd: Path = REPOSITORY, **environment: str) -> "subprocess.Popen[str]":
    """``gradmill register`` as a child."""
    here = os.environ | {"PREFECT_API_URL": str(server.api.base_url).rstrip("/")} | environment
    arguments = [GRADMILL] if cwd == REPOSITORY else [sys.executable, "-m", "flows"]
    return subprocess.Popen(
        [*arguments, "register"], cwd=cwd, env=here, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_what_somebody_set_stays_and_what_is_changed_is_printed(ui: Server) -> None:
    stdout, said = (done := command(ui)).communicate(timeout=120)
    assert done.returncode == 0, said
    assert stdout == f"registered: {', '.join(NAMES)}\n"
    assert {line.removesuffix(": created") for line in said.splitlines()} >= set(NAMES)
    ui.add_schedule("softmax-nightly")
    ui.set_schedule("linear-weekly", active=False)
    mine = {"parameters": {"training": {"model": "softmax-regression", "lr": 0.25}}}
    ui.set("softmax-nightly", parameters=mine, description="Ours.")
    ui.set("linear-weekly", paused=True)
    heartbeats = next(each for each in ui.list("automations") if "heartbeats" in each["name"])
    ui.add_automation(heartbeats | {"name": occasions.RUNS})

    _, said = (done := command(ui, GRADMILL_HOME="/srv/gradmill")).communicate(timeout=120)
    assert done.returncode == 0, said
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
        assert "gradmill up will tell its server" in said(capsys, "unschedule", "houses")


def test_trigger_and_skip_say_at_once_what_cannot_be(ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registration.register()
    with pytest.raises(UsageError, match=r"data=labelled\.csv"):
        deployments.trigger("evaluate", {"data": "labelled.csv"})
    monkeypatch.setattr(deployments, "SCHEDULER_SECONDS", 600)
    begun = time.monotonic()
    with pytest.raises(UsageError, match="no run of evaluate is to come: no active schedule"):
        skipping.skip("evaluate")
    assert time.monotonic() - begun < 300


class Killed(BaseException):
    """Where a kill would end the process."""


@pytest.mark.slow  # a registration for every request of one
def test_an_end_after_any_request_loses_nothing_and_the_next_registration_completes_it(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration.register()
    ui.add_schedule("softmax-nightly")
    ui.set("predict-daily", parameters={"parameters": {"name": "mine"}})
    request = SyncPrefectClient.request
    left = 0

    def until_killed(self: SyncPrefectClient, method: Any, *arguments: Any, **options: Any) -> httpx.Response:
        nonlocal left
        answer = request(self, method, *arguments, **options)
        left -= method in ("PATCH", "DELETE") or "/schedules" in arguments[0]
        if left < 0:
            raise Killed
        return answer

    monkeypatch.setattr(SyncPrefectClient, "request", until_killed)
    for requests in range(20):
        hour, left = requests, requests
        schedules = [{"cron": f"{hour} 3 * * *", "timezone": "UTC", "slug": "nightly"}]
        edit(home, "softmax-nightly", description=f"Take {requests}.", schedules=schedules)
        edit(
            home, "predict-daily", description=f"Take {requests}.", parameters={"parameters": {"batch_size": hour + 1}}
        )
        try:
            registration.register()
        except Killed:
            pass
        else:
            break
        assert {"15 12 24 12 *"} < set(ui.crons("softmax-nightly"))
        assert ui.deployment("predict-daily")["parameters"] == {"parameters": {"name": "mine"}}
        left = 1000
        registration.register()
        assert ui.crons("softmax-nightly") == {f"{hour} 3 * * *": True, "15 12 24 12 *": True}
        assert ui.deployment("softmax-nightly")["description"] == f"Take {requests}."
        assert [each["schedule"]["cron"] for each in Kept.of("softmax-nightly").added] == ["15 12 24 12 *"]
        assert Kept.of("predict-daily").items == {"parameters": {"parameters": {"name": "mine"}}}
    assert 2 < requests < 19, "it has been ended at every one of its requests"


@contextmanager
def killing(server: Server, child: "list[subprocess.Popen[str]]") -> Iterator[str]:
    """The address of a proxy to ``server`` that lets the first change of a deployment through and kills ``child``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.removeprefix("/api")
            json_only = {"Content-Type": "application/json"}
            answer = server.api.request(self.command, path, content=body, headers=json_only)
            if self.command == "PATCH" and path.startswith("/deployments/"):
                child[0].kill()
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PATCH(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}/api"
        proxy.shutdown()


@pytest.mark.slow  # several registrations by the command line
def test_a_killed_register_of_a_file_without_one_of_ours_loses_no_schedule(ui: Server, home: Path) -> None:
    registration.register()
    ui.add_schedule("softmax-nightly")
    for name in ("flows", "tasks"):
        (home / name).symlink_to(REPOSITORY / name)
    edit(home, "softmax-nightly", description="Another.")
    document = yaml.safe_load((home / "prefect.yaml").read_text())
    document["deployments"] = [each for each in document["deployments"] if each["name"] != "linear-weekly"]
    (home / "prefect.yaml").write_text(yaml.safe_dump(document))
    ui.api.delete(f"/deployments/{ui.deployment('linear-weekly')['id']}").raise_for_status()
    children: list[subprocess.Popen[str]] = []
    with killing(ui, children) as proxied:
        children.append(command(ui, cwd=home, PREFECT_API_URL=proxied))
        children[0].communicate(timeout=120)
    assert children[0].returncode == -signal.SIGKILL
    assert ui.deployment("softmax-nightly")["description"] == "Another."
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, "15 12 24 12 *": True}
    _, said = (done := command(ui, cwd=home)).communicate(timeout=120)
    assert done.returncode == 0, said
    assert "no deployment linear-weekly: drift of linear-regression's input will start no retrain" in said
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, "15 12 24 12 *": True}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedules": [{"cron": "0 3 * * *"}]}, "slug: Field required"),
        ({"schedules": [{"cron": "nonsense", "slug": "x"}]}, "nonsense"),
        ({"build": [{"x": {}}]}, "build: Extra inputs are not permitted"),
        ({"entrypoint": "flows/retrain.py:retrain"}, "entrypoint flows/retrain.py:retrain is none of"),
        ({"description": "{{ $NO_SUCH }}"}, "NO_SUCH is not set"),
        ({"work_pool": None}, "work_pool"),
    ],
)
def test_what_register_does_not_take_is_named(fields: dict[str, Any], words: str, home: Path) -> None:
    edit(home, "softmax-nightly", **fields)
    with pytest.raises(UsageError, match=words):
        declared(home)


def test_a_file_that_is_no_yaml_is_named(home: Path) -> None:
    for text in (b"deployments: {", b"\xff\xfe\x00", b"[]"):
        (home / "prefect.yaml").write_bytes(text)
        with pytest.raises(UsageError, match=r"prefect\.yaml is not as gradmill register takes it"):
            declared(home)


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
        assert schema(form) == parameter_schema(flow).model_dump(exclude_unset=True)


def test_an_item_is_ours_only_while_it_is_as_we_registered_it() -> None:
    registered = {name: digest(name) for name in ("equal", "ours", "theirs", "deleted")}
    wanted = {"equal": "equal", "ours": "new", "theirs": "new", "deleted": "new", "added": "new"}
    there = {"equal": "equal", "ours": "ours", "theirs": "set", "more": "set"}
    assert writable(wanted, there, registered) == ({"ours": "new", "added": "new"}, ["theirs", "deleted"])
    assert writable(wanted, there, None) == ({}, ["ours", "theirs", "deleted", "added"])


def test_what_will_not_run_is_said_at_once(ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registration.register()
    for name in NAMES[2:]:
        ui.set(name, paused=True)
    ui.set_schedule("linear-weekly", active=False)
    ui.api.patch("/work_pools/gradmill", json={"is_paused": True}).raise_for_status()
    monkeypatch.setattr(deployments, "SCHEDULER_SECONDS", 600)  # what it would wait for plans of the server
    begun = time.monotonic()
    try:
        idle = deployments.idle(registration.POOL)
        assert status().pool_paused
    finally:
        ui.api.patch("/work_pools/gradmill", json={"is_paused": False}).raise_for_status()
    assert idle == [
        ("work pool gradmill", "paused, so no run begins"),
        ("linear-weekly", "no active schedule"),
        *((name, "paused") for name in NAMES[2:]),
    ]
    assert deployments.next_runs() == []
    assert time.monotonic() - begun < 300


def test_a_run_that_never_began_gives_its_place_back(ui: Server, home: Path) -> None:
    """As after Ctrl-C while a worker was submitting it; a server that starts anew has forgotten the lease."""
    registration.register()
    weekly = f"/deployments/{ui.deployment('linear-weekly')['id']}/create_flow_run"
    first, second = (ui.api.post(weekly, json={}).raise_for_status().json()["id"] for _ in range(2))

    def submit(run: str) -> str:
        answer = ui.api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "PENDING", "name": "Submitting"}})
        return str(answer.raise_for_status().json()["state"]["name"])

    assert (submit(first), submit(second)) == ("Submitting", "AwaitingConcurrencySlot")
    deployments.give_up_what_never_began(registration.POOL)
    assert ui.api.get(f"/flow_runs/{first}").json()["state_type"] == "CRASHED"
    assert submit(second) == "Submitting"
