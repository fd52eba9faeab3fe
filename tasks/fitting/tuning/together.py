"""Trials, as many at a time as can share their products; each is as it would be alone, whatever runs beside it."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import torch

from tasks.data.recipe import Columns
from tasks.fitting import devices
from tasks.fitting.learning import Parts
from tasks.fitting.tuning import alone, stacks
from tasks.fitting.tuning.parts import TrialParts
from tasks.fitting.tuning.stacks import Stack
from tasks.fitting.tuning.tried import ShouldStop, Tried, outcome
from tasks.machine import cores
from tasks.networks.examples import Split
from tasks.networks.tables import Table
from tasks.parameters import Training
from tasks.records import PreparedDataset


def try_out(
    trainings: Sequence[Training],
    seeds: Sequence[int],
    data: TrialParts,
    prepared: PreparedDataset,
    should_stop: ShouldStop,
) -> Iterator[Tried]:
    """Train each as a retrain would, on the parts that ``parts.of`` gives, and yield it when it ends.

    Each starts from the seed at its place. ``should_stop(index, epoch, validation loss)`` is asked after each epoch,
    from 1: of those that advance together, in the order of their index. One whose loss is not finite has diverged,
    alone.
    Losses are the network's on the validation part: cross-entropy, by class weights if there are any; of a regression,
    whatever it was trained with, half the mean squared error, in the target's units.
    """
    recipe = prepared.recipe
    if isinstance(recipe, Columns) and recipe.target is not None:
        table = cast("Parts[Table]", data)
        return _one_by_one(trainings, seeds, lambda seed: alone.OfTable(table, prepared, recipe, seed), should_stop)
    pictures_or_points = cast("Parts[Split]", data)
    if prepared.task == "regression":
        book = alone.OfBook(pictures_or_points, prepared)
        return _one_by_one(trainings, seeds, lambda _: book, should_stop)
    return _side_by_side(trainings, seeds, pictures_or_points, prepared, should_stop)


def _side_by_side(
    trainings: Sequence[Training],
    seeds: Sequence[int],
    data: Parts[Split],
    prepared: PreparedDataset,
    should_stop: ShouldStop,
) -> Iterator[Tried]:
    """An epoch of all, then the next: what a trial is compared with never depends on who was faster."""
    workers = 1 if data.train.y.is_cuda else cores.available()
    with devices.one_thread():
        advancing = stacks.of(trainings, seeds, data, prepared, workers)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        while advancing:
            longest_first = sorted(advancing, key=lambda stack: -stack.work)
            list(pool.map(Stack.advance, longest_first))
            ended = _ended(advancing, should_stop)
            advancing = [stack for stack in advancing if stack.members]
            yield from ended


def _ended(advancing: list[Stack], should_stop: ShouldStop) -> list[Tried]:
    """Those whose last epoch this was, which leave their stacks."""
    ended = {}
    for member in sorted((each for stack in advancing for each in stack.members), key=lambda each: each.index):
        how = outcome(member.index, member.losses, member.training.steps.num_epochs, should_stop)
        if how:
            ended[member.index] = Tried.of(member.index, member.losses, how, member.seconds)
    for stack in advancing:
        stack.keep([member for member in stack.members if member.index not in ended])
    return list(ended.values())


def _one_by_one(
    trainings: Sequence[Training],
    seeds: Sequence[int],
    losses_of: Callable[[int], alone.Losses],
    should_stop: ShouldStop,
) -> Iterator[Tried]:
    """``losses_of`` is asked for each seed anew: what trials of one seed share is not kept longer."""
    for seed, alike in itertools.groupby(enumerate(trainings), lambda each: seeds[each[0]]):
        losses = losses_of(seed)
        for index, training in alike:
            yield _alone(index, training, losses, seed, should_stop)


def _alone(index: int, training: Training, losses_of: alone.Losses, seed: int, should_stop: ShouldStop) -> Tried:
    started, losses, how = time.perf_counter(), [], None
    with devices.one_thread(), devices.seeded(losses_of.device, seed) as generator:
        for loss in losses_of(training, generator):
            losses.append(loss)
            how = outcome(index, losses, training.num_epochs, should_stop)
            if how:
                break
    return Tried.of(index, losses, how or "complete", time.perf_counter() - started)
