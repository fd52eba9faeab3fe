"""How often the gates are wrong, by simulation: the real gates judge made-up answers.

Nights without drift: every night another model that is as good as all before is compared with the champion, which is
the newest version, and with the best of the last comparison; test rows move on, as they do when data grow under a
window. One night: a candidate that is worse by one point of accuracy, and one with half of what can be gained over the
best constant. Rows are split by hash, by group (whose rows have something in common) and by time (autocorrelated).
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import scipy.signal
import scipy.special
from numpy.random import Generator

from benchmarks import measure
from benchmarks.measure import Ratio, Report, Side
from tasks.data.prepared_splits import Examples
from tasks.data.recipe import Column, Columns, SplitRule, Target
from tasks.data.split import encode_times
from tasks.fitting.objective import Objective
from tasks.judging.baselines import Baselines
from tasks.judging.champion import Comparison, ModelAnswers, compare_labels, compare_losses
from tasks.judging.metrics import Answers
from tasks.machine import progress, resources
from tasks.machine.arrays import Array
from tasks.parameters import Gates, Loss

NIGHTS, ROWS_A_NIGHT, WINDOW = 365, 11, 90  # so there are 990 test rows
HISTORIES, CANDIDATES, QUICK = 4, 200, 4  # of each case; QUICK times fewer
ROWS, GROUP_SIZE, FEW_ROWS = 10_000, 11, 2_000
IN_COMMON = 0.4  # deviation of what the rows of a group have in common, of 1
SPREAD = 0.16  # of models as good as each other: deviations of the target in which one errs and another does not
SCORES = 1.5  # deviation of the scores by which labels are drawn
ERROR, ERROR_OF_WORSE = 0.47, 0.65  # of models' scores: accuracies are 0.716 and 0.706
R2, DISCORDANT = 0.03, 530  # rows on which only one of two models is right
FALSE, POWER, NOISE = 0.05, 0.8, 0.95  # what is wanted
ONE_THREAD = "OPENBLAS_NUM_THREADS", "1"  # in each of the processes: they have the cores already


class Rows(NamedTuple):
    """How test rows are split, and how alike what models say of them is."""

    name: str
    rule: SplitRule
    autocorrelation: float = 0.0

    def draw(self, rng: Generator, count: int) -> Array:
        """Values ``(n,)`` of mean 0 and deviation 1, in order of time."""
        if self.rule.rule == "group":
            of_groups = rng.normal(0, IN_COMMON, -(-count // GROUP_SIZE))
            return rng.normal(0, np.sqrt(1 - IN_COMMON**2), count) + np.repeat(of_groups, GROUP_SIZE)[:count]
        noise = rng.normal(0, np.sqrt(1 - self.autocorrelation**2), count)
        noise[0] = rng.normal()
        return np.asarray(scipy.signal.lfilter([1], [1, -self.autocorrelation], noise))

    def compare(self, ours: Array, kept: dict[int, Array], truth: Array, loss: Loss, first: int = 0) -> Comparison:
        """What the gate says of losses of rows that are so many from the first."""
        at = np.arange(first, first + len(truth))
        keys = {"rows": at, "group": at // GROUP_SIZE, "time": encode_times(at.astype(float))}[self.rule.rule]
        candidate, *answers = (Answers(truth, truth, losses, truth[:0]) for losses in (ours, *kept.values()))
        versions = map(ModelAnswers, kept, answers)
        return compare_losses(candidate, versions, keys.astype(np.uint64), self.rule, Objective(loss), Gates())


SPLITS = (
    Rows("by hash", SplitRule(rule="rows", test=0.2)),
    Rows("by group", SplitRule(rule="group", test=0.2, column="group")),
    *(
        Rows(f"by time, autocorrelation {rho:g}", SplitRule(rule="time", test=0.2, column="at"), rho)
        for rho in (0, 0.25, 0.5)
    ),
)


def refuse_nights(rows: Rows, rng: Generator) -> float:
    """The share of equally good versions that are refused in so many nights."""
    count, refused = ROWS_A_NIGHT * (NIGHTS + WINDOW), 0
    truth, kept, best = rows.draw(rng, count), dict[int, Array](), None
    for night in range(NIGHTS):
        window = slice(night * ROWS_A_NIGHT, (night + WINDOW) * ROWS_A_NIGHT)
        errors = np.square(SPREAD * rows.draw(rng, count) - truth) / 2
        opponents = {max(kept), best or max(kept)} if kept else set[int]()
        versions = {number: kept[number][window] for number in sorted(opponents)}
        verdicts, found = rows.compare(errors[window], versions, truth[window], Loss.SQUARED, window.start)
        if all(verdict.passed for verdict in verdicts):
            kept, best = {number: kept[number] for number in opponents} | {night: errors}, found
        else:
            refused += 1
    return refused / NIGHTS


def refuse_worse(rows: Rows, rng: Generator) -> float:
    """Whether a candidate is refused whose accuracy is one point below that of the version that is kept."""
    best = rng.normal(0, SCORES, ROWS)
    truth = (scipy.special.expit(best + IN_COMMON * rows.draw(rng, ROWS)) > rng.random(ROWS)).astype(int)
    scores = (best + deviation * rows.draw(rng, ROWS) for deviation in (ERROR_OF_WORSE, ERROR))
    ours, kept = (np.logaddexp(0, np.where(truth, -each, each)) for each in scores)
    verdicts, _ = rows.compare(ours, {1: kept}, truth, Loss.CROSS_ENTROPY)
    return float(not verdicts[0].passed)


def refuse_labels(worse: float, rng: Generator) -> float:
    """Whether a classifier of the book's kind is refused, of ten classes, whose accuracy is so much below a kept one's.

    Each is right where the other is wrong on some of twice ``DISCORDANT`` rows.
    """
    truth, moved = np.arange(ROWS) % 10, slice(2 * DISCORDANT)
    labels = []
    for chance in (0.5 - worse * ROWS / (2 * DISCORDANT), 0.5):
        is_wrong = rng.random(2 * DISCORDANT) >= chance
        labels.append(np.concatenate([(truth[moved] + is_wrong) % 10, truth[moved.stop :]]))
    ours, kept = (Answers(truth, each, truth, truth) for each in labels)
    verdicts, _ = compare_labels(ours, [ModelAnswers(1, kept)], tuple(map(str, range(10))), Gates())
    return float(not all(verdict.passed for verdict in verdicts))


def refuse_by_baseline(r2: float, rng: Generator) -> float:
    """Whether a least-squares fit to a column that explains so much of the target is refused."""
    x = rng.normal(size=(5 * FEW_ROWS, 1)).astype(np.float32)
    y = np.sqrt(r2) * x[:, 0] + rng.normal(0, np.sqrt(1 - r2), len(x))
    keys = rng.integers(0, 2**63, len(x)).astype(np.uint64)
    test, train = (Examples(x[part], y[part], keys[part]) for part in (slice(FEW_ROWS), slice(FEW_ROWS, None)))
    slope, intercept = np.polyfit(train.inputs[:, 0].astype(np.float64), train.y_true, 1)
    target = Target(name="y", mean=float(train.y_true.mean()), scale=float(train.y_true.std()))
    recipe, objective = Columns(columns=(Column(name="x"),), target=target), Objective(Loss.SQUARED, scale=target.scale)
    baselines = Baselines.of_rows(train, test, recipe, (), objective, SPLITS[0].rule)
    scores = intercept + slope * test.inputs.astype(np.float64)
    verdicts = baselines.judge(objective.losses(scores, test.y_true), Gates())
    return float(not all(verdict.passed for verdict in verdicts))


class Case(NamedTuple):
    """What is simulated so many times, and the share of refusals that is wanted; neither: it is only told."""

    name: str
    refuse: Callable[[Generator], float]
    times: int
    note: str
    at_most: float | None = None
    at_least: float | None = None

    def ratio(self, share: float) -> list[Ratio]:
        """The share that was refused beside what is wanted of it."""
        if self.at_most is not None:
            return [measure.at_most(self.name, share, self.at_most)]
        return [] if self.at_least is None else [measure.at_least(self.name, share, self.at_least)]


def list_cases() -> list[Case]:
    """All of them."""
    nights, worse, powers = f"histories of {NIGHTS} nights", "candidates", (POWER, *[None] * 4)
    return [
        *(Case(f"no drift, {each.name}", partial(refuse_nights, each), HISTORIES, nights, FALSE) for each in SPLITS),
        *(
            Case(f"one point less accurate, {each.name}", partial(refuse_worse, each), CANDIDATES, worse, None, power)
            for each, power in zip(SPLITS, powers, strict=True)
        ),
        Case("a fit to noise", partial(refuse_by_baseline, 0.0), CANDIDATES, worse, None, NOISE),
        Case(f"a fit, R² {R2}", partial(refuse_by_baseline, R2), CANDIDATES, worse, FALSE),
        Case("the book's classes, as accurate", partial(refuse_labels, 0.0), CANDIDATES, worse, FALSE),
        Case("the book's classes, one point less", partial(refuse_labels, 0.01), CANDIDATES, worse, None, POWER),
    ]


def bench(quick: bool) -> Report:
    """Simulate everything; ``quick`` draws a fourth of it."""
    started, sides, ratios = time.perf_counter(), list[Side](), list[Ratio]()
    with (
        ProcessPoolExecutor(resources.count_cores(), get_context("spawn"), os.putenv, ONE_THREAD) as pool,
        progress.make_bar() as bar,
    ):
        for seed, case in enumerate(bar.track(list_cases(), description="bench")):
            times = case.times // (QUICK if quick else 1)
            shares = list(pool.map(partial(_simulate, case.refuse, seed), range(times)))
            share = sum(shares) / times
            note = f"of {times} {case.note}"
            sides.append(Side(name=case.name, unit="refused", figures=[share], best=share, note=note))
            ratios += case.ratio(share)
    conditions = measure.conditions(
        ("gradmill", "numpy", "scipy"),
        rows_a_night=ROWS_A_NIGHT,
        rows_of_nights=ROWS_A_NIGHT * WINDOW,
        rows=ROWS,
        rows_of_gain=FEW_ROWS,
        discordant=DISCORDANT,
        seconds=round(time.perf_counter() - started, 1),
        quick=quick,
    )
    return Report(benchmark="gates", conditions=conditions, sides=sides, ratios=ratios)


def _simulate(refuse: Callable[[Generator], float], seed: int, number: int) -> float:
    return refuse(np.random.default_rng([seed, number]))
