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
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    ours = prefect.__version__
    configured = PREFECT_API_URL.value()
    if not configured:
        return ok(f"none configured: every run starts a temporary server (Prefect {ours})", client=ours, server=None)
    url = without_credentials(configured)
    try:
        with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: TIMEOUT_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}):
            theirs = _server_version()
    except EnvironmentProblem as error:  # it drips
        return problem(error.found, error.action, url=url, client=ours, server=None)
    except httpx.HTTPStatusError as error:
        return _refused(url, error.response.status_code, ours)
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # what InvalidURL says may be a piece of a password
        reason = first_line(error) if isinstance(error, httpx.HTTPError) else "not a valid address"
        found = f"{url} does not answer: {reason}"
        return problem(found, "start the server, or unset PREFECT_API_URL", url=url, client=ours, server=None)
    except ValueError:  # not JSON, or not the fields that Prefect has
        return problem(f"{url} answers, but not like Prefect", ADDRESS, url=url, client=ours, server=None)
    return _compared(url, ours, theirs)


def _server_version() -> str | None:
    """None: Prefect Cloud, which suits every client."""
    from prefect.client.base import ServerType
    from prefect.client.orchestration import get_client

    from flows.server.api import limited

    with limited(2 * TIMEOUT_SECONDS), get_client(sync_client=True) as client:
        client.read_work_pools(limit=1)  # needs credentials and the database, as a run does
        return None if client.server_type == ServerType.CLOUD else client.api_version()


def _refused(url: str, status: int, ours: str) -> Finding:
    credentials = status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    action = "set PREFECT_API_AUTH_STRING (or PREFECT_API_KEY)" if credentials else ADDRESS
    return problem(f"{url} answers HTTP {status}", action, url=url, client=ours, server=None)


def _compared(url: str, ours: str, theirs: str | None) -> Finding:
    """Prefect takes a server of the same major version that is not older than the client."""
    from packaging.version import Version

    facts: dict[str, Any] = {"url": url, "client": ours, "server": theirs}
    found = f"{url} answers: Prefect {theirs or 'Cloud'}, ours is {ours}"
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
    from tasks.data.sources import reachability

    try:
        source = reachability.source()
    except DataError as error:
        return problem(error.found, error.action, error.exit_code, source=None)
    return ok(f"{FASHION_MNIST}: {source}", source=source)
