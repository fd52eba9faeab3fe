"""The service of an artifacts folder: how commands find it, and whom its server lets in."""

import asyncio
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from prefect.states import Running
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp

from candidate import Candidate
from command_line import assert_clear, gradmill
from duty import Duty
from flows.server import connection, overviews, up
from flows.server.prefect_server import guard
from prefect_api import eventually, own_database
from tasks.errors import DataError
from tasks.stage.live import model_resource
from tasks.store import artifact_paths, locks

NAME = "linear-regression"
API = "http://127.0.0.1:24680/api"


@pytest.fixture
def alive(artifacts: Path) -> Iterator[Callable[[connection.Service], object]]:
    """Makes it look as if a ``gradmill up`` were at work in these artifacts."""
    artifact_paths.prefect_home().mkdir(parents=True, mode=0o700)
    with artifact_paths.up_lock().open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda found: found.write(artifact_paths.service())


def test_commands_use_the_service_with_its_credential(alive: Any) -> None:
    credential, new = connection.credential()
    assert new
    alive(connection.make_service(API, own_credential=True))
    with connection.use_service():
        assert (PREFECT_API_URL.value(), PREFECT_API_AUTH_STRING.value()) == (API, credential)
        assert PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value() is None, "a run would wait for the end of their thread"
    with temporary_settings({PREFECT_API_URL: API}), connection.use_service():
        assert PREFECT_API_AUTH_STRING.value() == credential, "it is the same one"
    with temporary_settings({PREFECT_API_URL: "http://prefect.example/api"}), connection.use_service() as found:
        assert found is None
        assert PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value(), "somebody may look for them there"
        assert PREFECT_API_URL.value() == "http://prefect.example/api"
        assert not PREFECT_API_AUTH_STRING.value(), "a credential is shown to nobody else"
    with temporary_settings({PREFECT_API_URL: API, PREFECT_API_AUTH_STRING: "my:own"}), connection.use_service():
        assert PREFECT_API_AUTH_STRING.value() == "my:own"


