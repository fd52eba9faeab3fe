"""Own images are trained in the book's loop by rules of their own: against float64 numpy."""

from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import torch
from numpy.testing import assert_allclose

import own_images
from candidate import plain
from tasks.data.prepared_splits import read_split
from tasks.errors import UsageError
from tasks.fitting.devices import one_thread
from tasks.fitting.trainer import find_image_steps, make_trainer
from tasks.parameters import Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.store.run_folder import RunFolder
from tasks.train import train

IMPLEMENTATIONS = ["scratch", "concise"]


def ask(**options: Any) -> Training:
    return Training.model_validate({"defaults": "data", **options})


@pytest.mark.parametrize(
    ("count", "option", "words"),
    [
        (500, {"patience": 2}, "without validation rows"),
        (1250, {"validation": 0.0001}, "of 1000 training examples holds out 0 and leaves 1000"),
        (1250, {"validation": 0.009}, "of 1000 training examples holds out 9 and leaves 991"),
        (1250, {"validation": 0.999}, "of 1000 training examples holds out 999 and leaves 1"),
        (20, {"validation": 0.5}, "at least 20 training examples are needed"),
        (30, {"weight_decay": "auto"}, "^--weight-decay auto"),
    ],
)
def test_a_validation_part_that_is_missing_or_too_small_is_refused_and_says_what_it_is(
    count: int, option: dict[str, Any], words: str
) -> None:
    images, labels = own_images.hues(count)
    prepared: PreparedDataset = own_images.prepare(images, labels, "abc", np.arange(count) % 5 == 0)
    with pytest.raises(UsageError, match=words), one_thread():
        make_trainer(ask(**option), prepared, torch.device("cpu")).begin_training(torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("num_examples", "num_inputs", "num_epochs", "lr"),
    [
        (60_000, 784, 10, 0.1),
        (500, 784, 1175, 0.1),
        (500, 64, 1175, 0.1),
        (20, 784, 2350, 0.1),
        (1_000_000, 784, 10, 0.1),
        (60_000, 2 * 784, 10, 0.05),
    ],
)
def test_epochs_and_rate_are_the_books_and_fewer_pictures_have_more_and_more_pixels_a_smaller_one(
    num_examples: int, num_inputs: int, num_epochs: int, lr: float
) -> None:
    found = find_image_steps(Training(defaults="data"), num_examples, num_inputs, 0.5)
    assert (found.num_epochs, found.lr, found.batch_size, found.weight_decay) == (num_epochs, lr, 256, 0.5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
@pytest.mark.parametrize("darkest", [0, 150])
def test_the_steps_are_those_of_numpy_with_a_penalty_on_the_weights_alone(
    implementation: str, class_weight: str, darkest: int
) -> None:
    """Of bright pictures they are taken on inputs less their mean, for the book's rate would never arrive."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 100, (200, 20, 15, 3), np.uint8), rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    prepared, count = own_images.prepare(images + np.uint8(darkest), labels, "abc", np.arange(200) >= 160), 160
    asked = {"implementation": implementation, "class_weight": class_weight, "num_epochs": 4, "batch_size": 64}
    training = ask(device="cpu", seed=5, schedule="step", **asked)
    found: TrainedModel = plain(train)(RunFolder.open("own", {}), prepared, training)
    learned = safetensors.numpy.load_file(found.weights.path)
    pixels, y, _ = read_split(prepared.train, prepared)
    of_rows = (count / (3 * np.bincount(y)) if class_weight == "balanced" else np.ones(3))[y]
    X = pixels.reshape(count, 900) / 255
    mean = X.mean(axis=0) if darkest else np.zeros(900)
    generator = torch.Generator().manual_seed(5)
    W = torch.normal(0, 0.01, (3, 900), generator=generator).numpy().T.astype(float)
    b = mean @ W
    for lr in 0.1 * 784 / 900 * 10.0 ** -np.arange(4):
        order = torch.randperm(count, generator=generator).numpy()
        for at in np.split(order, range(64, count, 64)):
            g = scipy.special.softmax((X[at] - mean) @ W + b, axis=1) - np.eye(3)[y[at]]
            g *= of_rows[at, None] / len(at)
            W, b = W - lr * ((X[at] - mean).T @ g + W / count), b - lr * g.sum(axis=0)
    assert_allclose(learned["W"], W, atol=2e-6)
    assert_allclose(learned["b"], b - mean @ W, atol=1e-4 if darkest else 2e-6)
