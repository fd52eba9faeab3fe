"""How people can follow training: lines in the log, a bar at the terminal, the learning curve in the Prefect UI."""

import math
from collections.abc import Iterator, Sequence

from rich.progress import MofNCompleteColumn

from tasks.errors import TrainingDiverged
from tasks.judging import plots
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


def watch_training(
    epochs: Iterator[EpochMetrics], training: Training, run: RunFolder
) -> tuple[tuple[Epoch, ...], FileRef]:
    """Train, and return the learning curve and its picture, which grows meanwhile (the book's Animator).

    Raises:
        TrainingDiverged: the loss is no longer a finite number.
    """
    path, name = run.file(LEARNING_CURVE), run.name or training.model.value
    page = live_progress.LivePage(f"{name}-learning-curve", "loss and accuracy by epoch")
    total = training.hyperparameters.num_epochs
    every, curve = math.ceil(total / LINES_PER_RUN), list[Epoch]()
    with live_progress.count_progress("train", total, "epochs trained", 0, MofNCompleteColumn()) as advance:
        for measured in epochs:
            curve.append(_point(len(curve) + 1, measured, training))
            if len(curve) % every == 0 and len(curve) < total:
                said = _sentence(curve[-1])
                short = said.replace("train ", "")  # the stage's name
                print_message(f"epoch {len(curve)}/{total}: {said}", short=short)
            if advance():
                plots.save(plots.draw_learning_curve(curve), path)
                page.show(live_progress.embed_picture(path), retries=0)
        advance(total - len(curve))  # those that were not needed
    best = find_kept_epoch(curve, training)
    _report_end(curve, best, training)
    picture = plots.save(plots.draw_learning_curve(curve, best.epoch), path)
    page.show(live_progress.embed_picture(path))
    return tuple(curve), picture


def _report_end(curve: Sequence[Epoch], best: Epoch, training: Training) -> None:
    """Report how training ended: with early stopping, when it stopped and which epoch's weights are kept."""
    total, patience, end = training.hyperparameters.num_epochs, training.patience, pluralize(len(curve), "epoch")
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


def find_kept_epoch(curve: Sequence[Epoch], training: Training) -> Epoch:
    """The epoch whose weights are kept: the last, or with early stopping the one of the smallest validation loss."""
    return min(curve, key=lambda point: point.validation_loss or 0.0) if training.patience else curve[-1]


def _point(epoch: int, measured: EpochMetrics, training: Training) -> Epoch:
    metrics = {split: figures for split, figures in measured._asdict().items() if figures}
    losses = {split: figures["loss"] for split, figures in metrics.items()}
    if not all(map(math.isfinite, losses.values())):
        shown = ", ".join(f"{split} loss {loss}" for split, loss in losses.items())
        raise TrainingDiverged(
            f"{shown} in epoch {epoch} at lr {training.hyperparameters.lr}",
            "finite losses",
            "use a smaller --lr",
        )
    values = {f"{split}_{name}": value for split, figures in metrics.items() for name, value in figures.items()}
    return Epoch(epoch=epoch, **values)


def _sentence(point: Epoch) -> str:
    """The losses and accuracies of one epoch, in words."""
    watched = "" if point.validation_loss is None else f", validation loss {format_number(point.validation_loss, 3)}"
    if point.train_accuracy is None:
        return (
            f"train loss {format_number(point.train_loss, 3)}, test loss {format_number(point.test_loss, 3)}{watched}"
        )
    accuracies = f"train accuracy {point.train_accuracy:.3f}, test accuracy {point.test_accuracy:.3f}"
    return f"train loss {point.train_loss:.3f}, {accuracies}{watched}"
