"""How people can follow training: lines in the log, a bar at the terminal, the learning curve in the Prefect UI."""

import math
from collections.abc import Iterator, Sequence

from rich.progress import MofNCompleteColumn

from tasks.errors import TrainingDiverged
from tasks.judging import plots
from tasks.machine import progress
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_number, pluralize
from tasks.networks.training import EpochMetrics
from tasks.parameters import Training
from tasks.records import Epoch
from tasks.stage import live_progress
from tasks.store.artifact_paths import LEARNING_CURVE
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder

LINES_PER_RUN = 10  # learning-curve lines in the log, however many epochs there are


class Watch:
    """One training, watched: log lines, a bar, and the growing picture of its learning curve (the book's Animator)."""

    def __init__(self, training: Training, run: RunFolder) -> None:
        self._training = training
        self._path, name = run.file(LEARNING_CURVE), run.name or training.model.value
        self._shown = live_progress.LivePage(f"{name}-learning-curve", "loss and accuracy by epoch")
        self._trained = live_progress.Progress(training.hyperparameters.num_epochs, "epochs trained")

    def to_the_end(self, epochs: Iterator[EpochMetrics]) -> tuple[Epoch, ...]:
        """Train, and return the learning curve.

        Raises:
            TrainingDiverged: the loss is no longer a finite number.
        """
        total = self._training.hyperparameters.num_epochs
        every = math.ceil(total / LINES_PER_RUN)
        curve: list[Epoch] = []
        with progress.make_bar(MofNCompleteColumn()) as bar:
            for measured in bar.track(epochs, total=total, description="train"):
                curve.append(_point(len(curve) + 1, measured, self._training))
                if len(curve) % every == 0 and len(curve) < total:
                    said = _sentence(curve[-1])
                    short = said.replace("train ", "")  # the stage's name
                    print_message(f"epoch {len(curve)}/{total}: {said}", short=short)
                if self._trained.update(len(curve)):
                    plots.save(plots.draw_learning_curve(curve), self._path)
                    self._shown.show(live_progress.embed_picture(self._path), retries=0)
        self._report_end(curve)
        return tuple(curve)

    def _report_end(self, curve: Sequence[Epoch]) -> None:
        """Report how training ended: with early stopping, when it stopped and which epoch's weights are kept."""
        total, best = self._training.hyperparameters.num_epochs, find_kept_epoch(curve, self._training)
        end, patience = pluralize(len(curve), "epoch"), self._training.patience
        if patience and len(curve) < total and len(curve) - best.epoch >= patience:
            end = f"stopped early after {len(curve)} of {pluralize(total, 'epoch')}"
        elif len(curve) < total:
            end = f"converged after {end}"
        end += f", the weights of epoch {best.epoch} kept" if patience else ""
        on_validation = (
            "" if best.validation_loss is None else f", validation loss {format_number(best.validation_loss, 3)}"
        )
        short = f"{end}: train loss {format_number(best.train_loss, 3)}{on_validation}"
        print_message(f"{end}: {_sentence(best)}", short=short)

    def picture(self, curve: Sequence[Epoch]) -> FileRef:
        """The whole learning curve, drawn and shown."""
        best = find_kept_epoch(curve, self._training)
        picture = plots.save(plots.draw_learning_curve(curve, best.epoch), self._path)
        self._shown.show(live_progress.embed_picture(self._path))
        self._trained.show(self._training.hyperparameters.num_epochs)
        return picture


def find_kept_epoch(curve: Sequence[Epoch], training: Training) -> Epoch:
    """The epoch whose weights are kept: the last, or with early stopping the one of the smallest validation loss."""
    return min(curve, key=lambda point: point.validation_loss or 0.0) if training.patience else curve[-1]


def _point(epoch: int, measured: EpochMetrics, training: Training) -> Epoch:
    figures = {name: each for name, each in measured._asdict().items() if each}
    losses = {name: each["loss"] for name, each in figures.items()}
    if not all(map(math.isfinite, losses.values())):
        found = ", ".join(f"{name} loss {loss}" for name, loss in losses.items())
        raise TrainingDiverged(
            f"{found} in epoch {epoch} at lr {training.hyperparameters.lr}",
            "finite losses",
            "use a smaller --lr",
        )
    named = {f"{split}_{figure}": value for split, each in figures.items() for figure, value in each.items()}
    return Epoch(epoch=epoch, **named)


def _sentence(point: Epoch) -> str:
    """The losses and accuracies of one epoch, in words."""
    watched = "" if point.validation_loss is None else f", validation loss {format_number(point.validation_loss, 3)}"
    if point.train_accuracy is None:
        return (
            f"train loss {format_number(point.train_loss, 3)}, test loss {format_number(point.test_loss, 3)}{watched}"
        )
    accuracies = f"train accuracy {point.train_accuracy:.3f}, test accuracy {point.test_accuracy:.3f}"
    return f"train loss {point.train_loss:.3f}, {accuracies}{watched}"
