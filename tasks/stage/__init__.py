"""What makes a function a stage: a Prefect task, timed, noted in the run's folder, and reused where nothing changed."""

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from tasks.errors import GateFailed
from tasks.machine.run_messages import print_message, show_stage
from tasks.stage import cache
from tasks.store.record_base import Record
from tasks.store.run_folder import RunFolder

P = ParamSpec("P")
R = TypeVar("R", bound=Record)
StageFunction = Callable[Concatenate[RunFolder, P], R]


def stage(
    *, reusable: bool = False, show: Callable[[RunFolder, Any], None] | None = None, **task_options: Any
) -> Callable[[StageFunction[P, R]], StageFunction[P, R]]:
    """Decorate a function whose first argument is the run's folder; ``task_options`` go to ``prefect.task``.

    The wrapper notes the seconds it took and the record it returned in ``run.json``; for a refused candidate, the
    record is the one that ``GateFailed`` carries. A ``reusable`` stage is not run again while its inputs, the code and
    the libraries are the same (``cache.make_key``) and its record and every file in it are still there, bit for bit.
    ``show`` then shows what the run must display of it all the same. ``function.__wrapped__`` is the plain function.
    """

    def decorate(function: StageFunction[P, R]) -> StageFunction[P, R]:
        name, signature = function.__name__, inspect.signature(function)

        @functools.wraps(function)
        def run_or_reuse(run: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> R | State[R]:
            _, *inputs = signature.bind(run, *args, **kwargs).arguments.items()
            key = cache.make_key(name, dict(inputs))
            kept = None if run.force else cache.find_record(key, signature.return_annotation)
            if kept is not None:
                print_message("nothing has changed: reused what an earlier run left", short="unchanged: reused")
                if show:
                    show(run, kept)
                return Completed(name="Cached", data=kept)
            record = function(run, *args, **kwargs)
            cache.keep_record(key, record)
            return record

        # Prefect's own results are not used: Prefect reads what it finds under a key with the serializer that the file
        # names
        options: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False, **task_options}
        prefect_task = task(name=name, task_run_name=name, **options)(run_or_reuse if reusable else function)

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
