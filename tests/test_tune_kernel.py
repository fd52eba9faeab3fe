"""Trials of a search side by side: each as it is alone, in the loop that retraining has."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tasks.fitting.building import build
from tasks.fitting.learning import Parts, epochs
from tasks.fitting.tuning import parts, ridge
from tasks.fitting.tuning.together import try_out
from tasks.fitting.tuning.tried import Tried

import own_images
import prepared_tables
from own_images import digits, hues
from tasks.data.recipe import SplitRule
from tasks.fitting import devices, image_learning
from tasks.judging.objective import Objective
from tasks.networks.examples import Split
from tasks.networks.training import outputs
from tasks.parameters import LinearTraining, SoftmaxTraining, Training
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


def tried(
    trainings: Sequence[Training],
    prepared: PreparedDataset,
    should_stop: Any = never,
    seeds: Sequence[int] | None = None,
) -> list[Tried]:
    data = parts.of(prepared, trainings[0], CPU)
    found = try_out(trainings, seeds or [SEED] * len(trainings), data, prepared, should_stop)
    return sorted(found, key=lambda each: each.index)


def by_the_loop(training: Training, prepared: PreparedDataset, seed: int = SEED) -> list[float]:
    """Validation losses of the training stage's own loop, on the same parts."""
    data = parts.of(prepared, training, CPU)
    with devices.one_thread(), devices.seeded(CPU, seed) as generator:
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
    seeds = [SEED + (at + 1) // 2 % 2 for at in range(1 + len(TRIALS))]
    together = tried([training(lr=1.0, weight_decay=1000.0), *TRIALS], prepared, seeds=seeds)
    assert together[0].outcome == "diverged"
    for trial, seed, found in zip(TRIALS, seeds[1:], together[1:], strict=True):
        assert found.outcome == "complete"
        np.testing.assert_allclose(found.losses, by_the_loop(trial, prepared, seed), rtol=0, atol=1e-6)


def test_a_trial_that_is_not_wanted_ends_alone_and_the_others_as_they_would() -> None:
    asked: list[tuple[int, int]] = []

    def stop(index: int, epoch: int, loss: float) -> bool:
        asked.append((index, epoch))
        return (index, epoch) == (1, 2)

    prepared = as_of_the_book()
    trials = [training(lr=0.1), training(lr=0.2), training(lr=0.3, num_epochs=3)]
    found = tried(trials, prepared, stop)
    assert [(each.outcome, len(each.losses)) for each in found] == [("complete", 4), ("pruned", 2), ("complete", 3)]
    assert asked == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2), (0, 3), (2, 3), (0, 4)]
    undisturbed = tried(trials, prepared)
    np.testing.assert_allclose(found[0].losses, undisturbed[0].losses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1].losses, undisturbed[1].losses[:2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_own_bright_pictures_are_learned_as_their_own_rules_say(class_weight: str) -> None:
    images, labels = hues(300)
    prepared = own_images.prepare(images, labels, list(own_images.HUES))
    of = {"defaults": "data", "class_weight": class_weight}
    trials = [training(lr=0.01, **of), training(lr=0.5, **of), training(lr=0.5, dropout=0.2, **of)]
    data = parts.of(prepared, trials[0], CPU)
    assert isinstance(data.train, Split)
    for trial, found in zip(trials, tried(trials, prepared), strict=True):
        objective = Objective.of(trial, prepared)
        learner = image_learning.Learner(trial, prepared, objective, CPU)
        assert trial.lr is not None
        assert (learner.mean_to_centre(data.train, trial.lr) is None) == (trial.lr == 0.01)
        with devices.one_thread(), devices.seeded(CPU, SEED) as generator:
            learning = learner.begin(Parts(data.train, None, data.test), objective.weight_decay, generator)
            by_the_loop = [
                objective.mean(outputs(learning.net, data.test).numpy(), data.test.y.numpy()) for _ in learning.epochs
            ]
        np.testing.assert_allclose(found.losses, by_the_loop, rtol=0, atol=1e-6)


def test_a_trial_of_a_table_is_as_it_is_alone_and_reads_no_test_split() -> None:
    rng, weight_decays = np.random.default_rng(0), (0.1, 0.001)
    features = rng.normal(size=(300, 4))
    y = features @ [1.0, 2.0, 0.0, -1.0] + rng.normal(size=300)
    prepared = prepared_tables.prepare(features, y, np.arange(300) % 5 == 0)
    prepared.test.path.unlink()
    trials = [
        LinearTraining.model_validate({"defaults": "data", "device": "cpu", "seed": SEED, "weight_decay": each, **loss})
        for each in weight_decays
        for loss in ({"loss": "squared"}, {"loss": "huber"}, {"loss": "squared", "batch_size": 50, "num_epochs": 3})
    ]
    together = tried(trials, prepared)
    for trial, found in zip(trials, together, strict=True):
        (alone,) = tried([trial], prepared)
        assert found.losses == alone.losses
    by_groups = prepared.model_copy(update={"split": SplitRule(rule="group", column="g", test=0.2)})
    path = ridge.best(parts.of(prepared, trials[0], CPU), by_groups, trials[0], weight_decays)
    assert path is not None
    np.testing.assert_allclose([together[0].losses[-1], together[3].losses[-1]], path.losses, rtol=1e-6)


def test_no_trial_reads_the_test_split_of_the_book() -> None:
    prepared = as_of_the_book()
    prepared.test.path.unlink()
    (found,) = tried([training()], prepared)
    assert len(found.losses) == 4
