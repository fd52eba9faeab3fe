"""The four systems of the book against each other, autograd and closed forms."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from conftest import REPOSITORY
from small_images import IMAGES, generator
from tasks.data.book_datasets import synthetic_data
from tasks.networks import metrics, softmax_regression
from tasks.networks.examples import Split, split_randomly
from tasks.networks.linear_regression import LinearRegressionConcise, LinearRegressionScratch
from tasks.networks.softmax_regression import SoftmaxRegressionConcise, SoftmaxRegressionScratch
from tasks.networks.training import (
    SGD,
    ConciseSGD,
    Network,
    Optimizer,
    compute_outputs,
    group_parameters,
    list_learning_rates,
    train,
    train_epoch,
)


def table(num_examples: int = 1000) -> Split:
    features, target = synthetic_data(np.array([2.0, -3.4]), 4.2, num_examples, np.random.default_rng(0))
    return Split(torch.from_numpy(features), torch.from_numpy(target))


def learn(net: Network, optimizer: Optimizer, split: Split, epochs: int, batch_size: int) -> dict[str, Tensor]:
    for _ in train(net, optimizer, split, split, [optimizer.param_groups[0]["lr"]] * epochs, batch_size, generator(7)):
        pass
    return net.weights()


@pytest.mark.parametrize(("loss", "concise_lr"), [("squared", 0.015), ("huber", 0.03)])
def test_linear_regression_learns_the_same_weights_from_scratch_and_concisely(loss: str, concise_lr: float) -> None:
    """nn.MSELoss has no half, so there the concise version gets half the learning rate."""
    scratch, concise = LinearRegressionScratch(2, loss, generator()), LinearRegressionConcise(2, loss, generator())
    a = learn(scratch, SGD(group_parameters(scratch.parameters(), 0), 0.03), table(), 3, 10)
    b = learn(concise, torch.optim.SGD(concise.parameters(), lr=concise_lr), table(), 3, 10)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_cross_entropy_and_softmax_stay_finite_for_extreme_scores() -> None:
    """A loss without any surprise is no negative number."""
    o = torch.tensor([[1000.0, -1000.0, 0.0], [-1000.0, -1000.0, -1000.0]])
    assert softmax_regression.cross_entropy(o, torch.tensor([1, 2])).tolist() == pytest.approx([2000.0, math.log(3)])
    torch.testing.assert_close(softmax_regression.softmax(o), torch.tensor([[1.0, 0.0, 0.0], [1 / 3] * 3]))
    assert math.copysign(1, float(metrics.mean_cross_entropy(o[:1], torch.tensor([0])))) == 1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", [SGD, ConciseSGD])
def test_sgd_takes_the_steps_of_torchs(kind: type[SGD], momentum: float) -> None:
    stepped = []
    for make, options in ((kind, {}), (torch.optim.SGD, {"nesterov": momentum > 0})):
        parameter = torch.ones(3)
        optimizer: Any = make([{"params": [parameter]}], lr=0.3, momentum=momentum, **options)
        for gradient in ([1.0, -2.0, 0.5], [0.1, 0.1, 9.0]):
            parameter.grad = torch.tensor(gradient)
            optimizer.step()
        optimizer.zero_grad()
        assert parameter.grad is None
        stepped.append(parameter)
    torch.testing.assert_close(*stepped, rtol=0, atol=0)


def test_noise_estimate_is_the_most_likely_one_and_its_likelihood_is_scipys() -> None:
    residuals = torch.randn(500, generator=generator()) * 0.3
    _, sigma = scipy.stats.norm.fit(residuals.double(), floc=0)
    assert metrics.noise_estimate(residuals) == pytest.approx(sigma, rel=1e-4)
    expected = -scipy.stats.norm.logpdf(residuals.double(), 0, sigma).mean()
    assert metrics.gaussian_nll(residuals, sigma) == pytest.approx(expected, rel=1e-5)


def test_training_figures_are_those_of_the_outputs_that_the_steps_saw() -> None:
    """With one minibatch an epoch, the first epoch's figures are those of the untouched network."""
    net = SoftmaxRegressionScratch(64, 5, generator())
    (before,) = metrics.numbers(metrics.classification(compute_outputs(net, IMAGES), IMAGES.y))
    optimizer = SGD(group_parameters(net.parameters(), 0), 0.1)
    on_train = next(train(net, optimizer, IMAGES, IMAGES, [0.1], 500, generator())).train
    assert on_train == pytest.approx(before, rel=1e-5)


# Schedules, weight decay, early stopping


