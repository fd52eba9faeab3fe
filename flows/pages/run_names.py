"""What a run is called in the UI and in ``artifacts/runs/``; its date, its time limit, and how a refused one ends."""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.tags import DRIFT_TAG, REFUSED, VERDICT_TAG
from tasks.errors import GateFailed
from tasks.machine.settings import Settings
from tasks.parameters import EvaluateParameters, Learned, PredictParameters, RetrainParameters, TuneParameters

VERDICT = ": "  # between what a run is called from the beginning, and what it came to
VERDICTS = "published|unchanged|refused|judged|worse|as published|drift|stable|too few rows|no reference"
OF_VERDICT = re.compile(rf"{VERDICT_TAG}|{DRIFT_TAG}|(-?\d\S*|-?inf|nan) ({VERDICTS})$")  # as ``0.844 published``
AsLearned = TypeVar("AsLearned", bound=Learned)
P = ParamSpec("P")
R = TypeVar("R")


def scheduled_at() -> datetime:
    """When the run was meant to start (UTC): a retry and a late start keep it."""
    moment: datetime = flow_run.scheduled_start_time or datetime.now(UTC)
    return moment.astimezone(UTC)


def name_run_folder(subject: str) -> str:
    """``20261124T030000-softmax-regression-1f0c2b3d``: sorted by time, unique, found by the id in the UI."""
    return f"{scheduled_at():%Y%m%dT%H%M%S}-{subject}-{str(flow_run.id)[:8]}"


def name_retrain() -> str:
    """``softmax-regression concise 2026-11-24T03:00``."""
    parameters = RetrainParameters.model_validate(flow_run.parameters["parameters"])
    return f"{parameters.name} {parameters.training.implementation} {scheduled_at():%Y-%m-%dT%H:%M}"


def name_runs(kind: type[PredictParameters | EvaluateParameters | TuneParameters]) -> Callable[[], str]:
    """What names the runs of another flow, which takes parameters of this kind: ``tune digits 2026-11-24T03:00``."""

    def name() -> str:
        parameters = kind.model_validate(flow_run.parameters["parameters"])
        return f"{flow_run.flow_name} {parameters.name} {scheduled_at():%Y-%m-%dT%H:%M}"

    return name


def with_verdict(name: str, words: str) -> str:
    """A run's name that says what it came to, whatever it said of an earlier try."""
    return f"{name.partition(VERDICT)[0]}{VERDICT}{words}"


def time_limit() -> float | None:
    """The seconds that GRADMILL_TIME_LIMIT gives a run; Prefect then ends it as ``TimedOut``, a failure."""
    limit = Settings().time_limit
    return limit.total_seconds() if limit else None


def with_seed(parameters: AsLearned) -> AsLearned:
    """Replace the seed ``auto`` by the scheduled date as a number, 20261124."""
    if parameters.training.seed != "auto":
        return parameters
    training = parameters.training.model_copy(update={"seed": int(f"{scheduled_at():%Y%m%d}")})
    return parameters.model_copy(update={"training": training})


def end_as_refused(run: Callable[P, R]) -> Callable[P, R]:
    """Let the flow that ``run`` becomes end as ``Refused``, of type FAILED, where a gate refuses the candidate.

    Whoever calls the flow gets the ``GateFailed`` all the same: Prefect raises what a returned state carries.
    """

    @functools.wraps(run)
    def running(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run(*args, **kwargs)
        except GateFailed as refusal:
            state: State[GateFailed] = Failed(name=REFUSED, message=str(refusal), data=refusal)
            state.state_details.retriable = False  # as Prefect says of every exception
            return cast("R", state)

    return running
