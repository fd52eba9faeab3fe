"""What runs the parts of a stage side by side: threads or processes of this machine, or a Dask cluster."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine import cores
from tasks.machine.installing import pip_install
from tasks.machine.processes import by_all_cores
from tasks.parameters import Runner, Search

Item = TypeVar("Item")
Result = TypeVar("Result")


def check(runner: Runner, dask_address: str | None) -> None:
    """Whether it is there.

    Raises:
        UsageError: prefect-dask is not installed.
        EnvironmentProblem: no Dask scheduler answers at the address.
    """
    if runner is Runner.THREADS:
        return
    try:
        import distributed
        import prefect_dask  # noqa: F401  (is it there?)
    except ModuleNotFoundError as error:
        raise UsageError(
            "prefect-dask is not installed",
            "the extra dask, since --runner dask was given",
            pip_install("prefect-dask>=0.3"),
        ) from error
    if dask_address is not None:
        with _reaching(dask_address):
            distributed.Client(dask_address, set_as_default=False).close()


@contextmanager
def opened(runner: Runner, dask_address: str | None, workers: int, threads: int) -> Iterator[TaskRunner[Any]]:
    """So many ``threads``; or Dask, of a cluster of its own ``workers`` processes."""
    if runner is Runner.THREADS:
        with ThreadPoolTaskRunner[Any](max_workers=threads) as pool:
            yield pool
        return
    from prefect_dask.task_runners import DaskTaskRunner

    here = None if dask_address else {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with DaskTaskRunner(address=dask_address, cluster_kwargs=here) as dask:
        if dask_address:
            with _reaching(dask_address):
                _ = dask.client  # connects
        yield dask


@contextmanager
def open_workers(
    search: Search, work: Callable[[Item], Result], most: int
) -> Iterator[Callable[[Item], "Future[Result]"]]:
    """A function that has ``work`` done to an item by a core of this machine, ``most`` at a time, or by Dask."""
    if search.runner is Runner.THREADS:
        with by_all_cores(work, min(most, cores.available()), in_processes=True) as submit:
            yield submit
        return
    with opened(search.runner, search.dask_address, search.workers or cores.available(), 1) as dask:
        executor = dask.client.get_executor(pure=False)  # type: ignore[attr-defined]  # of a Dask runner
        yield partial(executor.submit, work)


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"no Dask scheduler at {address}: {error}",
            "the address of one that runs, such as tcp://host:8786",
            "check --dask-address and the cluster",
        ) from error
