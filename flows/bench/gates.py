"""How often the gates against kept versions are wrong, by simulation: the real gates judge made-up answers.

Candidates that are as good as what is kept should seldom be refused, truly worse ones mostly. The book's data are
judged by accuracy and recall, own data by log loss or squared error.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import scipy.special
from numpy.random import Generator
from tasks.judging.candidate import Measured
from tasks.judging.champion_loss import ComparedRows
from tasks.judging.judges import JUDGES

from flows.bench import measure
from flows.bench.measure import Ratio, Report, Side
from tasks.judging import champion_loss
from tasks.judging.objective import Objective
from tasks.machine import cores, progress
from tasks.machine.arrays import Array
from tasks.parameters import Gates, Loss

Judged = Callable[[Generator], bool]  # whether one candidate is refused

ROWS, FEW_ROWS = 10_000, 1_000  # below 10,000 p is found by random signs, not by the normal approximation
KEPT = (1, 10, 100)
TIMES = {1: 1000, 10: 500, 100: 200}  # candidates, by the number of kept versions
QUICK = 5  # times fewer
ONE_THREAD = "OPENBLAS_NUM_THREADS", "1"  # in each of the processes: they have the cores already
FALSE, POWER = 0.05, 0.8
DISCORDANT = 530  # rows on which only one of two equally good models is right
SPREAD = {"log loss": 0.47, "squared error": 0.16}  # of equally good models; the losses of a row differ by 0.23 or so
WORSE = {"log loss": 0.01, "squared error": 0.01}  # nats, or of half a squared error of 0.5: 2 %
OF_GROUP = 0.4  # spread of what the rows of a group have in common, in their truth as in what models say of them


class Case(NamedTuple):
    """Candidates of one kind, and the share of them that may, or should, be refused; neither: to compare with."""

    name: str
    is_refused: Judged
    times: int
    at_most: float | None = None
    at_least: float | None = None

    def ratios(self, share: float, chance: float) -> Iterator[Ratio]:
        """The share that was refused, beside what is wanted of it; ``chance`` is how far it may be off."""
        if self.at_most is not None:
            yield measure.at_most(self.name, share, self.at_most + chance)
        if self.at_least is not None:
            yield measure.at_least(self.name, share, self.at_least - chance)


def bench(quick: bool) -> Report:
    """Simulate everything; ``quick`` draws a fifth of the candidates, so bounds allow for chance."""
    started, sides, ratios = time.perf_counter(), list[Side](), list[Ratio]()
    with (
        ProcessPoolExecutor(cores.available(), get_context("spawn"), os.putenv, ONE_THREAD) as pool,
        progress.bar() as bar,
    ):
        for seed, case in enumerate(bar.track(list(_cases()), description="bench")):
            times = case.times // (QUICK if quick else 1)
            share = _share(pool, case.is_refused, times, seed)
            note = f"of {times} candidates"
            sides.append(Side(name=case.name, unit="refused", figures=[share], best=share, note=note))
            ratios += case.ratios(share, 1 / np.sqrt(times) if quick else 0.0)
    seconds = round(time.perf_counter() - started, 1)
    conditions = measure.conditions(
        ("gradmill", "numpy", "scipy"), rows=ROWS, discordant=DISCORDANT, seconds=seconds, quick=quick
    )
    return Report(benchmark="gates", conditions=conditions, sides=sides, ratios=ratios)


def _share(pool: ProcessPoolExecutor, is_refused: Judged, times: int, seed: int) -> float:
    """How many of so many candidates are refused; each has a seed of its own."""
    found = pool.map(partial(_one, is_refused, seed), range(times), chunksize=max(1, times // 40))
    return sum(found) / times


def _one(is_refused: Judged, seed: int, number: int) -> bool:
    return is_refused(np.random.default_rng([seed, number]))


def _cases() -> Iterator[Case]:
    for kept in KEPT:
        name, times = f"accuracy, as good as {kept} kept", TIMES[kept]
        yield Case(name, partial(by_accuracy, kept, 10, DISCORDANT), times, at_most=FALSE)
    for kept in KEPT[1:]:
        name, times = f"accuracy, as good as {kept} kept, the best of them alone", TIMES[kept]
        yield Case(name, partial(by_accuracy, kept, 10, DISCORDANT, best_alone=True), times)
    for figure in SPREAD:
        for kept in KEPT:
            yield Case(f"{figure}, as good as {kept} kept", partial(by_loss, figure, kept), TIMES[kept], at_most=FALSE)
    few = partial(by_loss, "log loss", 10, rows=FEW_ROWS)
    yield Case(f"log loss, as good as 10 kept, {FEW_ROWS:,} rows", few, TIMES[10], at_most=FALSE)
    groups = "log loss, as good as 1 kept, 100 groups of 100 rows"
    yield Case(groups, partial(by_loss, "log loss", 1, groups=100), TIMES[1], at_most=FALSE)
    yield Case(f"{groups}, row by row", partial(by_loss, "log loss", 1, groups=100, by_row=True), TIMES[1])
    for kept, classes, discordant in ((1, 2, 1000), (1, 10, 700), (100, 2, 400), (100, 10, 400)):
        name = f"accuracy, a point worse than {kept} kept, {classes} classes, {discordant} discordant rows"
        worse = partial(by_accuracy, kept, classes, discordant, worse=0.01)
        yield Case(name, worse, TIMES[kept] // 2, at_least=POWER)
    for figure, amount in {"log loss": "0.01 nats", "squared error": "2 %"}.items():
        for kept in KEPT:
            worse = partial(by_loss, figure, kept, worse=WORSE[figure])
            yield Case(f"{figure}, {amount} worse than {kept} kept", worse, TIMES[kept] // 2, at_least=POWER)


def by_accuracy(
    kept: int, num_classes: int, discordant: int, rng: Generator, worse: float = 0.0, best_alone: bool = False
) -> bool:
    """Whether a candidate is refused whose true accuracy is ``worse`` by so much.

    Kept versions are right by chance on half of twice ``discordant`` rows, and on all others; so any two differ on that
    many.
    """
    truth, names = (np.arange(ROWS) % num_classes).astype(np.int8), tuple(map(str, range(num_classes)))
    chance = np.full((kept + 1, 1), 0.5)
    chance[0] -= worse * ROWS / (2 * discordant)
    labels, differ = np.tile(truth, (kept + 1, 1)), slice(2 * discordant)
    labels[:, differ] = (truth[differ] + (rng.random((kept + 1, 2 * discordant)) >= chance)) % num_classes
    ours, *others = (Measured(at, each) for at, each in enumerate(labels))
    if best_alone:
        others = [max(others, key=lambda each: np.count_nonzero(each.output == truth))]
    verdicts = JUDGES["classification"].against_kept(ours, others, truth, names, Gates())
    return not all(verdict.passed for verdict in verdicts)


def by_loss(
    figure: str,
    kept: int,
    rng: Generator,
    rows: int = ROWS,
    worse: float = 0.0,
    groups: int = 0,
    by_row: bool = False,
) -> bool:
    """Whether a candidate is refused whose true mean loss is ``worse`` by so much.

    All models are a best one with an error of their own, of ``SPREAD``. ``groups`` have as many rows each.
    """
    members = np.repeat(np.arange(groups), rows // groups) if groups else np.arange(rows)
    in_common = rng.normal(0, OF_GROUP, groups)[members] if groups else 0.0
    if figure == "log loss":
        objective, best = Objective(Loss.CROSS_ENTROPY), rng.normal(0, 1.5, rows)
        truth = (rng.random(rows) < scipy.special.expit(best + in_common)).astype(int)
    else:
        objective, best, truth = Objective(Loss.SQUARED), np.zeros(rows), rng.normal(size=rows)

    def losses() -> Array:
        answer = best + rng.normal(0, SPREAD[figure], rows)
        answer += rng.normal(0, OF_GROUP, groups)[members] if groups else 0.0
        if objective.is_of_classes:
            return np.asarray(np.log(1 + np.exp(np.where(truth, -answer, answer))))
        return np.asarray((answer - truth) ** 2 / 2)

    compared = ComparedRows(truth, members if groups and not by_row else None, bool(groups) and not by_row)
    ours, others = Measured(None, losses() + worse), (Measured(at, losses()) for at in range(kept))
    return not champion_loss.against_kept(ours, others, compared, objective, Gates())[0].passed
