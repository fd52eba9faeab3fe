"""A Prefect API that hangs, fails or is none: every command says so, in time. Small servers play it."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import httpx
import prefect
import pytest
import yaml
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings

from command_line import assert_clear, gradmill
from conftest import REPOSITORY
from duty import free_port
from flows import doctor
from flows.server import api
from flows.server.connection import temporary_server
from http_stand_ins import Answer, answered, played
from prefect_api import eventually
from tasks.errors import EnvironmentProblem
from tasks.parameters import Device

OURS = json.dumps(prefect.__version__).encode()


LONG = 600  # seconds: whoever waited for the answer would be late on any machine


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(LONG)


def fault(url: str, seconds: float = 0.5) -> EnvironmentProblem:
    """What a user is told of the API at ``url``."""
    with temporary_settings({PREFECT_API_URL: url, PREFECT_API_REQUEST_TIMEOUT: seconds}):
        begun = time.monotonic()
        with pytest.raises(EnvironmentProblem) as told, api.client():
            pass
        assert time.monotonic() - begun < seconds + LONG / 20
    return told.value


FAULTS: list[tuple[Answer, str]] = [
    (hang, "did not finish within 0.5 s"),
    (answered(500, b"{}"), "answers HTTP 500 Internal Server Error to GET /api/admin/version"),
    (answered(503), "did not finish within 0.5 s; last it answered HTTP 503"),
    (answered(401), "wants credentials"),
    (answered(404), "is no Prefect API"),
    (answered(302, Location="/loop/admin/version"), "redirects"),
    (answered(302, Location="no-such://localhost/sign-in"), "no Prefect server answers"),
    (answered(200, b"<html>Sign in</html>", Content_Type="text/html"), "its version is not that of a Prefect server"),
    (answered(200, b'"2.20.1"'), "is of version 2.20.1"),
    (answered(200, b"[" * 100_000), "its version is not that of a Prefect server"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "words"), FAULTS)
def test_a_faulty_api_is_named_in_time(answer: Answer, words: str) -> None:
    with played(answer, "/api") as url:
        told = fault(url)
    assert words in told.found
    assert url in str(told)


@pytest.mark.slow
def test_a_page_to_sign_in_no_server_and_no_address_are_explained() -> None:
    with (
        played(answered(200, b"<html>"), "/api") as page,
        played(answered(302, Location=f"{page}/sign-in?x=1"), "/api") as url,
    ):
        assert "redirects to" in fault(url).found
    for nobody in (url, "127.0.0.1:4200/api"):
        assert "no Prefect server answers" in fault(nobody, 15).found
    assert "is no address" in fault("http://127.0.0.1:port/api").found


def test_answers_that_are_not_prefects_are_explained_also_later() -> None:
    for body in (b"<html>", b"[" * 100_000):

        def half(handler: BaseHTTPRequestHandler, body: bytes = body) -> None:
            answered(200, OURS if handler.path.endswith("version") else body)(handler)

        not_prefects = pytest.raises(EnvironmentProblem, match="its answers are not Prefect's")
        with (
            played(half, "/api") as url,
            temporary_settings({PREFECT_API_URL: url}),
            not_prefects,
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


@pytest.mark.parametrize(("version", "verdict"), [("3.0.0", "note"), ("3.999.0", "ok")])
def test_doctor_notes_a_server_that_is_older(version: str, verdict: str) -> None:
    bodies = {"version": json.dumps(version).encode(), "filter": b"[]"}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = bodies.get(handler.path.rpartition("/")[2])
        answered(200 if body else 404, body or b"{}")(handler)

    with played(answer, "/api") as url, temporary_settings({PREFECT_API_URL: url}):
        found = doctor.check_prefect_api(Device.AUTO)
    assert (found.status.value, f"Prefect {version}" in found.found) == (verdict, True)


# Basic authentication: everything works with credentials, and nothing without


CREDENTIALS = "duty:correct horse"
OPEN = {"/health", "/ready"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("guarded") / "prefect.db"
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_SERVER_API_AUTH_STRING", CREDENTIALS)
            patch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{database}")
            api_url, wait = running.enter_context(temporary_server())
        wait()
        yield api_url


@pytest.mark.slow  # a server of its own, and a request to each of its routes
def test_every_route_but_health_and_readiness_asks_for_credentials(guarded: str) -> None:
    described = httpx.get(f"{guarded.removesuffix('/api')}/openapi.json", timeout=60).raise_for_status().json()
    routes = [(method, path) for path, methods in described["paths"].items() for method in methods]
    assert len(routes) > 100
    with httpx.Client(base_url=guarded, timeout=60) as client:
        answers = {
            (method, path): client.request(method, re.sub(r"\{[^}]*\}", str(UUID(int=0)), path)).status_code
            for method, path in routes
        }
    assert {path for (_, path), status in answers.items() if status != httpx.codes.UNAUTHORIZED} == OPEN


@pytest.mark.slow  # six runs of the command line, a retrain among them
def test_commands_say_that_credentials_are_missing_and_work_with_them(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", guarded)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    for command in (["retrain", "linear-regression"], ["status"]):
        done = gradmill(*command)
        assert_clear(done, 1)
        assert "PREFECT_API_AUTH_STRING" in done.stderr
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", CREDENTIALS)
    done, registered, status = (
        gradmill(*command, "--json") for command in (["retrain", "linear-regression"], ["register"], ["status"])
    )
    assert json.loads(done.stdout)["outcome"] == "published"
    assert json.loads(registered.stdout)["deployments"]
    assert json.loads(status.stdout)["models"][0]["name"] == "linear-regression"
    assert CREDENTIALS.partition(":")[2] not in done.stdout + done.stderr


@pytest.mark.slow  # a server of its own
def test_the_composed_servers_own_process_lets_no_foreign_page_or_name_in(tmp_path: Path) -> None:
    """As compose starts it, with the settings that it has there; the database is another."""
    service = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())["services"]["server"]
    program, *arguments, place = service["command"]
    assert program == "python"
    port = str(free_port())
    settings = {name: value for name, value in service["environment"].items() if name.startswith("PREFECT_")} | {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/prefect.db",
        "PREFECT_SERVER_API_AUTH_STRING": CREDENTIALS,
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(tmp_path / "ui"),
        "PREFECT_HOME": str(tmp_path),
    }
    settings = {name: value.replace("${GRADMILL_PORT:-4200}", port) for name, value in settings.items()}
    command = [sys.executable, *arguments, place.replace("0.0.0.0", "127.0.0.1").replace("4200", port)]  # noqa: S104
    url, version = f"http://127.0.0.1:{port}", "/api/admin/version"

    def status(method: str, path: str, **headers: str) -> int:
        with suppress(httpx.TransportError):
            known = httpx.BasicAuth(*CREDENTIALS.split(":", 1))
            return httpx.request(method, f"{url}{path}", headers=headers, auth=known, timeout=60).status_code
        return 0

    with subprocess.Popen(command, env=os.environ | settings) as server:
        try:
            eventually(lambda: status("GET", "/api/health") == 200, 120, "it answers")
            assert status("GET", version) == status("GET", version, Host="server:4200") == 200
            assert status("GET", version, Origin=url) == 200
            assert status("GET", version, Host="evil.example") == 400
            assert status("GET", version, Origin="http://evil.example") == 403
            assert status("POST", "/api/flows/filter") == 403, "no token: a browser adds the credential by itself"
        finally:
            server.terminate()
