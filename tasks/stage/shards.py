"""Shards as Prefect tasks, on threads of this process or on a Dask cluster."""

import time
from pathlib import Path
from typing import NamedTuple

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from rich.progress import ProgressColumn, Task
from rich.text import Text

from tasks.batch.output_dir import PartFooter
from tasks.batch.results import check_rejects
from tasks.batch.shard import predict_shard
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.parameters import PredictParameters, Runner
from tasks.stage import live, runners
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
    footer = predict_shard(Path(folder), Shard(number, start, stop), Path(model), threads or _threads_of_dask_worker())
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
    kept = [footer for shard in job.shards if (footer := PartFooter.read(folder, job, shard))]
    done = {footer.shard.number for footer in kept}
    rejected = sum(footer.rejects for footer in kept)
    missing = [shard for shard in job.shards if shard.number not in done]
    if kept:
        tell(f"there already: {len(kept)} of {counted(len(job.shards), 'part')}")
    labelled: list[Labelled] = []
    seen = sum(footer.rows + footer.rejects for footer in kept)
    with live.counted("predict", job.rows, "rows predicted", seen, RowsPerSecond()) as advance:
        check_rejects(folder, job, rejected)
        with runners.opened(parameters.runner, parameters.dask_address, job.workers, job.workers + 1) as runner:
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
                check_rejects(folder, job, rejected)
    return max((each.finished for each in labelled), default=0) - min((each.started for each in labelled), default=0)


class RowsPerSecond(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """The mean speed so far."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "")
