"""Shards as Prefect tasks, on threads of this process or on a Dask cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from rich.progress import ProgressColumn, Task
from rich.text import Text

from tasks.batch import parts, rejects
from tasks.batch.labelling import label_shard
from tasks.errors import EnvironmentProblem, UsageError
from tasks.machine import progress
from tasks.machine.installing import pip_install
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.parameters import PredictParameters, Runner
from tasks.stage import live
from tasks.store.predictions import Job, Shard


class Labelled(NamedTuple):
    """One finished shard: its rows, and when (in seconds since the epoch) it was worked on."""

    rows: int
    rejects: int
    started: float
    finished: float


@task(name="label shard", task_run_name="rows {start} to {stop}", cache_policy=NO_CACHE)
def label(folder: str, model: str, threads: int | None, number: int, start: int, stop: int) -> Labelled:
    """Label one shard of the job in ``folder``; ``threads`` of this process do so, as many as Dask gave it if None."""
    started = time.time()
    footer = label_shard(Path(folder), Shard(number, start, stop), Path(model), threads or _threads_of_dask_worker())
    return Labelled(footer.rows, footer.rejects, started, time.time())


def _threads_of_dask_worker() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)


def label_shards(folder: Path, job: Job, parameters: PredictParameters) -> float:
    """Label every shard whose part is not there yet, and stop once too many rows are rejected.

    Returns the seconds from the first shard's start to the last part's rename.

    Raises:
        DataError: too many rows were rejected, or an input or the model has changed meanwhile.
    """
    kept = [footer for shard in job.shards if (footer := parts.read_footer(folder, job, shard))]
    done = {footer.shard.number for footer in kept}
    rejected = sum(footer.rejects for footer in kept)
    missing = [shard for shard in job.shards if shard.number not in done]
    if kept:
        tell(f"there already: {len(kept)} of {counted(len(job.shards), 'part')}")
    labelled: list[Labelled] = []
    with _progress(job.rows, sum(footer.rows + footer.rejects for footer in kept)) as advance:
        rejects.check(folder, job, rejected)
        with _runner(parameters, job.workers) as runner:
            common = {
                "folder": str(folder),
                "model": str(job.model.path),  # a worker elsewhere need not know this artifacts folder
                "threads": job.workers if parameters.runner is Runner.THREADS else None,
            }
            futures = [runner.submit(label, common | shard._asdict()) for shard in missing]
            for future in as_completed(futures):
                labelled.append(future.result())
                advance(labelled[-1].rows + labelled[-1].rejects)
                rejected += labelled[-1].rejects
                rejects.check(folder, job, rejected)
    return max((each.finished for each in labelled), default=0) - min((each.started for each in labelled), default=0)


class RowsPerSecond(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """The mean speed so far."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rows/s")


@contextmanager
def _progress(rows: int, done: int) -> Iterator[Callable[[int], None]]:
    """A bar at the terminal and an artifact in the Prefect UI; yields what counts so many rows more."""
    artifact = live.Progress(rows, "rows predicted", done)
    with progress.bar(RowsPerSecond()) as bar:
        task_id = bar.add_task("predict", total=rows, completed=done)

        def advance(more: int) -> None:
            bar.advance(task_id, more)
            artifact.update(bar.tasks[0].completed)

        yield advance
    artifact.show()


def check_runner(parameters: PredictParameters) -> None:
    """Whether what is to run the shards is there.

    Raises:
        UsageError: prefect-dask is not installed.
        EnvironmentProblem: no Dask scheduler answers at the address.
    """
    if parameters.runner is Runner.THREADS:
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
    if parameters.dask_address is not None:
        with _reaching(parameters.dask_address):
            distributed.Client(parameters.dask_address, set_as_default=False).close()


@contextmanager
def _runner(parameters: PredictParameters, workers: int) -> Iterator[TaskRunner[Any]]:
    """Threads, one more than there are cores (it waits for the disk); or Dask, one process for each core."""
    if parameters.runner is Runner.THREADS:
        with ThreadPoolTaskRunner[Any](max_workers=workers + 1) as threads:
            yield threads
        return
    from prefect_dask.task_runners import DaskTaskRunner

    address = parameters.dask_address
    here = None if address else {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with DaskTaskRunner(address=address, cluster_kwargs=here) as runner:
        if address:
            with _reaching(address):
                _ = runner.client  # connects
        yield runner


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
