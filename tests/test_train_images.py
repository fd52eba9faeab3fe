"""Training of own pictures: the book's loop by rules of its own, against numpy, scikit-learn and the book's run."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import torch
from PIL import Image

import image_folders
from candidate import plain
from own_images import Array, prepare
from tasks.errors import UsageError
from tasks.fitting.trainer import ImageTrainer, find_image_steps
from tasks.networks.centring import CentredSGD, mean_and_curvature
from tasks.networks.examples import Split
from tasks.networks.softmax_regression import SoftmaxRegressionConcise, SoftmaxRegressionScratch
from tasks.networks.training import group_parameters, train_epoch
from tasks.parameters import Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.store.run_folder import RunFolder
from tasks.train import train

CPU = torch.device("cpu")
TEN = tuple(map(str, range(10)))


def training(**options: Any) -> Training:
    return Training.model_validate({"defaults": "data", "device": "cpu", **options})


def fitted(prepared: PreparedDataset, **options: Any) -> tuple[TrainedModel, dict[str, Array]]:
    found: TrainedModel = plain(train)(RunFolder.open("own", {}), prepared, training(**options))
    return found, safetensors.numpy.load_file(found.weights.path)


def arrays(prepared: PreparedDataset, split: str) -> tuple[Array, Array]:
    """Pixels in 0…1 ``(n, inputs)`` and labels."""
    found = safetensors.numpy.load_file(getattr(prepared, split).path)
    return found["images"].reshape(len(found["labels"]), -1) / 255, found["labels"]


# By how much


@pytest.mark.parametrize(
    ("num_examples", "num_inputs", "expected"),
    [
        (60_000, 784, (10, 0.1)),
        (500, 784, (1175, 0.1)),
        (500, 64, (1175, 0.1)),
        (20, 784, (2350, 0.1)),
        (1_000_000, 784, (10, 0.1)),
        (60_000, 64 * 64 * 3, (10, 0.1 * 784 / (64 * 64 * 3))),
    ],
)
def test_epochs_and_rate_are_the_books_and_fewer_pictures_have_more_and_more_pixels_a_smaller_one(
    num_examples: int, num_inputs: int, expected: tuple[int, float]
) -> None:
    found = find_image_steps(training(), num_examples, num_inputs, 0.5)
    assert found.lr == pytest.approx(expected[1])
    assert (found.num_epochs, found.batch_size, found.weight_decay) == (expected[0], 256, 0.5)


def test_what_is_given_is_taken() -> None:
    found = find_image_steps(training(num_epochs=3, lr=0.5, batch_size=32), 500, 10_000, 0.0)
    assert (found.num_epochs, found.lr, found.batch_size) == (3, 0.5, 32)


# The same as


@pytest.mark.parametrize("implementation", ["scratch", "concise"])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_the_steps_are_those_of_numpy_with_a_penalty_on_the_weights_alone(
    implementation: str, class_weight: str
) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 100, (200, 20, 15, 3), np.uint8), rng.choice(3, 200, p=[0.6, 0.3, 0.1])
    prepared = prepare(images, labels, "abc")
    count = prepared.num_train
    asked = {"implementation": implementation, "class_weight": class_weight, "num_epochs": 3, "batch_size": 64}
    found, weights = fitted(prepared, seed=5, **asked)
    assert found.steps is not None
    assert found.steps.weight_decay == pytest.approx(1 / count)
    counts = np.array(prepared.class_counts)
    of_classes = count / (3 * counts) if class_weight == "balanced" else np.ones(3)
    X, y = arrays(prepared, "train")
    generator = torch.Generator().manual_seed(5)
    W = torch.normal(0, 0.01, (3, 900), generator=generator).numpy().T.astype(float)
    b, lr = np.zeros(3), 0.1 * 784 / 900
    for _ in range(3):
        order = torch.randperm(count, generator=generator).numpy()
        for at in np.split(order, range(64, count, 64)):
            g = (scipy.special.softmax(X[at] @ W + b, axis=1) - np.eye(3)[y[at]]) * of_classes[y[at], None] / len(at)
            W, b = W - lr * (X[at].T @ g + W / count), b - lr * g.sum(axis=0)
    np.testing.assert_allclose(weights["W"], W, atol=2e-6)
    np.testing.assert_allclose(weights["b"], b, atol=2e-6)


@pytest.mark.parametrize("implementation", ["scratch", "concise"])
def test_without_a_penalty_own_pictures_learn_what_the_books_run_learns_bit_for_bit(implementation: str) -> None:
    """The same files, once as the book's data and once as a user's."""
    images = np.random.default_rng(0).integers(0, 200, (3000, 28, 28), np.uint8)  # as dark as the book's
    own = prepare(images, images[:, 0, 0] // 20, TEN)
    book = own.model_copy(update={"split": None})
    assert (own.defaults, book.defaults) == ("data", "book")
    options = {"implementation": implementation, "seed": 3, "num_epochs": 2, "device": "cpu"}
    _, ours = fitted(own, weight_decay=0, **options)
    theirs = plain(train)(RunFolder.open("book", {}), book, Training.model_validate(options))
    expected = safetensors.numpy.load_file(theirs.weights.path)
    assert {name: each.tobytes() for name, each in ours.items()} == {n: each.tobytes() for n, each in expected.items()}


def test_pictures_in_folders_that_are_named_by_number_learn_what_the_same_array_does_bit_for_bit(
    tmp_path: Path,
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 5, 5), np.uint8)
    labels, is_test = images[:, 0, 0] // 86, np.arange(60) >= 40
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "pets" / ("test" if is_test[number] else "train") / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:05d}.png")
    sources = image_folders.prepared(tmp_path / "pets", side=5), prepare(images, labels, "abc", is_test)
    found = [fitted(source, weight_decay=0, num_epochs=3, batch_size=16)[1] for source in sources]
    assert (found[0]["W"] == found[1]["W"]).all()


# As well as


# Parts that are held out


def test_equal_pictures_are_on_one_side_of_the_validation_part_and_every_picture_is_on_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 3, 3), np.uint8).repeat(4, axis=0)
    prepared = prepare(images, np.arange(400) % 2, "ab")
    _, (train, validation, _) = ImageTrainer(training(), prepared, CPU).hold_out(0.25, torch.Generator())
    assert isinstance(train, Split)
    assert isinstance(validation, Split)
    parts = [{picture.tobytes() for picture in part.X.numpy()} for part in (train, validation)]
    assert not parts[0] & parts[1]
    assert len(train) + len(validation) == prepared.num_train
    assert len(validation) == pytest.approx(0.25 * prepared.num_train, abs=4)


def test_a_validation_part_that_the_data_have_is_watched_whole_and_no_share_is_held_out() -> None:
    images = np.random.default_rng(0).integers(0, 256, (90, 3, 3), np.uint8)
    watched = prepare(images[60:], images[60:, 1, 1] > 128, "ab", np.zeros(30, bool))
    own = prepare(images[:60], images[:60, 1, 1] > 128, "ab").model_copy(update={"validation": watched.train})
    asked = {"lr": 0.5, "num_epochs": 40, "patience": 5}
    found, weights = fitted(own, validation=0.2, **asked)
    assert (found.num_examples, found.num_validation) == (own.num_train, 30)
    X, y = arrays(watched, "train")
    scores = X @ weights["W"] + weights["b"]
    expected = (scipy.special.logsumexp(scores, axis=1) - scores[np.arange(30), y]).mean()
    assert found.kept_point.validation_loss == pytest.approx(expected, rel=1e-4)
    assert fitted(own, **asked)[0].kept_epoch == found.kept_epoch
    few = prepare(images[60:69], images[60:69, 1, 1] > 128, "ab", np.zeros(9, bool))
    with pytest.raises(UsageError, match="9 validation rows to choose by"):
        fitted(own.model_copy(update={"validation": few.train}), **asked)


def test_a_held_out_part_of_next_to_nothing_is_refused() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 3), np.uint8)
    prepared = prepare(images, np.arange(50) % 2, "ab")
    with pytest.raises(UsageError, match=r"--validation 0\.1"):
        fitted(prepared, validation=0.1)
    with pytest.raises(UsageError, match="--weight-decay auto"):
        fitted(prepared, weight_decay="auto")


def test_the_chosen_penalty_has_the_smallest_validation_loss_of_a_grid_and_trains_on_all_pictures() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 5, 5), np.uint8)
    noisy = images[:, 2, 2] + 100 * rng.standard_normal(400) > 128
    prepared = prepare(images, noisy, "ab")
    asked = {"implementation": "scratch", "num_epochs": 25, "lr": 0.3, "batch_size": 64}
    chosen, weights = fitted(prepared, weight_decay="auto", **asked)
    assert chosen.steps is not None
    assert (chosen.num_examples, chosen.num_validation) == (prepared.num_train, 0)
    losses = {}
    for power in range(-1, 4):
        found, _ = fitted(prepared, weight_decay=10.0**power / prepared.num_train, validation=0.2, **asked)
        losses[10.0**power / prepared.num_train] = found.kept_point.validation_loss or math.nan
    best = min(losses, key=lambda decay: losses[decay])
    assert chosen.steps.weight_decay == best
    _, given = fitted(prepared, weight_decay=best, **asked)
    assert (weights["W"] == given["W"]).all(), "as if it had been given"


@pytest.mark.parametrize("kind", [SoftmaxRegressionScratch, SoftmaxRegressionConcise])
def test_centred_steps_are_those_on_inputs_less_their_mean(
    kind: type[SoftmaxRegressionScratch | SoftmaxRegressionConcise],
) -> None:
    generator = torch.Generator().manual_seed(0)
    X, y = torch.rand(64, 5, generator=generator) + 3, torch.randint(3, (64,), generator=generator)
    mean = X.mean(dim=0)
    nets = [kind(5, 3, torch.Generator().manual_seed(1)) for _ in range(2)]
    as_is, less_mean = ((net, torch.optim.SGD(group_parameters(net.parameters(), 0.1), lr=0.2)) for net in nets)
    nets[1].weights()["b"].add_(mean @ nets[1].weights()["W"])  # the same network, on inputs less their mean
    train_epoch(nets[0], CentredSGD(as_is[1], nets[0], mean), Split(X, y), 16, torch.Generator().manual_seed(5))
    train_epoch(nets[1], less_mean[1], Split(X - mean, y), 16, torch.Generator().manual_seed(5))
    torch.testing.assert_close(nets[0].weights()["W"], nets[1].weights()["W"], rtol=0, atol=1e-5)
    torch.testing.assert_close(nets[0](X), nets[1](X - mean), rtol=0, atol=1e-4)


def test_the_curvature_is_the_largest_eigenvalue_of_the_inputs() -> None:
    X = torch.rand(300, 6, generator=torch.Generator().manual_seed(0))
    mean, curvature = mean_and_curvature(Split(X, torch.zeros(300, dtype=torch.int64)))
    assert curvature == pytest.approx(float(torch.linalg.eigvalsh(X.T @ X / 300)[-1]), rel=1e-4)
    torch.testing.assert_close(mean, X.mean(dim=0))
