"""What makes a function a stage: a Prefect task, timed, whose outcome is noted in the run's folder."""

import functools
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.errors import GateFailed
from tasks.records import Record
from tasks.run_folder import RunFolder

P = ParamSpec("P")
R = TypeVar("R", bound=Record)
StageFunction = Callable[Concatenate[RunFolder, P], R]


def stage(**task_options: Any) -> Callable[[StageFunction[P, R]], StageFunction[P, R]]:
    """Decorate a function whose first argument is the run's folder; ``task_options`` go to ``prefect.task``.

    The wrapper notes the seconds it took and the record it returned (or, of a refused candidate, the record that
    ``GateFailed`` carries) in ``run.json``. ``function.__wrapped__`` is the plain function, without Prefect.
    """

    def decorate(function: StageFunction[P, R]) -> StageFunction[P, R]:
        name = function.__name__
        prefect_task = task(name=name, cache_policy=NO_CACHE, **task_options)(function)

        @functools.wraps(function)
        def run_stage(run: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> R:
            started = time.perf_counter()
            try:
                record: R = prefect_task(run, *args, **kwargs)
            except GateFailed as refused:
                run.note("stages", name, refused.record.model_dump(mode="json"))
                raise
            finally:
                run.note("seconds", name, round(time.perf_counter() - started, 3))
            run.note("stages", name, record.model_dump(mode="json"))
            return record

        return run_stage

    return decorate
