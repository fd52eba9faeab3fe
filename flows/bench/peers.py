"""What training is compared with: the book's own package, PyTorch Lightning and scikit-learn, as their users write."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own convention)
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms
from torchvision.datasets import FashionMNIST

from flows.bench import measure
from tasks.errors import UsageError
from tasks.fitting.learning import Parts
from tasks.networks.examples import Split
from tasks.records import RawDataset

NUM_EPOCHS, BATCH_SIZE, LR = 10, 256, 0.1  # section 3.6 of d2l 0.17
BOOK, BOOK_PLAIN = "d2l train_ch3 in a notebook cell", "d2l without its plotting"
LIGHTNING, LIGHTNING_MEMORY = "Lightning, DataLoader", "Lightning, in memory"
SKLEARN, SKLEARN_SINGLE = "scikit-learn, float64", "scikit-learn, float32"  # LogisticRegression; numpy gives float64
Trained = tuple[float, float]  # the seconds of a training, and its accuracy on the test split


def require_installed() -> None:
    """Fail before anything is measured.

    Raises:
        UsageError: a peer is not installed.
    """
    missing = []
    for module in ("d2l.torch", "lightning", "sklearn"):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                __import__(module)
        except ImportError as error:
            missing.append(str(error))
    if missing:
        raise UsageError(
            "; ".join(missing), "the packages that training is compared with", "run make bench, which installs them"
        )


def peers(raw: RawDataset, data: Parts[Split]) -> dict[str, Callable[[], Trained]]:
    """Each peer by name: a call trains it."""
    return {
        BOOK_PLAIN: lambda: _book(raw, plotting=False),
        BOOK: lambda: _book(raw, plotting=True),
        LIGHTNING: lambda: _lightning(raw),
        LIGHTNING_MEMORY: lambda: _lightning(raw, data),
        SKLEARN: lambda: _sklearn(data, np.float64),
        SKLEARN_SINGLE: lambda: _sklearn(data, np.float32),
    }


@contextlib.contextmanager
def _book_data(raw: RawDataset) -> Iterator[None]:
    """The working directory that the book's loader expects, its data already downloaded; nothing printed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target, work = Path(folder) / "data" / "FashionMNIST" / "raw", Path(folder) / "work"
        target.mkdir(parents=True)
        for name, file in raw.files.items():
            (target / name).symlink_to(file.path)
        work.mkdir()
        with contextlib.chdir(work):
            yield


def _book(raw: RawDataset, plotting: bool) -> Trained:
    """Section 3.7 of d2l 0.17.6: ``load_data_fashion_mnist`` and ``train_ch3``, or its loop without the Animator.

    ``train_ch3`` is run where its readers run it: in a notebook's cell (``notebook.py``), which renders the Animator's
    picture as SVG after every epoch and once more at its end. Sending and drawing them is not counted.
    """
    with _book_data(raw):
        from d2l import torch as d2l

        train_iter, test_iter = d2l.load_data_fashion_mnist(BATCH_SIZE)
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        nn.init.normal_(net[1].weight, std=0.01)  # type: ignore[arg-type]  # Sequential is typed as tensors too
        loss, trainer = nn.CrossEntropyLoss(reduction="none"), torch.optim.SGD(net.parameters(), lr=LR)

        def epoch() -> float:
            d2l.train_epoch_ch3(net, train_iter, loss, trainer)
            return float(d2l.evaluate_accuracy(net, test_iter))

        if plotting:
            from flows.bench import notebook

            arguments = (net, train_iter, test_iter, loss, NUM_EPOCHS, trainer)
            cell = "from d2l import torch as d2l; d2l.train_ch3(*arguments)"
            elapsed, pictures = notebook.run_cell(cell, {"arguments": arguments})
            if len(pictures) != NUM_EPOCHS + 1:
                raise RuntimeError(f"{len(pictures)} pictures rendered: this was no notebook")
            return elapsed, d2l.evaluate_accuracy(net, test_iter)
        elapsed, accuracy = measure.timed(lambda: [epoch() for _ in range(NUM_EPOCHS)])
        return elapsed, accuracy[-1]


def _lightning_module() -> Any:
    """Softmax regression as Lightning's users write it, reporting each epoch what ours does.

    The accuracies are torchmetrics objects that ``self.log`` resets and averages, as lightning.ai/docs/torchmetrics,
    "TorchMetrics in PyTorch Lightning", shows.
    """
    import lightning
    from torchmetrics.classification import Accuracy

    class Softmax(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
            self.train_accuracy = Accuracy(task="multiclass", num_classes=10)
            self.test_accuracy = Accuracy(task="multiclass", num_classes=10)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            X, y = batch  # noqa: N806
            o = self.net(X)
            loss = F.cross_entropy(o, y)
            self.train_accuracy(o, y)
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: list[Tensor]) -> None:
            X, y = batch  # noqa: N806
            o = self.net(X)
            self.test_accuracy(o, y)
            self.log("test_loss", F.cross_entropy(o, y))
            self.log("test_accuracy", self.test_accuracy)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR)

    return Softmax()


def _lightning(raw: RawDataset, data: Parts[Split] | None = None) -> Trained:
    """``Trainer`` and ``DataLoader`` with their defaults.

    Over torchvision's dataset, whose every example is a picture made a tensor; or over ``data`` in memory, as floats.
    """
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with _book_data(raw), contextlib.redirect_stderr(io.StringIO()):  # where it may write its logs; its progress bar
        train_set, test_set = (
            [TensorDataset(split.X / 255, split.y) for split in (data.train, data.test)]
            if data
            else [FashionMNIST("../data", train, transform=transforms.ToTensor()) for train in (True, False)]
        )
        loaders = DataLoader(train_set, BATCH_SIZE, shuffle=True), DataLoader(test_set, BATCH_SIZE)
        trainer = lightning.Trainer(max_epochs=NUM_EPOCHS, accelerator="cpu")
        elapsed = measure.seconds(lambda: trainer.fit(_lightning_module(), *loaders))
    return elapsed, float(trainer.callback_metrics["test_accuracy"])


def _sklearn(data: Parts[Split], dtype: type) -> Trained:
    """L-BFGS on all examples at once, 100 iterations: the accuracy to reach."""
    from sklearn.linear_model import LogisticRegression

    train_rows, test_rows = (split.X.flatten(1).numpy().astype(dtype) / dtype(255) for split in (data.train, data.test))
    model = LogisticRegression(max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it has not converged
        elapsed = measure.seconds(lambda: model.fit(train_rows, data.train.y.numpy()))
    return elapsed, float(model.score(test_rows, data.test.y.numpy()))
