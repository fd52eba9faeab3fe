"""How runs begin and end: their names in the UI and in ``artifacts/runs/``, time limits, and refusal as a state."""

import functools
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar, cast

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import BaseModel

from flows.tags import DRIFT_TAG, MODEL_TAG, REFUSED, VERDICT_TAG
from tasks.errors import EnvironmentProblem, GateFailed, UsageError
from tasks.machine import resources
from tasks.machine.settings import Settings
from tasks.parameters import (
    EvaluateParameters,
    LearningParameters,
    ModelName,
    PredictParameters,
    RetrainParameters,
    TuneParameters,
)
from tasks.store import artifact_paths, identity
from tasks.store.identity import STORE_TAG
from tasks.store.run_folder import RunFolder

VERDICT = ": "  # between the initial name of a run and its outcome
REPLACED_TAGS = (MODEL_TAG, VERDICT_TAG, DRIFT_TAG)  # by an outcome; a run may have changed its model, too
AsLearned = TypeVar("AsLearned", bound=LearningParameters)
P = ParamSpec("P")
R = TypeVar("R")


def scheduled_at() -> datetime:
    """The scheduled start of the run (UTC), which a retry or a late start keeps."""
    moment: datetime = flow_run.scheduled_start_time or datetime.now(UTC)
    return moment.astimezone(UTC)


@contextmanager
def open_run(subject: str, parameters: BaseModel, leave_out: Any = None) -> Iterator[RunFolder]:
    """The folder of this run, in use during the block, with its parameters except those to ``leave_out``.

    Its name, such as ``20261124T030000-softmax-regression-1f0c2b3d``, is sorted by time, unique, and found by the id in
    the UI.

    Raises:
        EnvironmentProblem: Prefect ends the run because it could not renew its concurrency slot.
    """
    resources.keep_imports()
    name = f"{scheduled_at():%Y%m%dT%H%M%S}-{subject}-{str(flow_run.id)[:8]}"
    run = RunFolder.open(name, parameters.model_dump(mode="json", exclude=leave_out))
    with run.in_use():
        try:
            yield run
        except CancelledError as error:
            if find_exceeded_limit() is not None:
                raise
            raise EnvironmentProblem(
                "the run has lost its concurrency slot: it was stopped, or its server did not answer, for minutes",
                "a process that runs, and a server that answers, at least every few minutes",
                "start it over with Retry in Prefect's UI",
            ) from error


def name_retrain() -> str:
    """``softmax-regression concise 2026-11-24T03:00``."""
    parameters = RetrainParameters.model_validate(flow_run.parameters["parameters"])
    return f"{parameters.name} {parameters.training.implementation} {scheduled_at():%Y-%m-%dT%H:%M}"


def name_runs(kind: type[PredictParameters | EvaluateParameters | TuneParameters]) -> Callable[[], str]:
    """A function that names runs of another flow with parameters of this kind: ``tune digits 2026-11-24T03:00``."""

    def name() -> str:
        parameters = kind.model_validate(flow_run.parameters["parameters"])
        return f"{flow_run.flow_name} {parameters.name} {scheduled_at():%Y-%m-%dT%H:%M}"

    return name


def with_verdict(name: str, words: str) -> str:
    """A run's name with its outcome, which replaces that of an earlier try."""
    return f"{name.partition(VERDICT)[0]}{VERDICT}{words}"


def time_limit() -> float | None:
    """The time limit of a run in seconds (GRADMILL_TIME_LIMIT); Prefect ends it as ``TimedOut``, a failure."""
    limit = Settings().time_limit
    return limit.total_seconds() if limit else None


def find_exceeded_limit() -> float | None:
    """The time limit in seconds if this run has reached it; Prefect raises the same error for a lost slot."""
    run, limit = FlowRunContext.get(), time_limit()
    if run is None or limit is None or datetime.now(UTC) < run.start_time + timedelta(seconds=limit):
        return None
    return limit


def require_own_store() -> None:
    """Check that the deployment of this run belongs to this store, where each has an id.

    Raises:
        UsageError: it belongs to another: this worker would publish that store's models here.
    """
    ours = identity.find_id()
    for tag in flow_run.tags or () if ours else ():
        if tag.startswith(STORE_TAG) and tag != f"{STORE_TAG}{ours}":
            raise UsageError(
                f"a run of {tag} on a worker of the store {ours} in {artifact_paths.root()}",
                "a run of this store's deployments",
                "start the worker with GRADMILL_ARTIFACTS as that store has it; or take the deployments over here with "
                "gradmill register --adopt",
            )


def require_own_name(name: str) -> None:
    """Check that a run of the deployment of a user's name has the parameters of that name.

    Raises:
        UsageError: it has those of another; without any they are those of the book's model.
    """
    for tag in flow_run.tags or ():
        own = tag.removeprefix(MODEL_TAG)
        if tag.startswith(MODEL_TAG) and own not in (name, *ModelName):
            raise UsageError(
                f"a run of the deployment of {own} with the parameters of {name}",
                f"name {own} among them",
                f"start it by gradmill trigger retrain-{own}, or give all parameters of the deployment",
            )


def with_seed(parameters: AsLearned) -> AsLearned:
    """Replace the seed ``auto`` by the scheduled date as a number, such as 20261124."""
    if parameters.training.seed != "auto":
        return parameters
    training = parameters.training.model_copy(update={"seed": int(f"{scheduled_at():%Y%m%d}")})
    return parameters.model_copy(update={"training": training})


def end_as_refused(run: Callable[P, R]) -> Callable[P, R]:
    """End the flow of ``run`` as ``Refused``, of type FAILED, if a gate refuses the candidate.

    The caller of the flow still gets the ``GateFailed``: Prefect raises the error in a returned state.
    """

    @functools.wraps(run)
    def run_named(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run(*args, **kwargs)
        except GateFailed as refusal:
            state: State[GateFailed] = Failed(name=REFUSED, message=str(refusal), data=refusal)
            state.state_details.retriable = False  # as Prefect does for every exception
            return cast("R", state)

    return run_named
