"""What makes a function a stage: a Prefect task, timed, noted in the run's folder, and reused where nothing changed."""

import functools
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE, CacheKeyFnPolicy

from tasks import artifact_paths, atomic, reuse
from tasks.errors import GateFailed
from tasks.records import FileRef, Record
from tasks.run_folder import RunFolder

P = ParamSpec("P")
R = TypeVar("R", bound=Record)
StageFunction = Callable[Concatenate[RunFolder, P], R]


def stage(*, reusable: bool = False, **task_options: Any) -> Callable[[StageFunction[P, R]], StageFunction[P, R]]:
    """Decorate a function whose first argument is the run's folder; ``task_options`` go to ``prefect.task``.

    The wrapper notes the seconds it took and the record it returned (or, of a refused candidate, the record that
    ``GateFailed`` carries) in ``run.json``. A ``reusable`` stage is not run again while its inputs, the code and the
    libraries are the same (``reuse.key``) and every file in its record is still there, bit for bit.
    ``function.__wrapped__`` is the plain function, without Prefect.
    """

    def decorate(function: StageFunction[P, R]) -> StageFunction[P, R]:
        name = function.__name__
        executed = False

        @functools.wraps(function)
        def body(run: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal executed
            executed = True
            return function(run, *args, **kwargs)

        prefect_task = task(name=name, task_run_name=name, cache_policy=NO_CACHE, **task_options)(body)

        def cached_task(refresh: bool) -> Any:
            return prefect_task.with_options(
                cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda _, inputs: reuse.key(name, inputs)),
                persist_result=True,
                result_storage=artifact_paths.stage_results(),
                result_serializer="json",
                refresh_cache=refresh,
            )

        @functools.wraps(function)
        def run_stage(run: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal executed
            executed = False
            started = time.perf_counter()
            try:
                if reusable:
                    record: R = cached_task(refresh=run.force)(run, *args, **kwargs)
                    if not executed and not all(map(_is_whole, files_of(record))):
                        record = cached_task(refresh=True)(run, *args, **kwargs)
                else:
                    record = prefect_task(run, *args, **kwargs)
            except GateFailed as refused:
                run.note("stages", name, refused.record.model_dump(mode="json"))
                raise
            finally:
                run.note("seconds", name, round(time.perf_counter() - started, 3))
            run.note("stages", name, record.model_dump(mode="json"))
            if not executed:
                print(f"{name:<10} nothing has changed: reused what an earlier run left")
            return record

        return run_stage

    return decorate


def files_of(record: Record) -> list[FileRef]:
    """Every file that a record refers to."""
    found: list[FileRef] = []
    for _, value in record:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, FileRef):
                found.append(each)
            elif isinstance(each, Record):
                found += files_of(each)
    return found


def _is_whole(file: FileRef) -> bool:
    return file.path.is_file() and atomic.file_digest(file.path) == file.sha256
