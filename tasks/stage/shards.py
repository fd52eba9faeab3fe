"""Work done side by side, by threads or processes of this machine or a Dask cluster: shards, and trials."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from rich.progress import ProgressColumn, Task
from rich.text import Text

from tasks.batch.results import Footer, check_rejects, read_footers
from tasks.batch.shard import predict_shard
from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine import resources
from tasks.machine.parallel import run_on_cores
from tasks.machine.run_messages import print_message
from tasks.machine.words import pip_install, pluralize
from tasks.parameters import PredictParameters, Runner, Search
from tasks.stage import live_progress
from tasks.store import artifact_paths
from tasks.store.predictions import Job, Shard

Item = TypeVar("Item")
Result = TypeVar("Result")


def check_runner(runner: Runner, dask_address: str | None) -> None:
    """Refuse a runner that is not available.

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
        try:
            distributed.Client(dask_address, set_as_default=False).close()
        except (OSError, ValueError) as error:
            raise EnvironmentProblem(
                f"no Dask scheduler at {dask_address}: {error}",
                "the address of one that runs, such as tcp://host:8786",
                "check --dask-address and the cluster",
            ) from error


@contextmanager
def open_runner(runner: Runner, dask_address: str | None, workers: int, threads: int) -> Iterator[TaskRunner[Any]]:
    """A runner with this many ``threads``, or a Dask cluster: without an address, one of ``workers`` processes here."""
    if runner is Runner.THREADS:
        with ThreadPoolTaskRunner[Any](max_workers=threads) as pool:
            yield pool
        return
    from prefect_dask.task_runners import DaskTaskRunner

    here = None if dask_address else {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with DaskTaskRunner(address=dask_address, cluster_kwargs=here) as dask:
        yield dask


@contextmanager
def open_workers(
    search: Search, work: Callable[[Item], Result], most: int
) -> Iterator[Callable[[Item], "Future[Result]"]]:
    """A function that has ``work`` done to an item by a core of this machine, ``most`` at a time, or by Dask."""
    if search.runner is Runner.THREADS:
        with run_on_cores(work, min(most, resources.count_cores()), in_processes=True) as submit:
            yield submit
        return
    with open_runner(search.runner, search.dask_address, search.workers or resources.count_cores(), 1) as dask:
        executor = dask.client.get_executor(pure=False)  # type: ignore[attr-defined]  # of a Dask runner
        yield partial(executor.submit, work)


class LabelledShard(NamedTuple):
    """One finished shard: what its part says, and when (in seconds since the epoch) it was worked on."""

    footer: Footer
    started: float
    finished: float


@task(name="label shard", task_run_name="rows {start} to {stop}", cache_policy=NO_CACHE)
def format_label(folder: str, model: str, threads: int | None, number: int, start: int, stop: int) -> LabelledShard:
    """Label one shard of the job in ``folder`` with this many threads; None means as many as Dask gave this process."""
    started = time.time()
    if threads is None:
        from distributed import get_worker

        threads = int(get_worker().state.nthreads)
    footer = predict_shard(Path(folder), Shard(number, start, stop), Path(model), threads)
    return LabelledShard(footer, started, time.time())


def label_shards(folder: Path, job: Job, parameters: PredictParameters) -> float:
    """Label every shard whose part is not there yet, and stop once too many rows are rejected.

    Returns the seconds from the first shard's start to the last part's rename.

    Raises:
        DataError: too many rows were rejected, or an input or the model has changed meanwhile.
    """
    footers, labelled = read_footers(folder, job), list[LabelledShard]()
    if footers:
        print_message(f"there already: {len(footers)} of {pluralize(len(job.shards), 'part')}")
    num_files = sum(artifact_paths.part(folder, shard.number).exists() for shard in job.shards)
    if num_files > len(footers):
        unusable = pluralize(num_files - len(footers), "part")
        print_message(f"predicted again: {unusable}, damaged or written by another release of Gradmill")
    done = sum(shard.stop - shard.start for shard in footers)
    with live_progress.count_progress("predict", job.rows, "rows predicted", done, RowsPerSecond()) as advance:
        check_rejects(folder, job, footers.values())
        with open_runner(parameters.runner, parameters.dask_address, job.workers, job.workers + 1) as runner:
            common = {
                "folder": str(folder),
                "model": str(job.model.path),  # a worker elsewhere need not know this artifacts folder
                "threads": job.workers if parameters.runner is Runner.THREADS else None,
            }
            futures = [
                runner.submit(format_label, common | shard._asdict()) for shard in job.shards if shard not in footers
            ]
            for future in as_completed(futures):
                labelled.append(future.result())
                footer = labelled[-1].footer
                footers[footer.shard] = footer
                advance(footer.rows + footer.rejects)
                check_rejects(folder, job, footers.values())
    return max((each.finished for each in labelled), default=0) - min((each.started for each in labelled), default=0)


class RowsPerSecond(ProgressColumn):
    """The speed of the work, in rows."""

    def render(self, task: Task) -> Text:
        """The mean speed so far."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "")
