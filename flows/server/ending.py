"""What ends with ``gradmill up``: its worker's runs, marked as crashed at once and named, to be retried."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, temporary_settings
from prefect.states import Crashed

from flows.server import api, deployments
from tasks.errors import EnvironmentProblem, without_credentials

SECONDS = 5.0  # that a server may take to answer: the end itself has ten
REASON = "gradmill up was ended; Retry goes on where the run was"


@contextmanager
def told(rewrite: Callable[[Iterable[UUID]], None]) -> Iterator[None]:
    """While the block ends the worker: runs that end with it are marked, and named on stderr; then ``rewrite`` pages.

    A server that does not answer then finds out by itself, by the heartbeats that are missing.
    """
    at_work: list[FlowRun] = []
    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: SECONDS}):
        with _or_later():
            at_work = _at_work()
        yield
        with _or_later():
            rewrite(_marked(at_work))


@contextmanager
def _or_later() -> Iterator[None]:
    """Whatever goes wrong is said: children are still to be ended."""
    try:
        yield
    except Exception as error:
        reason = error.found if isinstance(error, EnvironmentProblem) else f"{type(error).__name__}: {error}"
        print(f"runs that have ended are marked later: {without_credentials(reason)}", file=sys.stderr)


def _at_work() -> list[FlowRun]:
    with api.client() as client:
        begun = deployments.runs(client, "PENDING", "RUNNING", "CANCELLING")
    return [run for run in begun if _has_process(run)]


def _marked(runs: list[FlowRun]) -> list[UUID]:
    """Those that have ended; also those that Prefect has marked as crashed with words of its own."""
    ended = [run for run in runs if not _has_process(run)]
    if not ended:
        return []
    with api.client() as client:
        for run in ended:
            state = client.read_flow_run(run.id).state
            if state is None or not state.is_final() or state.is_crashed():
                client.set_flow_run_state(run.id, Crashed(message=REASON), force=True)
                print(f"ended       {run.name}: Retry in the UI goes on where it was", file=sys.stderr)
    return [run.id for run in ended]


def _has_process(run: FlowRun) -> bool:
    """Whether a process of this machine executes it: a number alone may be another machine's."""
    try:
        environment = Path(f"/proc/{run.infrastructure_pid}/environ").read_bytes()
    except OSError:
        return False
    return str(run.id).encode() in environment
