"""A Prefect API that hangs, fails or is none: every command says so, in time. Small servers play it."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import httpx
import prefect
import pytest
import yaml
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, temporary_settings

from command_line import GRADMILL, assert_clear, gradmill
from conftest import REPOSITORY
from flows import doctor
from flows.server import api, environment
from flows.server.connection import temporary_server
from prefect_api import eventually
from tasks.errors import EnvironmentProblem
from tasks.parameters import Device

Answer = Callable[[BaseHTTPRequestHandler], None]
OURS = json.dumps(prefect.__version__).encode()


@contextmanager
def played(answer: Answer) -> Iterator[str]:
    """The address of an API that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        server.block_on_close = False


def answered(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (hang, "is not done after 0.5 s"),
        (answered(500, b"{}"), "answers HTTP 500 Internal Server Error to GET /api/admin/version"),
        (answered(502), "is not done after 0.5 s; last it answered HTTP 502"),
        (answered(503), "is not done after 0.5 s; last it answered HTTP 503"),
        (answered(401), "wants credentials"),
        (answered(404), "is no Prefect API"),
        (answered(302, Location="/loop/admin/version"), "redirects"),
        (answered(200, b"<html>Sign in</html>", Content_Type="text/html"), "not with Prefect's version"),
        (answered(200, b'"2.20.1"'), "is of version 2.20.1"),
        (answered(200, b"[" * 100_000), "not with Prefect's version"),
    ],
)
def test_a_faulty_api_is_named_in_time(answer: Answer, words: str) -> None:
    with played(answer) as url:
        told = fault(url)
    assert words in told.found
    assert url in str(told)


def test_a_sign_in_page_behind_a_redirect_is_no_prefect() -> None:
    with played(answered(200, b"<html>")) as page, played(answered(302, Location=f"{page}/sign-in?x=1")) as url:
        assert "sends us on to" in fault(url).found
    with played(answered(302, Location="no-such://localhost/sign-in")) as url:
        assert "no Prefect server answers" in fault(url).found


def test_answers_that_are_not_prefects_are_explained_also_later() -> None:
    for body in (b"<html>", b"[" * 100_000):

        def half(handler: BaseHTTPRequestHandler, body: bytes = body) -> None:
            answered(200, OURS if handler.path.endswith("version") else body)(handler)

        not_prefects = pytest.raises(EnvironmentProblem, match="its answers are not Prefect's")
        with played(half) as url, temporary_settings({PREFECT_API_URL: url}), not_prefects, api.client() as client:
            client.read_work_pools()


@pytest.mark.slow
def test_no_server_and_no_address_are_explained() -> None:
    with played(hang) as url:
        pass
    assert "no Prefect server answers" in fault(url, 15).found
    assert "no Prefect server answers" in fault("127.0.0.1:4200/api").found
    assert "is no address" in fault("http://127.0.0.1:port/api").found


def test_faults_of_other_servers_are_not_the_apis() -> None:
    another = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with another, pytest.raises(httpx.ConnectError), api.explain_faults():
        httpx.get("http://127.0.0.1:1/data")


@pytest.mark.slow  # waits for the limit of each command
def test_commands_end_in_time_whatever_the_api_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """``predict`` begins as ``retrain`` does; a company's proxy stands between none of them and this host."""
    monkeypatch.setenv("PREFECT_API_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with played(hang) as hanging, played(answered(500)) as failing:
        wanted = [
            ("trigger softmax-nightly", hanging, "is not done after 2 s"),
            ("register", hanging, "is not done after 2 s"),
            ("retrain linear-regression", hanging, "is not done after 2 s"),
            ("status", failing, "answers HTTP 500"),
        ]
        begun = time.monotonic()
        running = [
            subprocess.Popen(
                [GRADMILL, *command.split()],
                env=os.environ | {"PREFECT_API_URL": url},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for command, url, _ in wanted
        ]
        for process, (_, _, words) in zip(running, wanted, strict=True):
            stdout, stderr = process.communicate(timeout=LONG / 5)
            assert_clear(subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr), 1)
            assert words in stderr
        assert time.monotonic() - begun < LONG / 5


@pytest.mark.parametrize(("version", "verdict"), [("3.0.0", "note"), ("3.999.0", "ok")])
def test_doctor_notes_a_server_that_is_older(version: str, verdict: str) -> None:
    bodies = {"version": json.dumps(version).encode(), "filter": b"[]"}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = bodies.get(handler.path.rpartition("/")[2])
        answered(200 if body else 404, body or b"{}")(handler)

    with played(answer) as url, temporary_settings({PREFECT_API_URL: url}):
        found = doctor.prefect_api(Device.AUTO)
    assert (found.status.value, f"Prefect {version}" in found.found) == (verdict, True)


def test_a_proxy_never_stands_between_us_and_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    environment.spare_this_host()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "127.0.0.1,localhost,::1"
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("NO_PROXY", "intern.example, localhost")
    environment.spare_this_host()
    assert os.environ["no_proxy"] == "intern.example,localhost,127.0.0.1,::1"
    monkeypatch.setenv("no_proxy", "*")
    environment.spare_this_host()
    assert os.environ["no_proxy"] == "*"


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
    done = gradmill("retrain", "linear-regression", "--json")
    assert json.loads(done.stdout)["outcome"] == "published"
    assert json.loads(gradmill("register", "--json").stdout)["deployments"]
    (model,) = json.loads(gradmill("status", "--json").stdout)["models"]
    assert model["name"] == "linear-regression"
    for run in (done.stdout, done.stderr):
        assert CREDENTIALS.partition(":")[2] not in run


@pytest.mark.slow  # a server of its own
def test_the_composed_servers_own_process_lets_no_foreign_page_or_name_in(tmp_path: Path) -> None:
    """As compose starts it, with the settings that it has there; the database is another."""
    service = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())["services"]["server"]
    program, *arguments, place = service["command"]
    assert program == "python"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    settings = {name: value for name, value in service["environment"].items() if name.startswith("PREFECT_")}
    settings |= {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{tmp_path}/prefect.db",
        "PREFECT_SERVER_API_AUTH_STRING": CREDENTIALS,
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(tmp_path / "ui"),
        "PREFECT_HOME": str(tmp_path),
    }
    settings = {name: value.replace("${GRADMILL_PORT:-4200}", port) for name, value in settings.items()}
    command = [sys.executable, *arguments, place.replace("0.0.0.0", "127.0.0.1").replace("4200", port)]  # noqa: S104
    with subprocess.Popen(command, env=os.environ | settings) as server:
        try:
            url, known = f"http://127.0.0.1:{port}", httpx.BasicAuth(*CREDENTIALS.split(":", 1))

            def is_up() -> bool:
                with suppress(httpx.TransportError):
                    return httpx.get(f"{url}/api/health", timeout=60).status_code == 200
                return False

            eventually(is_up, 120, "it answers")

            def status(method: str, path: str, **headers: str) -> int:
                return httpx.request(
                    method, f"{url}{path}", headers=headers, auth=known, json={}, timeout=60
                ).status_code

            version = "/api/admin/version"
            assert status("GET", version) == status("GET", version, Host="server:4200") == 200
            assert status("GET", version, Origin=url) == 200
            assert status("GET", version, Host="evil.example") == 400
            assert status("GET", version, Origin="http://evil.example") == 403
            assert status("POST", "/api/flows/filter") == 403, "no token: a browser adds the credential by itself"
        finally:
            server.terminate()
