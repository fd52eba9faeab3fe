"""Trials as Prefect tasks, a batch each: one after the other in this process, or side by side on a Dask cluster."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed

from tasks.fitting.tuning.batches import Batch, Ended, RunBatches
from tasks.fitting.tuning.space import in_words
from tasks.fitting.tuning.study import Asked, Study, best
from tasks.machine import cores
from tasks.machine.telling import tell
from tasks.machine.words import counted, readable
from tasks.parameters import Runner, Search
from tasks.stage import live, runners
from tasks.store.tuned import Trial


@task(name="try out", task_run_name="{title}", cache_policy=NO_CACHE, persist_result=False)
def try_out(title: str, batch: Batch, ended: Ended | None) -> list[Trial]:
    """Train a batch of trials; ``ended`` is told of each in this very process, and none elsewhere."""
    if ended is not None:
        batch.run(ended)
        return []
    os.environ["LOKY_MAX_CPU_COUNT"] = "1"  # a worker has a core: what ``cores.available`` says
    trials: list[Trial] = []
    batch.run(trials.append)
    return trials


def search(study: Study, batch: Batch, asked: Search, run: RunBatches) -> None:
    """Have trials tried out until there are as many as asked for, or the time is over; ``batch`` has none of its own.

    What each comes to is noted as soon as it has ended.
    """
    wanted = study.wanted(asked.trials)
    with live.counted("tune", wanted, "trials", len(study.trials)) as advance:

        def ended(trial: Trial) -> None:
            study.tell(trial)
            advance()
            said = _sentence(trial, best(study.trials))
            tell(said, short=said.rpartition(": ")[0])

        while time.time() < batch.deadline and (waiting := study.next(wanted, ended)):
            limits = study.limits(waiting[0].number)
            size = len(waiting) if asked.runner is Runner.THREADS else -(-len(waiting) // _workers(asked))
            pieces = [tuple(waiting[start : start + size]) for start in range(0, len(waiting), size)]
            run([replace(batch, title=_title(piece), asked=piece, limits=limits) for piece in pieces], ended)
    if len(study.trials) < wanted:
        tell(f"the time for trials is over: {len(study.trials)} of {wanted}; the same command goes on")


def shown(run: RunBatches) -> RunBatches:
    """The same with a bar for the final trainings."""

    def with_a_bar(batches: Sequence[Batch], ended: Ended) -> None:
        with live.counted("tune", sum(len(batch.asked) for batch in batches), "final trainings", 0) as advance:

            def one_more(trial: Trial) -> None:
                ended(trial)
                advance()

            run(batches, one_more)

    return with_a_bar


@contextmanager
def runner(asked: Search) -> Iterator[RunBatches]:
    """What trains batches and tells of each trial."""
    if asked.runner is Runner.THREADS:  # of which a batch has as many as there are cores

        def here(batches: Sequence[Batch], ended: Ended) -> None:
            for batch in _joined(batches):
                try_out(batch.title, batch, ended)

        yield here
        return
    with runners.opened(asked.runner, asked.dask_address, _workers(asked), 1) as dask:

        def on_dask(batches: Sequence[Batch], ended: Ended) -> None:
            futures = [dask.submit(try_out, {"title": batch.title, "batch": batch, "ended": None}) for batch in batches]
            for future in as_completed(futures):
                for trial in future.result():
                    ended(trial)

        yield on_dask


def _joined(batches: Sequence[Batch]) -> Sequence[Batch]:
    """One batch of all, whose trials share more products; each by itself where the time may be over before the end."""
    if math.isfinite(batches[0].deadline):
        return batches
    title = " to ".join(dict.fromkeys([batches[0].title, batches[-1].title]))
    return [replace(batches[0], title=title, asked=tuple(each for batch in batches for each in batch.asked))]


def _workers(asked: Search) -> int:
    return asked.workers or cores.available()


def _title(asked: Sequence[Asked]) -> str:
    first, last = asked[0].number, asked[-1].number
    return f"trials {first} to {last}" if last > first else f"trial {first}"


def _sentence(trial: Trial, so_far: Trial | None) -> str:
    """``trial 7: loss 0.4312 after 14 epochs, 0.8 s (best 0.4301, trial 3): lr 0.21, batch size 256``."""
    how = {"complete": "", "pruned": ", given up", "diverged": "diverged"}[trial.outcome]
    loss = "" if trial.validation_loss is None else f"loss {readable(trial.validation_loss)}"
    after = f"after {counted(trial.epochs, 'epoch')}, {trial.seconds:.2g} s"
    best = f" (best {readable(so_far.validation_loss or 0.0)}, trial {so_far.number})" if so_far else ""
    return f"trial {trial.number}: {loss}{how} {after}{best}: {in_words(trial.settings)}"