def test_an_address_without_a_living_up_is_ignored_with_a_word_said_once(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact_paths.prefect_home().mkdir(parents=True)
    artifact_paths.up_lock().touch()
    connection.make_service(API).write(artifact_paths.service())
    assert connection.find_service() is None
    assert "of a gradmill up that was killed" in capsys.readouterr().err
    assert connection.find_service() is None
    assert capsys.readouterr().err == ""


def test_an_address_of_another_machine_is_ignored_and_one_that_all_can_reach_is_not(
    alive: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    alive(connection.make_service(API).model_copy(update={"host": "elsewhere"}))
    assert connection.find_service() is None
    assert "at work on elsewhere" in capsys.readouterr().err
    remote = connection.make_service("https://prefect.example/api/", joined=True)
    alive(remote)
    assert connection.find_service() == remote
    assert remote.api_url == "https://prefect.example/api"


@pytest.mark.parametrize("host", ["elsewhere", None])
def test_whoever_names_an_api_of_another_place_is_told_nothing_of_a_foreign_or_dead_up(
    host: str | None, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact_paths.prefect_home().mkdir(parents=True)
    with artifact_paths.up_lock().open("w") as lock:
        if host:
            fcntl.flock(lock, fcntl.LOCK_EX)
        connection.make_service(API).model_copy(update={"host": host}).write(artifact_paths.service())
        with temporary_settings({PREFECT_API_URL: "http://prefect.example/api"}), connection.use_service() as found:
            assert found is None
            assert PREFECT_API_URL.value() == "http://prefect.example/api"
    assert capsys.readouterr().err == ""


def test_a_damaged_address_is_named_but_hinders_no_promotion(alive: Any, capsys: pytest.CaptureFixture[str]) -> None:
    artifact_paths.service().write_text('{"api_url": 3}')
    with pytest.raises(DataError, match=r"service\.json"):
        connection.find_service()
    connection.announce("gradmill.model.promoted", "x", {})
    assert "gradmill.model.promoted was not sent" in capsys.readouterr().err
    alive(connection.make_service(API, own_credential=True))
    connection.announce("gradmill.model.promoted", "x", {})
    assert "the credential of gradmill up cannot be read" in capsys.readouterr().err


def test_a_credential_is_for_its_owner_alone_and_stays(artifacts: Path) -> None:
    artifact_paths.prefect_home().mkdir(parents=True)
    before = os.umask(0)
    try:
        made, new = connection.credential()
    finally:
        os.umask(before)
    kept = artifact_paths.credential()
    assert new
    assert kept.stat().st_mode & 0o777 == 0o600
    assert connection.credential() == (made, False)
    kept.chmod(0o640)
    another, new = connection.credential()
    assert new, "others could have read it"
    assert another != made
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_text("")
    assert connection.credential()[1], "an empty one is none"


def test_a_server_that_hangs_keeps_no_promotion_waiting(
    alive: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TELLING_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        alive(connection.make_service(f"http://127.0.0.1:{silent.getsockname()[1]}/api"))
        connection.announce("gradmill.model.promoted", "x", {})
    assert "gradmill.model.promoted was not sent" in capsys.readouterr().err


def answer(app: ASGIApp, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200") as client:
            return await client.get("/", headers=headers)

    return asyncio.run(ask())


def served(app: ASGIApp, **headers: str) -> int:
    return answer(app, **headers).status_code


def test_a_server_that_does_not_answer_keeps_no_child_of_up_from_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    ended = []
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), up.crash_runs_on_end():
        ended.append("worker")
    assert ended == ["worker"]
    assert "marked later: no Prefect server answers" in capsys.readouterr().err


@pytest.mark.usefixtures("prefect_api")
def test_runs_that_end_with_the_worker_are_crashed_and_their_pages_rewritten_while_the_server_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(Flow(lambda: None, name="retrain"), tags=["gradmill"], state=Running())
        process = subprocess.Popen(["sleep", "60"], env=os.environ | {"PREFECT__FLOW_RUN_ID": str(run.id)})
        client.update_flow_run(run.id, infrastructure_pid=str(process.pid))
        rewritten: list[UUID] = []
        monkeypatch.setattr(overviews, "write_of_runs", rewritten.extend)
        with up.crash_runs_on_end():
            process.kill()
            process.wait()
        assert rewritten == [run.id]
        state = client.read_flow_run(run.id).state
    assert state is not None
    assert (state.is_crashed(), state.message) == (True, up.REASON)


def test_browsers_are_told_that_its_pages_load_nothing_from_elsewhere() -> None:
    policy = answer(guard(PlainTextResponse("ok"))).headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")
    assert policy.endswith("; frame-ancestors 'self'"), "nor are they shown within pages of others"
    assert not re.search("http|[*]", policy)


def test_a_page_gets_what_keeps_advertisements_away_and_nothing_else_does() -> None:
    page = answer(guard(HTMLResponse("<p>ok</p>")))
    assert page.text.startswith("<p>ok</p><script>")
    assert int(page.headers["content-length"]) == len(page.content)
    assert answer(guard(PlainTextResponse("<p>ok</p>"))).text == "<p>ok</p>"


def test_a_server_answers_to_its_own_name_and_pages_only() -> None:
    app = guard(PlainTextResponse("ok"), ["http://127.0.0.1:4200"])
    assert served(app) == 200
    assert served(app, origin="http://127.0.0.1:4200") == 200
    for host in ("localhost:4200", "LOCALHOST:1", "127.0.0.1"):
        assert served(app, host=host) == 200, "near the end of a tunnel the port is another"
        assert served(app, host=host, origin=f"http://{host}") == 200
    for host in ("evil.example", "evil.example:4200", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[", ":"):
        assert served(app, host=host) == 400
        assert served(app, host=host, origin=f"http://{host}") == 400
    for origin in ("null", "http://evil.example", "http://localhost:3000", "https://127.0.0.1:4200", ""):
        assert served(app, origin=origin) == 403


def test_a_proxy_that_the_user_names_may_stand_before_it() -> None:
    app = guard(PlainTextResponse("ok"), ["https://models.example"])
    assert served(app, host="models.example", origin="https://models.example") == 200
    assert served(app, host="evil.example", origin="https://models.example") == 400
    everybody = guard(PlainTextResponse("ok"), ["*"])
    assert served(everybody, origin="http://evil.example") == 200
    assert served(everybody, host="evil.example") == 400


def test_a_websocket_of_a_foreign_page_is_refused_before_it_opens() -> None:
    sent: list[Any] = []
    scope = {"type": "websocket", "headers": [(b"host", b"127.0.0.1:4200"), (b"origin", b"http://evil.example")]}

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> Any:
        raise AssertionError("the server was asked")

    async def call() -> None:
        await guard(never)(scope, never, send)

    asyncio.run(call())
    assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 403)


@pytest.mark.slow
def test_without_a_server_a_promotion_says_that_nobody_was_told_and_status_asks_no_stranger(
    candidates: list[Candidate], artifacts: Path
) -> None:
    """A stranger has the port of an ``up`` that was killed; it is asked nothing."""
    for candidate in candidates[:2]:
        candidate.publish()
    artifact_paths.prefect_home().mkdir(parents=True)
    artifact_paths.up_lock().touch()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.setblocking(False)
        connection.make_service(f"http://127.0.0.1:{stranger.getsockname()[1]}/api", own_credential=True).write(
            artifact_paths.service()
        )
        done = gradmill("promote", NAME, "1")
        assert done.returncode == 0, done.stderr
        assert "of a gradmill up that was killed" in done.stderr
        assert "gradmill.model.promoted was not sent (no Prefect server is running)" in done.stderr
        asked = gradmill("status")
        assert_clear(asked, 1)
        assert asked.stdout.splitlines()[1].split()[:2] == [NAME, "1"], "the champions are shown all the same"
        assert f"no gradmill up is at work in {artifacts}" in asked.stderr
        with locks.hold_lock(artifact_paths.up_lock(), "held"):
            artifact_paths.service().unlink(missing_ok=True)
            starting = gradmill("status")
        assert_clear(starting, 1)
        assert f"the gradmill up of {artifacts} is starting, or ending" in starting.stderr
        with pytest.raises(BlockingIOError):
            stranger.accept()


own_credential = pytest.mark.skipif(
    "PREFECT_SERVER_API_AUTH_STRING" in os.environ, reason="this test run brings a credential for up"
)


@pytest.mark.slow  # a running gradmill up
def test_up_lets_in_nobody_without_credential_nor_foreign_pages_and_names(duty: Duty) -> None:
    api, known = f"{duty.ui}/api", httpx.BasicAuth(*duty.credential.split(":", 1))
    run = {"name": "x", "job_variables": {"command": "touch /tmp/x"}}
    create = f"{api}/deployments/{duty.deployment('linear-weekly')['id']}/create_flow_run"
    before = duty.triggered()
    assert httpx.get(f"{api}/admin/version").status_code == 401
    assert httpx.post(create, json=run).status_code == 403
    assert httpx.get(f"{api}/csrf-token?client=x").status_code == 401
    assert httpx.post(create, json=run, auth=known).status_code == 403, "a browser adds the credential by itself"
    assert httpx.post(create, data={"name": "x"}, auth=known, headers={"Origin": "null"}).status_code == 403
    evil = {"Origin": "http://evil.example"}
    for method in ("POST", "GET"):
        asked = httpx.options(create, headers=evil | {"Access-Control-Request-Method": method})
        assert asked.status_code == 403
        assert "access-control-allow-origin" not in asked.headers
    assert httpx.get(f"{api}/admin/version", auth=known, headers=evil).status_code == 403
    assert httpx.get(f"{api}/admin/version", auth=known, headers={"Host": "evil.example"}).status_code == 400
    assert httpx.get(f"{api}/admin/version", auth=known, headers={"Origin": duty.ui}).status_code == 200
    assert duty.triggered() == before


@pytest.mark.slow  # a running gradmill up
def test_no_process_of_up_is_counted_or_shows_the_credential_on_its_command_line_or_in_its_log(duty: Duty) -> None:
    secret = duty.credential.partition(":")[2]
    assert len(duty.family()) >= 4
    wishes = [(each.get("DO_NOT_TRACK"), each.get("ORT_DISABLE_TELEMETRY")) for each in duty.environments()]
    assert set(wishes) == {("1", "1")}
    assert not [command for command in duty.family().values() if secret in " ".join(command)]
    duty.ended(duty.trigger("linear-weekly", training={"model": NAME, "seed": 11}))
    logs = [*(duty.artifacts / ".prefect").glob("*.log"), duty.artifacts.parent / "up.log"]
    assert len(logs) == 3
    assert not [log for log in logs if secret in log.read_text()]


@pytest.mark.slow  # a running gradmill up
@own_credential
def test_the_credential_is_shown_once_and_kept_for_its_owner(duty: Duty) -> None:
    kept = duty.artifacts / ".prefect" / "credential"
    assert kept.stat().st_mode & 0o777 == 0o600
    (told,) = [line for line in duty.lines if line.startswith("sign in")]
    assert str(kept) in told, "also by one that goes on with it"


@pytest.mark.slow  # a running gradmill up
def test_a_retrain_beside_up_is_seen_in_its_ui_and_sends_its_events(duty: Duty) -> None:
    before = duty.triggered()
    done = duty.gradmill("retrain", NAME, "--name", "beside", "--no-predict", "--json")
    assert done.returncode == 0, done.stderr
    assert "temporary" not in done.stderr
    (run,) = [duty.run(each) for each in duty.triggered() - before]
    assert run["state_type"] == "COMPLETED"
    assert "model:beside" in run["tags"]
    again = duty.gradmill("retrain", NAME, "--name", "beside", "--no-predict", "--seed", "5", "--json")
    assert json.loads(again.stdout)["version"] == 2, again.stderr
    assert duty.gradmill("rollback", "beside").returncode == 0
    assert duty.gradmill("promote", "beside", "2").returncode == 0

    def told() -> set[str]:
        wanted = {"filter": {"resource": {"id": ["gradmill.model.beside"]}}}
        return {
            event["event"].removeprefix("gradmill.model.") for event in duty.post("/events/filter", wanted)["events"]
        }

    eventually(lambda: told() == {"published", "rolled-back", "promoted"}, 60, "all events are there")


@pytest.mark.slow  # a running gradmill up
def test_a_subscriber_gets_events_with_the_credential_and_none_without(duty: Duty) -> None:
    code = "from flows.server import connection; connection.announce('gradmill.model.promoted', 'somebody', {})"
    announce = [sys.executable, "-c", code]  # as a command does: other tests have left threads of Prefect's in this one

    async def follow() -> str:
        # Those of the last minute come first, and another test may have promoted a model then.
        about = EventResourceFilter(id=[model_resource("somebody")])
        wanted = EventFilter(event=EventNameFilter(name=["gradmill.model.promoted"]), resource=about)
        async with get_events_subscriber(filter=wanted) as events:
            await asyncio.to_thread(subprocess.run, announce, env=duty.environment, check=True)
            return str((await asyncio.wait_for(anext(aiter(events)), 30)).payload["name"])

    with temporary_settings({PREFECT_API_URL: f"{duty.ui}/api", PREFECT_API_AUTH_STRING: duty.credential}):
        assert asyncio.run(follow()) == "somebody"
    with (
        temporary_settings({PREFECT_API_URL: f"{duty.ui}/api", PREFECT_API_AUTH_STRING: "me:wrong"}),
        pytest.raises(Exception, match="Unable to authenticate"),
    ):
        asyncio.run(follow())


@pytest.mark.slow  # a running gradmill up
def test_a_command_elsewhere_does_not_take_up_for_its_own(duty: Duty, tmp_path: Path) -> None:
    done = duty.gradmill("status", "--artifacts", str(tmp_path / "other"))
    assert_clear(done, 1)
    assert "no gradmill up is at work" in done.stderr
    assert duty.gradmill("status", "--artifacts", str(duty.artifacts), GRADMILL_ARTIFACTS="").returncode == 0
    refused = duty.gradmill("status", PREFECT_API_URL=f"{duty.ui}/api", PREFECT_API_AUTH_STRING="me:wrong")
    assert_clear(refused, 1)
    assert "wants credentials" in refused.stderr


@pytest.mark.slow
def test_up_says_that_its_code_has_changed_and_a_run_what_is_wrong_with_its_syntax(tmp_path: Path) -> None:
    here = Path(up.__file__).parents[2]
    for folder in ("flows", "gradmill", "tasks"):
        shutil.copytree(here / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(here / "prefect.yaml", tmp_path)
    duty = Duty(tmp_path / "artifacts", own_database() | {"PYTHONPATH": str(tmp_path)})

    def attention() -> str:
        return "\n".join(json.loads(duty.gradmill("status", "--json").stdout)["attention"])

    try:
        assert "code" not in attention()
        changed = tmp_path / "flows" / "predict.py"
        changed.write_text(f"{changed.read_text()}# nothing\n")
        assert "the code has changed since gradmill up started" in attention()
        eventually(lambda: "code        the code has changed" in (tmp_path / "up.log").read_text(), 120, "it says so")
        changed.write_text("def (\n")
        assert f"no run can start: {changed}, line 1" in attention()
        ended = duty.ended(duty.trigger("predict-daily"))
        assert ended["state_type"] in ("FAILED", "CRASHED")
        said = ended["state"]["message"] + "".join(each["message"] for each in duty.logs(ended["id"]))
        assert f'File "{changed}", line 1' in said
        assert "SyntaxError" in said
    finally:
        duty.kill()
        duty.api.close()
