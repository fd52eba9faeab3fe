"""Training of the book's softmax regression beside the book's package, Lightning and scikit-learn."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from benchmarks.measure import Checkout, Report, Sample, Setup, compare, timed

BATCH_SIZE, LR = 256, 0.1  # section 3.6 of d2l 0.17, where ten epochs are trained
ROUNDS = 3
OURS = {
    "scratch": ["--implementation", "scratch"],
    "concise": ["--implementation", "concise"],
    "cosine schedule": ["--implementation", "scratch", "--schedule", "cosine", "--lr", "0.5", "--epochs", "12"],
}
BOOK, LIGHTNING, LIGHTNING_MEMORY = "d2l without its plotting", "Lightning, DataLoader", "Lightning, in memory"
SKLEARN = "scikit-learn, float64"  # as numpy gives it


def bench(setup: Setup) -> Report:
    """Train everything in turns; if it is to be quick, peers train for a tenth of the time, which counts ten times."""
    tenths, folder = 1 if setup.quick else 10, setup.checkouts[0].store
    ours = {
        f"{checkout.name}, {name}": partial(train_ours, checkout, options)
        for checkout in setup.checkouts
        for name, options in OURS.items()
    }
    peers = {
        BOOK: partial(train_book, folder, tenths),
        LIGHTNING: partial(train_lightning, folder, tenths, in_memory=False),
        LIGHTNING_MEMORY: partial(train_lightning, folder, tenths, in_memory=True),
        SKLEARN: partial(train_sklearn, folder, tenths),
    }
    sides = setup.measure(ours | peers, "s", ROUNDS)
    ratios = [each for peer in peers for name in OURS for each in compare(sides, peer, f"ours, {name}")]
    return setup.report("train", sides, ratios, num_epochs=10, batch_size=BATCH_SIZE, lr=LR)


def train_ours(checkout: Checkout, options: list[str]) -> Sample:
    """The stage ``train`` of the command, in a process in which another run has imported everything."""
    command = ["retrain", "softmax-regression", "--force", "--device", "cpu", "--no-publish", *options]
    run = checkout.gradmill(command, command)[-1]
    return Sample(run.seconds_of("train"), f"test accuracy {run.stages['evaluate']['metrics']['test_accuracy']:.4f}")


def read_splits(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Images ``(n, 28, 28)`` uint8 and labels ``(n,)`` int64 of the training and of the test split."""
    splits = [FashionMNIST(folder.parent / "data", is_train) for is_train in (True, False)]
    return [(split.data, split.targets) for split in splits]


@contextlib.contextmanager
def _enter(folder: Path) -> Iterator[None]:
    """Work in a directory beside ``data``, where the book's loader expects it; print nothing."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), contextlib.chdir(folder):
        warnings.simplefilter("ignore")
        yield


def train_book(folder: Path, tenths: int) -> Sample:
    """Section 3.7 of d2l 0.17.6: ``load_data_fashion_mnist`` and the loop of ``train_ch3`` without the Animator."""
    with _enter(folder):
        from d2l import torch as d2l

        train_iter, test_iter = d2l.load_data_fashion_mnist(BATCH_SIZE)
        net = nn.Sequential(nn.Flatten(), linear := nn.Linear(784, 10))
        nn.init.normal_(linear.weight, std=0.01)
        loss, trainer = nn.CrossEntropyLoss(reduction="none"), torch.optim.SGD(net.parameters(), lr=LR)

        def train_epoch() -> float:
            d2l.train_epoch_ch3(net, train_iter, loss, trainer)
            return float(d2l.evaluate_accuracy(net, test_iter))

        seconds, accuracy = timed(lambda: [train_epoch() for _ in range(tenths)])
    return Sample(seconds * 10 / tenths, f"test accuracy {accuracy[-1]:.4f}")


def _make_lightning_module() -> Any:
    """Softmax regression as Lightning's users write it, reporting each epoch what ours does."""
    import lightning
    from torchmetrics.classification import Accuracy

    class Softmax(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
            self.train_accuracy = Accuracy(task="multiclass", num_classes=10)
            self.test_accuracy = Accuracy(task="multiclass", num_classes=10)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            X, y = batch
            o = self.net(X)
            loss = F.cross_entropy(o, y)
            self.train_accuracy(o, y)
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: list[Tensor]) -> None:
            X, y = batch
            o = self.net(X)
            self.test_accuracy(o, y)
            self.log("test_loss", F.cross_entropy(o, y))
            self.log("test_accuracy", self.test_accuracy)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR)

    return Softmax()


def train_lightning(folder: Path, tenths: int, in_memory: bool) -> Sample:
    """``Trainer`` and ``DataLoader`` with their defaults, over torchvision's dataset of pictures or over floats."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with _enter(folder), contextlib.redirect_stderr(io.StringIO()):  # its logs; its progress bar
        splits: list[Any] = (
            [TensorDataset(X / 255, y) for X, y in read_splits(folder)]
            if in_memory
            else [FashionMNIST("../data", train, transform=transforms.ToTensor()) for train in (True, False)]
        )
        loaders = DataLoader(splits[0], BATCH_SIZE, shuffle=True), DataLoader(splits[1], BATCH_SIZE)
        trainer = lightning.Trainer(max_epochs=tenths, accelerator="cpu")
        seconds, _ = timed(lambda: trainer.fit(_make_lightning_module(), *loaders))
    return Sample(seconds * 10 / tenths, f"test accuracy {trainer.callback_metrics['test_accuracy']:.4f}")


def train_sklearn(folder: Path, tenths: int) -> Sample:
    """L-BFGS on all examples at once: the accuracy to reach."""
    from sklearn.linear_model import LogisticRegression

    (X, y), (test_X, test_y) = read_splits(folder)
    rows, test_rows = (each.flatten(1).numpy() / 255.0 for each in (X, test_X))
    model = LogisticRegression(max_iter=10 * tenths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it has not converged
        seconds, _ = timed(lambda: model.fit(rows, y.numpy()))
    return Sample(seconds * 10 / tenths, f"test accuracy {model.score(test_rows, test_y.numpy()):.4f}")
