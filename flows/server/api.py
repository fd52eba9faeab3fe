"""Talk with the configured Prefect API: bounded in time, and whatever goes wrong in words for a user."""

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import httpx
from prefect import __version__
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_API_URL
from pydantic import ValidationError

from flows.cli import board
from tasks.errors import EnvironmentProblem, without_credentials

SAID_AFTER_SECONDS = 5.0
MEANT = "the address of a Prefect server, ending in /api, in PREFECT_API_URL"
SEE_ITS_LOG = "see that server's log, or set PREFECT_API_URL to another server"


class _OutOfTime(BaseException):  # no Exception: Prefect's client tries again after some of these
    pass


@contextmanager
def client() -> Iterator[SyncPrefectClient]:
    """A client of the configured API, which has been seen to be one of Prefect's that lets us in.

    All of the talk together may last as long as Prefect's PREFECT_API_REQUEST_TIMEOUT (60 seconds) says: a server that
    sends a byte now and then would keep one request waiting for ever.

    Raises:
        EnvironmentProblem: it does not answer, not in time, not like Prefect, or wants other credentials.
    """
    answers: list[httpx.Response] = []
    hooks = {"event_hooks": {"response": [answers.append]}}
    with (
        explained(others=True),
        limited(PREFECT_API_REQUEST_TIMEOUT.value(), answers),
        get_client(httpx_settings=hooks, sync_client=True) as talking,
    ):
        _require_prefect(talking)
        try:
            yield talking
        except (json.JSONDecodeError, ValidationError) as error:
            raise _no_prefect("its answers are not Prefect's") from error


@contextmanager
def explained(others: bool = False) -> Iterator[None]:
    """What a fault of the configured API means for the person who called; faults of ``others`` only if told so.

    Raises:
        EnvironmentProblem: in place of httpx's errors.
    """
    url = PREFECT_API_URL.value() or "the Prefect API"
    try:
        yield
    except httpx.InvalidURL as error:
        if not others:
            raise
        raise EnvironmentProblem("PREFECT_API_URL is no address", MEANT, "set it") from error
    except httpx.HTTPError as error:
        if not (others or _of(url, error)):
            raise
        raise (
            _refused(url, error.response) if isinstance(error, httpx.HTTPStatusError) else _silent(url, error)
        ) from error


def _of(url: str, error: httpx.HTTPError) -> bool:
    try:
        return error.request.url.netloc == httpx.URL(url).netloc
    except RuntimeError:  # it never came to a request
        return True


def _silent(url: str, error: httpx.HTTPError) -> EnvironmentProblem:
    reason = str(error) or type(error).__name__
    return EnvironmentProblem(
        f"no Prefect server answers at {url}: {reason}",
        "a running Prefect server, since PREFECT_API_URL (or your Prefect profile) names it",
        "start it (gradmill up), or set or unset PREFECT_API_URL",
    )


def _refused(url: str, response: httpx.Response) -> EnvironmentProblem:
    status = response.status_code
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return EnvironmentProblem(
            f"the Prefect API at {url} wants credentials (HTTP {status})",
            "user:password in PREFECT_API_AUTH_STRING",
            "set it, or set or unset PREFECT_API_URL",
        )
    asked = f"{response.request.method} {response.request.url.path}"
    if status in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
        return EnvironmentProblem(f"{url} is no Prefect API: HTTP {status} to {asked}", MEANT, "set it")
    reason = httpx.codes.get_reason_phrase(status)
    return EnvironmentProblem(
        f"the Prefect API at {url} answers HTTP {status} {reason} to {asked}", "a server in order", SEE_ITS_LOG
    )


def _no_prefect(found: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{PREFECT_API_URL.value()} answers, but {found}", MEANT, "set it")


def _require_prefect(talking: SyncPrefectClient) -> None:
    """See that a Prefect server of our major version answers; unlike ``/health``, this asks for credentials."""
    if talking.server_type == ServerType.CLOUD:  # which is always compatible
        return
    answer = talking.request("GET", "/admin/version")
    if answer.history:
        raise _no_prefect(f"sends us on to {answer.url.copy_with(path='/', query=None)}")
    try:
        version = answer.json()
    except ValueError:
        version = None
    if not isinstance(version, str) or not version[:1].isdecimal():
        raise _no_prefect("not with Prefect's version")
    if version.split(".")[0] != __version__.split(".")[0]:
        raise EnvironmentProblem(
            f"the Prefect API at {PREFECT_API_URL.value()} is of version {version[:20]}",
            f"the major version of this installation's {__version__}",
            "bring both to the same version, or set PREFECT_API_URL to another server",
        )


@contextmanager
def limited(seconds: float, answers: Sequence[httpx.Response] = ()) -> Iterator[None]:
    """End the talk inside after ``seconds``, and tell the user early that an answer is waited for.

    The last of ``answers`` tells more where the client has tried again and again, as it does at HTTP 503.

    By a signal, which ends also a read that has received a little: so in the main thread only.

    Raises:
        EnvironmentProblem: the time is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    url, soon = PREFECT_API_URL.value(), min(seconds / 2, SAID_AFTER_SECONDS)
    said = False

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal said
        if said:
            raise _OutOfTime
        said = True
        if board.shown():  # which counts the seconds
            return
        text = f"waiting for {without_credentials(str(url))}, at most {seconds:g} s\n"
        with suppress(OSError):
            os.write(2, text.encode())  # not print: what the signal interrupts may be writing to the same stream

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, soon, seconds - soon)
    try:
        yield
    except _OutOfTime as error:
        last = f"; last it answered HTTP {answers[-1].status_code}" if answers and answers[-1].is_error else ""
        raise EnvironmentProblem(
            f"the Prefect API at {url} is not done after {seconds:g} s{last}",
            "answers within PREFECT_API_REQUEST_TIMEOUT seconds, all together",
            SEE_ITS_LOG,
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
