"""A server with basic authentication: everything works with credentials, and nothing without."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import yaml

from command_line import assert_clear, gradmill
from conftest import REPOSITORY
from flows.server.connection import temporary_server
from prefect_api import eventually

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
