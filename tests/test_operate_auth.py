"""A server with basic authentication: everything works with credentials, and nothing without."""

import json
import re
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from command_line import assert_clear, gradmill
from flows.server.temporary import TemporaryServer

CREDENTIALS = "duty:correct horse"
OPEN = {"/health", "/ready"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("guarded") / "prefect.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_API_AUTH_STRING", CREDENTIALS)
        patch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{database}")
        server = TemporaryServer()
    yield server.wait()
    server.stop()


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
