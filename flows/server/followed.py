"""A run that somebody waits for: until it ends, and by which exit code it would have ended as a command."""

import re
import time
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.utilities.urls import url_for

from flows.server import api
from tasks.errors import EnvironmentProblem, GateFailed, GradmillError
from tasks.stage.events import REFUSED_STATE

ASK_SECONDS = 2.0
ERROR = re.compile(r"\b(\w+): ")


def page(run: FlowRun) -> str | None:
    """The address of its page in Prefect's UI."""
    return url_for("flow-run", obj_id=run.id)


def ended(run: UUID) -> FlowRun:
    """The run once it has ended.

    Raises:
        EnvironmentProblem: the server no longer answers.
    """
    while True:
        with api.client() as client:
            found = client.read_flow_run(run)
        if found.state and found.state.is_final():
            return found
        time.sleep(ASK_SECONDS)


def exit_code(run: FlowRun) -> int:
    """By the error that its state names: what the same run as a command would have exited with."""
    state = run.state
    if state is None or state.is_completed():
        return 0
    if state.name == REFUSED_STATE:
        return GateFailed.exit_code
    codes = {each.__name__: each.exit_code for each in _kinds(GradmillError)}
    named = (codes[name] for name in ERROR.findall(state.message or "") if name in codes)
    return next(named, EnvironmentProblem.exit_code)


def _kinds(error: type[GradmillError]) -> list[type[GradmillError]]:
    return [error, *(each for inner in error.__subclasses__() for each in _kinds(inner))]
