"""Prefect servers as tests need them: on which database, and what they answer to plain HTTP."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from prefect.settings import Settings

CSRF_CLIENT = "tests"
BUSY_POSTGRESQL = (500, 503, 504)  # as docker/compose.yaml has it: no connection is left, or no time
DATABASE = "GRADMILL_TEST_DATABASE_URL"  # of a PostgreSQL server's own database; unset: SQLite


def eventually(condition: Callable[[], Any], seconds: float, what: str = "", patience: int = 4) -> Any:
    """What the condition gives, once it holds: within these seconds, and so many times as long on a busy machine."""
    deadline = time.monotonic() + patience * seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {patience * seconds} s: {what or condition}")


@contextmanager
def use_server(settings: "Settings") -> Iterator[None]:
    """Let flows in this process run on the server that these settings name."""
    from prefect.context import SettingsContext, get_settings_context

    with SettingsContext(profile=get_settings_context().profile, settings=settings):
        yield


def own_database() -> dict[str, str]:
    """Settings that give a server a database of its own, where this test run is told to use PostgreSQL."""
    base = os.environ.get(DATABASE)
    if base is None:
        return {}
    name = f"gradmill_{secrets.token_hex(4)}"
    _execute(base, f"CREATE DATABASE {name}")
    url = f"{base.rpartition('/')[0]}/{name}"
    again = ",".join(map(str, BUSY_POSTGRESQL))
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url, "PREFECT_CLIENT_RETRY_EXTRA_CODES": again}


def _execute(database: str, statement: str) -> None:
    import asyncpg

    async def execute() -> None:
        connection = await asyncpg.connect(database.replace("+asyncpg", ""))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(execute())


class RetryingClient(httpx.Client):
    """Asks again while the database is busy: SQLite answers 503 while it writes; Prefect's own client waits, too.

    Like Prefect's own, it gets itself a token where the server has CSRF protection.
    """

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        for _ in range(40):
            request.headers.update(self.headers)
            answer = super().send(request, **options)
            if answer.status_code == httpx.codes.FORBIDDEN and "CSRF" in answer.text:
                token = self.get("/csrf-token", params={"client": CSRF_CLIENT}).raise_for_status().json()["token"]
                self.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": CSRF_CLIENT})
            elif answer.status_code in (BUSY_POSTGRESQL if DATABASE in os.environ else (503,)):
                time.sleep(0.5)
            else:
                break
        return answer


def api_client(api: str, credential: str | None = None) -> httpx.Client:
    """A plain HTTP client, with the given credential or that of this test run if it has any."""
    known = credential or os.environ.get("PREFECT_API_AUTH_STRING")
    auth = httpx.BasicAuth(*known.split(":", 1)) if known else None
    fresh = httpx.Limits(max_keepalive_connections=0)  # else the server ends an idle one just as it is used again
    return RetryingClient(base_url=api, auth=auth, timeout=180, limits=fresh)


def wait_for(api: str, path: str, document: dict[str, Any], wanted: Callable[[Any], bool] = lambda _: True) -> Any:
    """What of the server's answer is ``wanted``, once it is there: events and artifacts arrive a little later."""

    def found() -> list[Any]:
        answer = post(api, path, document)
        return [each for each in (answer["events"] if isinstance(answer, dict) else answer) if wanted(each)]

    return eventually(found, 60, f"{path} has it")[0]


def post(api: str, path: str, document: dict[str, Any]) -> Any:
    """The server's answer."""
    with api_client(api) as client:
        return client.post(f"/{path}", json=document).raise_for_status().json()
