"""What runs the parts of a stage side by side: threads of this process, or a Dask cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine.installing import pip_install
from tasks.parameters import Runner


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
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(
            f"no Dask scheduler at {address}: {error}",
            "the address of one that runs, such as tcp://host:8786",
            "check --dask-address and the cluster",
        ) from error
