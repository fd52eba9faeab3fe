"""What is reached over the network: the Prefect API and the source of the data."""

from contextlib import ExitStack, suppress
from typing import Any

import httpx

from flows.doctor.findings import Finding, first_line, note, ok, problem
from flows.doctor.software import training_installed
from flows.server import service
from tasks.errors import DataError, EnvironmentProblem, GradmillError, without_credentials
from tasks.parameters import FASHION_MNIST, Device

TIMEOUT_SECONDS = 3.0
ADDRESS = "see that PREFECT_API_URL is a Prefect server's and ends in /api, and that its log tells of no fault"


def prefect_api(device: Device) -> Finding:
    """Whether the API that a run would use answers, lets us in and can read its database; its version beside ours."""
    with ExitStack() as entered:
        with suppress(GradmillError, OSError, ValueError):  # of a broken artifacts folder another finding tells
            entered.enter_context(service.in_use())
        return _prefect_api()


def _prefect_api() -> Finding:
    import prefect
    from prefect import settings

    ours, configured = prefect.__version__, settings.PREFECT_API_URL.value()
    if not configured:
        return ok(f"none configured: every run starts a temporary server (Prefect {ours})", client=ours, server=None)
    url = without_credentials(configured)
    facts: dict[str, Any] = {"url": url, "client": ours, "server": None}
    try:
        soon = {settings.PREFECT_API_REQUEST_TIMEOUT: TIMEOUT_SECONDS, settings.PREFECT_CLIENT_MAX_RETRIES: 0}
        with settings.temporary_settings(soon):
            theirs = _server_version()
    except EnvironmentProblem as error:  # it drips
        return problem(error.found, error.action, **facts)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        credentials = status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
        action = "set PREFECT_API_AUTH_STRING (or PREFECT_API_KEY)" if credentials else ADDRESS
        return problem(f"{url} answers HTTP {status}", action, **facts)
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # what InvalidURL says may be a piece of a password
        reason = first_line(error) if isinstance(error, httpx.HTTPError) else "not a valid address"
        return problem(f"{url} does not answer: {reason}", "start the server, or unset PREFECT_API_URL", **facts)
    except ValueError:  # not JSON, or not the fields that Prefect has
        return problem(f"{url} answers, but not like Prefect", ADDRESS, **facts)
    return _compared(theirs, facts | {"server": theirs})


def _server_version() -> str | None:
    """None: Prefect Cloud, which suits every client."""
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client

    from flows.server.api import limited

    with limited(2 * TIMEOUT_SECONDS), get_client(sync_client=True) as client:
        client.read_work_pools(limit=1)  # needs credentials and the database, as a run does
        return None if client.server_type == ServerType.CLOUD else client.api_version()


def _compared(theirs: str | None, facts: dict[str, Any]) -> Finding:
    """Prefect takes a server of the same major version that is not older than the client."""
    from packaging.version import Version

    ours = facts["client"]
    found = f"{facts['url']} answers: Prefect {theirs or 'Cloud'}, ours is {ours}"
    if theirs is None:
        return ok(found, **facts)
    if Version(theirs).major != Version(ours).major:
        return problem(found, f"bring both to Prefect {Version(ours).major}", **facts)
    if Version(theirs) < Version(ours):
        return note(found, "a server should not be older than its clients: upgrade the server", **facts)
    return ok(found, **facts)


def data(device: Device) -> Finding:
    """Whether a retrain would get Fashion-MNIST: from the user's folder, the cache, or over the network."""
    if not training_installed():
        return ok("none needed to predict", source=None)
    from tasks.data.book_datasets import describe_source

    try:
        source = describe_source()
    except DataError as error:
        return problem(error.found, error.action, error.exit_code, source=None)
    return ok(f"{FASHION_MNIST}: {source}", source=source)
