"""Trials of a search side by side: each as it is alone, in the loop that retraining has."""

from typing import Any

import numpy as np
import torch

import own_images
from own_images import digits
from tasks.fitting import devices
from tasks.fitting.building import build
from tasks.fitting.learning import epochs
from tasks.fitting.tuning import parts
from tasks.fitting.tuning.together import try_out
from tasks.fitting.tuning.tried import Tried
from tasks.parameters import SoftmaxTraining, Training
from tasks.records import PreparedDataset

CPU = torch.device("cpu")
SEED = 3


def never(index: int, epoch: int, loss: float) -> bool:
    return False


def training(**options: Any) -> SoftmaxTraining:
    return SoftmaxTraining.model_validate({"device": "cpu", "seed": SEED, "num_epochs": 4, **options})


def as_of_the_book() -> PreparedDataset:
    """Digits with no rules of own data."""
    return own_images.prepare(*digits(), list("0123456789")).model_copy(update={"split": None})


def tried(trainings: list[Training], prepared: PreparedDataset, should_stop: Any = never) -> list[Tried]:
    found = try_out(trainings, parts.of(prepared, trainings[0], CPU), SEED, prepared, should_stop)
    return sorted(found, key=lambda each: each.index)


def by_the_loop(training: Training, prepared: PreparedDataset) -> list[float]:
    """Validation losses of the training stage's own loop, on the same parts."""
    data = parts.of(prepared, training, CPU)
    with devices.one_thread(), devices.seeded(CPU, SEED) as generator:
        net, optimizer = build(training, prepared, generator, CPU)
        return [each.test["loss"] for each in epochs(net, optimizer, data, training, generator)]


TRIALS = [
    training(lr=0.3),
    training(lr=0.1, weight_decay=0.01, implementation="scratch"),
    training(lr=0.2, schedule="cosine", num_epochs=6),
    training(lr=0.05, schedule="step", num_epochs=9, weight_decay=0.1),
    training(lr=0.2, batch_size=64),
    training(lr=0.1, batch_size=64, weight_decay=0.001),
    training(lr=0.2, dropout=0.3),
    training(lr=0.1, dropout=0.3, schedule="cosine"),
    training(lr=0.1, dropout=0.5, batch_size=64),
]


def test_each_trial_learns_what_the_loop_learns_whatever_runs_beside_it() -> None:
    prepared = as_of_the_book()
    together = tried([training(lr=1.0, weight_decay=1000.0), *TRIALS], prepared)
    assert together[0].outcome == "diverged"
    for trial, found in zip(TRIALS, together[1:], strict=True):
        assert found.outcome == "complete"
        np.testing.assert_allclose(found.losses, by_the_loop(trial, prepared), rtol=0, atol=1e-6)
