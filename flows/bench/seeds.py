"""How often gates refuse a model that differs from a kept one in its seed only: the book's, trained from ten seeds."""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tasks.judging.candidate import Measured
from tasks.judging.judges import JUDGES

from flows.bench import images, measure
from flows.bench.growth import CPU
from flows.bench.measure import Report, Side
from tasks.data.prepared_splits import read_split
from tasks.fitting import devices, learning
from tasks.fitting.building import build
from tasks.machine import progress
from tasks.networks.training import outputs
from tasks.parameters import Gates, RetrainParameters
from tasks.records import PreparedDataset
from tasks.serving.task import TaskName

SEEDS, FEW = range(10), range(3)
SHIRT = 6  # of Fashion-MNIST's classes
TRAININGS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "softmax, cosine": {"schedule": "cosine", "lr": 0.5, "num_epochs": 20},
    "linear": {"model": "linear-regression"},
}


class Judged(NamedTuple):
    """Models of one training that differ in the seed, and their verdicts on each other."""

    name: str
    answers: list[NDArray[Any]]  # of each seed on the test split ``(n,)``
    truth: NDArray[Any]
    class_names: tuple[str, ...]

    def refusing(self, candidate: int, kept: Sequence[int]) -> set[str]:
        """The gates that refuse a candidate where these are kept."""
        ours, *others = (Measured(at, self.answers[at]) for at in (candidate, *kept))
        task: TaskName = "classification" if self.class_names else "regression"
        verdicts = JUDGES[task].against_kept(ours, others, self.truth, self.class_names, Gates())
        return {verdict.name for verdict in verdicts if not verdict.passed}

    def sides(self) -> Iterator[Side]:
        """How many ordered pairs are refused, and by what; how many of those that come one after another."""
        numbers = range(len(self.answers))
        pairs = [self.refusing(one, [other]) for one, other in itertools.permutations(numbers, 2)]
        yield _side(f"{self.name}: pairs refused", "refused", [sum(map(bool, pairs))], f"of {len(pairs)}")
        for gate in sorted(set[str]().union(*pairs)):
            count = sum(gate in refused for refused in pairs)
            yield _side(f"{self.name}: pairs refused by {gate}", "refused", [count])
        kept = [numbers[0]]
        for number in numbers[1:]:
            kept += [] if self.refusing(number, kept) else [number]
        refused = len(numbers) - len(kept)
        yield _side(f"{self.name}: refused in order", "refused", [refused], f"of {len(numbers) - 1}")
        if self.class_names:
            right = [each == self.truth for each in self.answers]
            yield from _range(f"{self.name}: test accuracy", [each.mean() for each in right])
            yield from _range(f"{self.name}: recall of shirt", [each[self.truth == SHIRT].mean() for each in right])


def bench(quick: bool) -> Report:
    """Train and judge everything; ``quick`` takes three seeds and nothing but the book's own constants."""
    seeds, names = (FEW, ["softmax", "linear"]) if quick else (SEEDS, list(TRAININGS))
    found: list[Side] = []
    for name in names:
        found += _judged(name, TRAININGS[name], seeds).sides()
    conditions = measure.conditions(("gradmill", "torch"), seeds=len(seeds), quick=quick)
    return Report(benchmark="seeds", conditions=conditions, sides=found, ratios=[])


def _judged(name: str, training: dict[str, Any], seeds: range) -> Judged:
    asked = RetrainParameters.model_validate({"training": training | {"device": "cpu"}})
    prepared = images.prepared(asked)
    with progress.bar() as bar:
        answers = [_answers(asked, prepared, seed) for seed in bar.track(seeds, description=name)]
    return Judged(name, answers, read_split(prepared.test, prepared).y_true, prepared.class_names)


def _answers(asked: RetrainParameters, prepared: PreparedDataset, seed: int) -> NDArray[Any]:
    """Labels or predictions ``(n,)`` for the test split, after training as a retrain does."""
    data = learning.parts(prepared, 0, torch.Generator(), CPU)
    with devices.one_thread(), devices.seeded(CPU, seed) as generator:
        net, optimizer = build(asked.training, prepared, generator, CPU)
        for _ in learning.epochs(net, optimizer, data, asked.training, generator):
            pass
        scores = outputs(net, data.test)
    return np.asarray(scores.argmax(1) if prepared.class_names else scores.flatten())


def _range(name: str, figures: list[float]) -> Iterator[Side]:
    yield _side(f"{name}, smallest", "", figures, best=min)
    yield _side(f"{name}, largest", "", figures, best=max)


def _side(name: str, unit: str, figures: Sequence[float], note: str = "", best: Any = statistics.fmean) -> Side:
    return Side(name=name, unit=unit, figures=list(map(float, figures)), best=float(best(figures)), note=note)
