"""What people see of training: lines in the log, a bar at the terminal, the learning curve in the Prefect UI."""

import math
from collections.abc import Iterator, Sequence

from rich.progress import MofNCompleteColumn

from tasks.errors import TrainingDiverged
from tasks.judging import figures
from tasks.judging.judges import JUDGES, Judge
from tasks.machine import progress
from tasks.machine.telling import tell
from tasks.networks.training import Measured
from tasks.parameters import Training
from tasks.records import Epoch
from tasks.serving.task import of_model
from tasks.stage import live
from tasks.store.artifact_paths import LEARNING_CURVE
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

LINES_PER_RUN = 10  # of the learning curve in the log, however many epochs there are


def watch(epochs: Iterator[Measured], training: Training, run: RunFolder) -> tuple[tuple[Epoch, ...], FileRef]:
    """Train to the end; return the learning curve and its picture, which grows while it lasts (the book's Animator).

    Raises:
        TrainingDiverged: the loss is no longer a finite number.
    """
    every = math.ceil(training.steps.num_epochs / LINES_PER_RUN)
    path = run.file(LEARNING_CURVE)
    judge = JUDGES[of_model(training.model).name]
    name = run.name or training.model.value
    shown = live.Picture(f"{name}-learning-curve", "loss and accuracy by epoch")
    trained = live.Progress(training.steps.num_epochs, "epochs trained")
    curve: list[Epoch] = []
    with progress.bar(MofNCompleteColumn()) as bar:
        for measured in bar.track(epochs, total=training.steps.num_epochs, description="train"):
            curve.append(_point(len(curve) + 1, measured, training))
            if len(curve) % every == 0 or len(curve) == training.steps.num_epochs:
                tell(f"epoch {len(curve)}/{training.steps.num_epochs}: {_sentence(curve[-1], judge)}")
            if trained.update(len(curve)):
                figures.learning_curve(curve, judge.CURVES, path)
                shown.show(path, retries=0)
    if len(curve) % every and len(curve) < training.steps.num_epochs:
        tell(f"at an end after {len(curve)} epochs: {_sentence(curve[-1], judge)}")
    picture = figures.learning_curve(curve, judge.CURVES, path, kept(curve, training).epoch)
    if live.in_a_run():
        shown.show(path)
        trained.update(training.steps.num_epochs)
        trained.show()
    return tuple(curve), picture


def kept(curve: Sequence[Epoch], training: Training) -> Epoch:
    """The epoch whose weights are kept: the last, but with early stopping the one of the smallest validation loss."""
    return min(curve, key=lambda point: point.validation_loss or 0.0) if training.patience else curve[-1]


def _point(epoch: int, measured: Measured, training: Training) -> Epoch:
    on_train, on_test, on_validation = measured
    losses = {name: each["loss"] for name, each in measured._asdict().items() if each is not None}
    if not all(map(math.isfinite, losses.values())):
        found = ", ".join(f"{name} loss {loss}" for name, loss in losses.items())
        raise TrainingDiverged(
            f"{found} in epoch {epoch} at lr {training.steps.lr}",
            "finite losses",
            "use a smaller --lr",
        )
    return Epoch(
        epoch=epoch,
        train_loss=on_train["loss"],
        train_accuracy=on_train.get("accuracy"),
        test_loss=on_test["loss"],
        test_accuracy=on_test.get("accuracy"),
        validation_loss=on_validation and on_validation["loss"],
        validation_accuracy=on_validation and on_validation.get("accuracy"),
    )


def _sentence(point: Epoch, judge: Judge) -> str:
    watched = "" if point.validation_loss is None else f", validation loss {point.validation_loss:.3g}"
    return judge.epoch(point) + watched
