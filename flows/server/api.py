"""Requests to the configured Prefect API, limited in time, with errors explained in words for a user."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import __version__
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL, PREFECT_UI_URL
from pydantic import ValidationError

from tasks.errors import EnvironmentProblem, without_credentials

PAGE = 200  # the most rows that a server returns at a time
MEANT = "the address of a Prefect server, ending in /api, in PREFECT_API_URL"
CORRECT = "correct PREFECT_API_URL, or unset it"
SEE_ITS_LOG = "see that server's log, or set PREFECT_API_URL to another server"

Row = TypeVar("Row")


@contextmanager
def client(seconds: float | None = None) -> Iterator[SyncPrefectClient]:
    """A client of the configured API, after a check that it is a Prefect API that accepts us.

    No request begins after ``seconds``, or takes longer; the default is Prefect's PREFECT_API_REQUEST_TIMEOUT (60).
    Prefect's own client would try six times.

    Raises:
        EnvironmentProblem: it does not answer in time, or not like Prefect, or requires other credentials.
    """
    limit, statuses = seconds or PREFECT_API_REQUEST_TIMEOUT.value(), list[int]()
    until = time.monotonic() + limit

    def refuse_late(_: httpx.Request) -> None:
        if time.monotonic() > until:
            last = f"; its last answer was HTTP {statuses[-1]}" if statuses and statuses[-1] >= 400 else ""
            raise EnvironmentProblem(
                f"the Prefect API at {PREFECT_API_URL.value()} did not finish within {limit:g} s{last}",
                "all answers within PREFECT_API_REQUEST_TIMEOUT seconds in total",
                SEE_ITS_LOG,
            )

    hooks = {"request": [refuse_late], "response": [lambda answer: statuses.append(answer.status_code)]}
    settings = {"event_hooks": hooks, "timeout": limit}
    with explain_faults(others=True), get_client(httpx_settings=settings, sync_client=True) as talking:
        try:
            if talking.server_type != ServerType.CLOUD:  # Prefect Cloud is always compatible
                _require_our_version(talking)
            yield talking
        except (json.JSONDecodeError, RecursionError, ValidationError) as error:
            raise _no_prefect("its answers are not Prefect's") from error


@contextmanager
def explain_faults(others: bool = False) -> Iterator[None]:
    """Convert errors of the configured API into explanations for the user; errors of ``others`` only on request.

    Raises:
        EnvironmentProblem: in place of httpx's errors.
    """
    url = PREFECT_API_URL.value() or "the Prefect API"
    try:
        yield
    except httpx.InvalidURL as error:
        if not others:
            raise
        raise EnvironmentProblem("PREFECT_API_URL is not an address", MEANT, CORRECT) from error
    except httpx.HTTPError as error:
        if not (others or _is_of(url, error)):
            raise
        raise _in_words(url, error) from error


def _is_of(url: str, error: httpx.HTTPError) -> bool:
    try:
        return error.request.url.netloc == httpx.URL(url).netloc
    except RuntimeError:  # no request was made
        return True


def _in_words(url: str, error: httpx.HTTPError) -> EnvironmentProblem:
    if not isinstance(error, httpx.HTTPStatusError):
        return EnvironmentProblem(
            f"no Prefect server answers at {url}: {str(error) or type(error).__name__}",
            "a running Prefect server, since PREFECT_API_URL (or your Prefect profile) names it",
            "start it (gradmill up), or set or unset PREFECT_API_URL",
        )
    status, request = error.response.status_code, error.response.request
    asked = f"{request.method} {request.url.path}"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return EnvironmentProblem(
            f"the Prefect API at {url} wants credentials (HTTP {status})",
            "user:password in PREFECT_API_AUTH_STRING",
            "set it, or correct or unset PREFECT_API_URL",
        )
    if status in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
        return EnvironmentProblem(f"{url} is not a Prefect API: HTTP {status} to {asked}", MEANT, CORRECT)
    found = f"the Prefect API at {url} answers HTTP {status} {httpx.codes.get_reason_phrase(status)} to {asked}"
    return EnvironmentProblem(found, "a working server", SEE_ITS_LOG)


def _no_prefect(found: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{PREFECT_API_URL.value()} answers, but {found}", MEANT, CORRECT)


def _require_our_version(talking: SyncPrefectClient) -> None:
    """Check that a Prefect server of our major version answers; unlike ``/health``, this requires credentials."""
    answer = talking.request("GET", "/admin/version")
    if answer.history:
        raise _no_prefect(f"redirects to {answer.url.copy_with(path='/', query=None)}")
    version = str(answer.json())
    if not version[:1].isdecimal():
        raise _no_prefect("its version is not that of a Prefect server")
    if version.split(".")[0] != __version__.split(".")[0]:
        raise EnvironmentProblem(
            f"the Prefect API at {PREFECT_API_URL.value()} has version {version[:20]}",
            f"the same major version as this installation's {__version__}",
            "bring both to the same version, or set PREFECT_API_URL to another server",
        )


def read_pages(read: Callable[..., list[Row]], **conditions: Any) -> list[Row]:
    """Every row that a request for a list finds under these conditions, page by page."""
    rows: list[Row] = []
    while True:
        page = read(**conditions, limit=PAGE, offset=len(rows))
        rows += page
        if len(page) < PAGE:
            return rows


# The pages of the server


def ui() -> str:
    """The address of the UI for browsers: Prefect derives it from PREFECT_API_URL unless PREFECT_UI_URL is set."""
    return without_credentials(PREFECT_UI_URL.value() or "").rstrip("/")


def newest_artifacts(client: SyncPrefectClient, keys: list[str]) -> dict[str, UUID]:
    """The newest artifact of each key that has one, in the order of the keys.

    The UI shows it at ``/artifacts/artifact/ID``: the page of a key lists all its versions.
    """
    of_these = ArtifactCollectionFilter.model_validate({"key": {"any_": keys}})
    found = {each.key: each.latest_id for each in client.read_latest_artifacts(artifact_filter=of_these)}
    return {key: found[key] for key in keys if key in found}
