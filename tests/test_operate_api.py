"""A Prefect API that hangs, fails or is none: every command says so, in time. Small servers play it."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

import httpx
import prefect
import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings

from command_line import assert_clear, gradmill
from conftest import REPOSITORY
from duty import free_port
from flows.server import api, deployments, prefect_server
from http_stand_ins import Answer, answered, played
from tasks.errors import EnvironmentProblem

NAME = "linear-regression"
OURS = json.dumps(prefect.__version__).encode()


LONG = 600  # seconds: whoever waited for the answer would be late on any machine


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(LONG)


def ask_to_sign_in(handler: BaseHTTPRequestHandler) -> None:
    is_asked = "/sign-in" in handler.path
    (answered(200, b"<html>") if is_asked else answered(302, Location="/sign-in?x=1"))(handler)


FAULTS: list[tuple[Answer | str, str]] = [
    (hang, "did not finish within 0.5 s"),
    (answered(500, b"{}"), "answers HTTP 500 Internal Server Error to GET /api/admin/version"),
    (answered(503), "did not finish within 0.5 s; its last answer was HTTP 503"),
    (answered(401), "wants credentials"),
    (answered(404), "is not a Prefect API"),
    (answered(302, Location="/loop/admin/version"), "redirects"),
    (ask_to_sign_in, "redirects to"),
    (answered(302, Location="no-such://localhost/sign-in"), "no Prefect server answers"),
    (answered(200, b"<html>Sign in</html>", Content_Type="text/html"), "its answers are not Prefect's"),
    (answered(200, b'"2.20.1"'), "has version 2.20.1"),
    (answered(200, b"[]"), "its version is not that of a Prefect server"),
    ("http://127.0.0.1:9/api", "no Prefect server answers"),
    ("127.0.0.1:9/api", "no Prefect server answers"),
    ("http://127.0.0.1:port/api", "is not an address"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "words"), FAULTS)
def test_a_faulty_api_is_named_in_time(answer: Answer | str, words: str) -> None:
    with nullcontext(answer) if isinstance(answer, str) else played(answer, "/api") as url:
        seconds = 15 if isinstance(answer, str) else 0.5
        begun = time.monotonic()
        settings = temporary_settings({PREFECT_API_URL: url, PREFECT_API_REQUEST_TIMEOUT: seconds})
        with settings, pytest.raises(EnvironmentProblem) as told, api.client():
            pass
        assert time.monotonic() - begun < seconds + LONG / 20
    assert words in told.value.found
    assert url in str(told.value) or isinstance(answer, str)


@pytest.mark.parametrize("body", [b"<html>", b"[" * 100_000])
def test_answers_that_are_not_prefects_are_explained_also_later(body: bytes) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        answered(200, OURS if handler.path.endswith("version") else body)(handler)

    with (
        played(half, "/api") as url,
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(EnvironmentProblem, match="its answers are not Prefect's"),
        api.client() as client,
    ):
        client.read_work_pools()


def test_faults_of_other_servers_are_not_the_apis() -> None:
    another = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with another, pytest.raises(httpx.ConnectError), api.explain_faults():
        httpx.get("http://127.0.0.1:1/data")


@pytest.mark.slow  # waits for the limit of each command
def test_commands_end_in_time_whatever_the_api_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """``predict`` begins as ``retrain`` does; a company's proxy stands between none of them and this host."""
    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for command in ("trigger softmax-nightly", "register", "retrain linear-regression"):
        with played(hang, "/api") as url:
            monkeypatch.setenv("PREFECT_API_URL", url)
            done = gradmill(*command.split(), timeout=LONG / 5)
        assert_clear(done, 1)
        assert "did not finish within 2 s" in done.stderr


# The composed stack's server, whose credential everything needs


CREDENTIALS = "duty:correct horse"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its process as compose starts it, with the settings that it has there; the database is another."""
    service = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())["services"]["server"]
    folder, port = tmp_path_factory.mktemp("guarded"), str(free_port())
    settings = {name: value for name, value in service["environment"].items() if name.startswith("PREFECT_")} | {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_API_AUTH_STRING": CREDENTIALS,
        "PREFECT_API_AUTH_STRING": CREDENTIALS,
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
        "PREFECT_HOME": str(folder),
    }
    environment = {
        name: value.replace("${GRADMILL_PORT:-4200}", port).replace(":4200/", f":{port}/")
        for name, value in settings.items()
    }
    program, *arguments, place = service["command"]
    assert program == "python"
    command = [sys.executable, *arguments, place.replace("0.0.0.0", "127.0.0.1").replace("4200", port)]  # noqa: S104
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env=os.environ | environment) as server:
        try:
            prefect_server.require_answer(f"{url}/api", server, folder)
            yield f"{url}/api"
        finally:
            server.terminate()


@pytest.mark.slow  # a server of its own
def test_the_composed_servers_own_process_lets_no_foreign_page_or_name_in(guarded: str) -> None:
    url = guarded.removesuffix("/api")
    with httpx.Client(base_url=guarded, auth=httpx.BasicAuth(*CREDENTIALS.split(":")), timeout=60) as client:
        for headers, status in (
            ({}, 200),
            ({"Host": "server:4200"}, 200),
            ({"Origin": url}, 200),
            ({"Host": "evil.example"}, 400),
            ({"Origin": "http://evil.example"}, 403),
        ):
            assert client.get("/admin/version", headers=headers).status_code == status
        assert client.post("/flows/filter").status_code == 403, "no token: a browser adds the credential by itself"
    with httpx.Client(base_url=url, timeout=60) as browser:
        assert browser.get("/gradmill").status_code == 401
        browser.get("/gradmill?sign-in", auth=httpx.BasicAuth(*CREDENTIALS.split(":")))
        assert "no worker is online" in browser.get("/gradmill").text, "it asks its own server"


@pytest.mark.slow  # commands, a retrain among them
def test_commands_say_that_credentials_are_missing_and_work_with_them(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", guarded)
    monkeypatch.setenv("PREFECT_CLIENT_CSRF_SUPPORT_ENABLED", "true")  # as compose has it for the worker
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    for command in ("retrain", "status"):
        assert_clear(gradmill(command), 1, "PREFECT_API_AUTH_STRING")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", CREDENTIALS)
    done = gradmill("retrain", NAME, "--json")
    assert json.loads(done.stdout)["outcome"] == "published"
    assert CREDENTIALS.partition(":")[2] not in done.stdout + done.stderr
    for command, told in (("register", "deployments"), ("status", "models")):
        assert json.loads(gradmill(command, "--json").stdout)[told]


class TiedRuns:
    """A server on which all runs are due at once: it sorts them anew for every page, as PostgreSQL may."""

    def __init__(self, number: int) -> None:
        self.runs = [FlowRun(flow_id=uuid4(), expected_start_time=datetime.now(UTC)) for _ in range(number)]

    def read_flow_runs(self, *, sort: str, limit: int, offset: int, **_: object) -> list[FlowRun]:
        random.shuffle(self.runs)
        if sort == "ID_DESC":
            self.runs.sort(key=lambda run: run.id, reverse=True)
        return self.runs[offset : offset + limit]


def test_every_run_is_listed_once_though_many_are_due_at_once() -> None:
    server: Any = TiedRuns(3 * api.PAGE + 1)
    listed = [run.id for run in deployments.list_runs(server, "SCHEDULED")]
    assert sorted(listed) == sorted(run.id for run in server.runs)
