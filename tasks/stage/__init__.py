"""What makes a function a stage: a Prefect task, timed, and noted in the run's folder."""

import functools
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from tasks.errors import GateFailed
from tasks.machine.run_messages import show_stage
from tasks.store.record_base import Record
from tasks.store.run_folder import RunFolder

P = ParamSpec("P")
R = TypeVar("R", bound=Record)
StageFunction = Callable[Concatenate[RunFolder, P], R]


def stage(**task_options: Any) -> Callable[[StageFunction[P, R]], StageFunction[P, R]]:
    """Decorate a function whose first argument is the run's folder; ``task_options`` go to ``prefect.task``.

    The wrapper notes the seconds it took and the record it returned in ``run.json``; for a refused candidate, the
    record is the one that ``GateFailed`` carries. ``function.__wrapped__`` is the plain function.
    """

    def decorate(function: StageFunction[P, R]) -> StageFunction[P, R]:
        name = function.__name__
        # No results are stored: Prefect reads what it finds under a key with the serializer that the file names.
        options: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False, **task_options}
        prefect_task = task(name=name, task_run_name=name, **options)(function)

        @functools.wraps(function)
        @show_stage(name)
        def run_stage(run: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> R:
            started, returned = time.perf_counter(), {}
            try:
                state: State[Any] = prefect_task(run, *args, return_state=True, **kwargs)
                record: R = state.result()
                returned = {name: record.model_dump(mode="json")}
            except GateFailed as refused:
                returned = {name: refused.record.model_dump(mode="json")}
                raise
            finally:  # once, since each note is forced to disk
                run.note(seconds={name: round(time.perf_counter() - started, 3)}, stages=returned)
            return record

        return run_stage

    return decorate
