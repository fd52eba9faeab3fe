"""How a run ends whose candidate was refused: in a state of its own name, told apart from what broke down."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from prefect import State
from prefect.states import Failed

from tasks.errors import GateFailed
from tasks.stage.live import REFUSED_STATE

P = ParamSpec("P")
R = TypeVar("R")


def named(run: Callable[P, R]) -> Callable[P, R]:
    """Let the flow that ``run`` becomes end as ``Refused``, of type FAILED, where a gate refuses the candidate.

    Whoever calls the flow gets the ``GateFailed`` all the same: Prefect raises what a returned state carries.
    """

    @functools.wraps(run)
    def running(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run(*args, **kwargs)
        except GateFailed as refusal:
            state: State[GateFailed] = Failed(name=REFUSED_STATE, message=str(refusal), data=refusal)
            state.state_details.retriable = False  # as Prefect says of every exception
            return cast("R", state)

    return running