@pytest.mark.parametrize(
    ("schedule", "kind", "options"),
    [
        ("constant", lr_scheduler.ConstantLR, {"factor": 1.0}),
        ("cosine", lr_scheduler.CosineAnnealingLR, {"T_max": 8}),
        ("step", lr_scheduler.StepLR, {"step_size": 2}),
    ],
)
def test_a_schedule_is_that_of_torchs_scheduler(schedule: str, kind: Any, options: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    theirs, expected = kind(optimizer, **options), []
    for _ in range(8):
        expected.extend(theirs.get_last_lr())
        optimizer.step()
        theirs.step()
    assert list(list_learning_rates(schedule, 0.5, 8)) == pytest.approx(expected)


def test_scratch_and_concise_stay_equal_under_weight_decay() -> None:
    learned = []
    for kind, optimizer, weight_decay in (
        (SoftmaxRegressionScratch, SGD, 0.1),
        (SoftmaxRegressionConcise, torch.optim.SGD, 0.1),
        (SoftmaxRegressionScratch, SGD, 0),
    ):
        net = kind(64, 5, generator())
        sgd: Any = optimizer(group_parameters(net.parameters(), weight_decay), lr=0.1)
        learned.append(learn(net, sgd, IMAGES, 3, 32))
    torch.testing.assert_close(*learned[:2], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(learned[0]["W"], learned[2]["W"], atol=1e-4), "the option does something"


def test_a_validation_split_is_a_random_share_that_training_never_sees() -> None:
    fitted, validation = (each.tolist() for each in split_randomly(500, 0.1, generator()))
    assert sorted(fitted + validation) == list(range(500))
    assert len(validation) == 50
    assert validation != list(range(450, 500))


# Speed that cannot rot unseen


@pytest.mark.parametrize(
    ("network", "kind", "most"), [(SoftmaxRegressionScratch, SGD, 74), (SoftmaxRegressionConcise, ConciseSGD, 68)]
)
def test_a_step_takes_no_more_operations_than_it_should(network: type, kind: type, most: int) -> None:
    """Two matrix products, one gather of all images and one of all labels, no number read from a tensor.

    Autograd records nothing of a gradient that is written out, and torch's profiler is told of no step.
    """
    net = network(64, 5, generator())
    optimizer = kind(group_parameters(net.parameters(), 0), lr=0.1)
    split, steps = IMAGES.select(torch.arange(320)), 10
    train_epoch(net, optimizer, split, 32, generator())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        train_epoch(net, optimizer, split, 32, generator())
    counts = {event.key: event.count for event in profiled.key_averages()}
    assert counts.get("aten::mm", 0) + counts.get("aten::addmm", 0) == 2 * steps
    assert counts["aten::index_select"] == 3  # images, labels, and these in the order of the outputs
    assert not [key for key in counts if re.search("item|scalar_dense|nonzero|^Optimizer", key)]
    assert sum(count for key, count in counts.items() if key.startswith("aten::")) <= most * steps


# The book's four systems learn what they learned at c692a25, bit for bit, on the same machine and torch


BEFORE = "c692a25"
BOOKS = [
    {"model": model, "implementation": implementation, **options}
    for model, others in (
        ("linear-regression", {"loss": "huber", "weight_decay": 0.01}),
        ("softmax-regression", {"weight_decay": 0.01}),
    )
    for options in ({}, others)
    for implementation in ("scratch", "concise")
]
LEARN = """
import hashlib, json, sys
from types import SimpleNamespace as Facts
import torch
from tasks.networks.examples import Split
from tasks.parameters import RetrainParameters
try:
    from tasks.fitting.trainer import Parts, Trainer
except ImportError:  # of before
    Trainer = None
    from tasks.fitting.building import build
    from tasks.fitting.learning import Parts, epochs

torch.set_num_threads(1)
cpu, digests = torch.device("cpu"), []
for asked in json.loads(sys.argv[1]):
    drawn = torch.Generator().manual_seed(1)
    if asked["model"] == "linear-regression":
        X = torch.randn(1000, 2, generator=drawn)
        split, classes = Split(X, X @ torch.tensor([2.0, -3.4]) + 4.2), ()
    else:
        X = torch.randint(0, 256, (1000, 12, 12), dtype=torch.uint8, generator=drawn)
        split = Split(X, torch.randint(0, 10, (1000,), generator=drawn), 1 / 255)
        classes = tuple("0123456789")
    recipe = Facts(input=Facts(shape=X.shape[1:]), target_scaling=Facts(scale=1.0))
    facts = Facts(recipe=recipe, class_names=classes, class_counts=(), num_train=1000, is_own=False,
                  task="classification" if classes else "regression")
    training = RetrainParameters.model_validate({"training": asked}).training
    generator = torch.Generator().manual_seed(42)
    torch.manual_seed(42)
    if Trainer:
        fit = Trainer(training, facts, cpu).start(Parts(split, None, split), generator)
        net, each = fit.net, fit.epochs
    else:
        net, optimizer = build(training, facts, generator, cpu)
        each = epochs(net, optimizer, Parts(split, None, split), training, generator)
    for _ in each:
        pass
    weights = net.weights()
    learned = b"".join(weights[name].contiguous().numpy().tobytes() for name in ("W", "b"))
    digests.append(hashlib.sha256(learned).hexdigest())
print(json.dumps(digests))
"""


@pytest.mark.slow
def test_the_weights_of_the_books_systems_are_those_of_c692a25_to_the_last_bit(tmp_path: Path) -> None:
    packed = subprocess.run(["git", "archive", BEFORE, "tasks"], cwd=REPOSITORY, capture_output=True)
    if packed.returncode:
        pytest.skip(f"commit {BEFORE} is not in this clone: {packed.stderr.decode().strip()}")
    subprocess.run(["tar", "x", "-C", str(tmp_path)], input=packed.stdout, check=True)
    digests = []
    for tree in (REPOSITORY, tmp_path):
        here = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", LEARN, json.dumps(BOOKS)]
        digests.append(json.loads(subprocess.check_output(command, env=here, cwd=tree, timeout=300)))
    assert digests[0] == digests[1]
    assert len(set(digests[0])) >= len(BOOKS) - 1, "of Huber's loss scratch and concise are equal, too"
