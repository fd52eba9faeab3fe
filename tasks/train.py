"""Stage 4: learn the weights, with the whole split resident on the device."""

from typing import TYPE_CHECKING, cast

from tasks.errors import TrainingDiverged
from tasks.machine.run_messages import print_message
from tasks.parameters import Training, Use
from tasks.records import PreparedDataset, Refit, TableFit, TrainedModel
from tasks.stage import gpu_lock, stage
from tasks.store import atomic
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder

if TYPE_CHECKING:
    from tasks.data.recipe import Columns


@stage()
def train(
    run: RunFolder, prepared: PreparedDataset, training: Training, kept_fit: TableFit | None = None
) -> TrainedModel:
    """Train a model; write its weights and, of a network, the learning curve into the run's folder.

    A table's model has the shape of ``kept_fit`` until its training rows have doubled.

    Raises:
        UsageError: too few examples are left for training, or are held out, to be meaningful.
        TrainingDiverged: the loss or a weight is not finite.
        DeviceMissing: CUDA was requested and is not available.
    """
    is_table = prepared.find_use(prepared.recipe) is Use.TABLES
    return train_table(run, prepared, training, kept_fit) if is_table else train_network(run, prepared, training)


def train_table(
    run: RunFolder, prepared: PreparedDataset, training: Training, kept_fit: TableFit | None
) -> TrainedModel:
    """Fit the model of an own table, with its shape and penalties chosen by cross-validation; needs no torch."""
    import numpy as np
    import safetensors.numpy

    from tasks.data.prepared_splits import read_split
    from tasks.fitting.objective import Objective
    from tasks.fitting.tables import FitOptions, FittedTable, fit_table, measure_training, refit_table

    def write_weights(fitted: FittedTable, filename: str) -> FileRef:
        weights = {name: np.ascontiguousarray(values) for name, values in fitted.weights.items()}
        if not all(np.isfinite(values.astype(np.float32)).all() for values in weights.values()):
            action = "give a --weight-decay, or leave out columns of huge values"
            raise TrainingDiverged("weights beyond the range of float32", "finite weights", action)
        return atomic.write_bytes(run.file(filename), safetensors.numpy.save(weights), is_durable=False)

    train = read_split(prepared.train, prepared)
    objective = Objective.choose(training, prepared)
    decay = training.weight_decay
    kept_shape = kept_fit.keep_shape(len(train.y_true)) if kept_fit else None
    options = FitOptions(
        shape=None if training.shape == "auto" else training.shape,
        kept_shape=kept_shape,
        weight_decay=None if isinstance(decay, str) else decay,
        is_by_time=bool(prepared.split and prepared.split.is_by_time),
    )
    num_outputs = max(1, len(prepared.class_names))
    fitted = fit_table(train, cast("Columns", prepared.recipe), objective, num_outputs, options)
    weights = write_weights(fitted, "weights.safetensors")
    comparison, shape = fitted.comparison, fitted.recipe.shape
    shape_rows = None if training.shape != "auto" else len(train.y_true)
    if kept_fit and shape == kept_shape:
        shape_rows = kept_fit.shape_rows
        if comparison and comparison.simplest != shape:
            print_message(
                f"shape {shape} is kept, though cross-validation would choose {comparison.simplest} now: it is chosen "
                f"anew from {2 * (shape_rows or 0):,} training rows on, or with --new-recipe",
                short="",
            )
    fit = TableFit(
        shape=shape,
        shape_rows=shape_rows,
        penalties=fitted.penalties,
        cv_losses=dict(comparison.losses) if comparison else {},
        null_loss=comparison.null_loss if comparison else None,
        gradient=fitted.gradient,
        **measure_training(fitted, train, objective),
    )
    print_message(fit.sentence, short=fit.sentence.partition("; ")[0])
    refit, refit_weights = None, None
    if training.refit:
        others = filter(None, (prepared.validation, prepared.test))
        parts = [train, *(read_split(file, prepared) for file in others)]
        refit_model = refit_table(fitted, parts, objective, num_outputs, options)
        refit_weights = write_weights(refit_model, "refit-weights.safetensors")
        num_examples = sum(len(part.y_true) for part in parts)
        refit = Refit(num_examples=num_examples, penalties=refit_model.penalties, gradient=refit_model.gradient)
        print_message(f"fitted once more, to all {num_examples:,} rows", short="")
    return TrainedModel(
        weights=weights,
        refit_weights=refit_weights,
        refit=refit,
        device="cpu",
        num_examples=len(train.y_true),
        recipe=fitted.recipe,
        class_counts=prepared.class_counts,
        fit=fit,
    )


def train_network(run: RunFolder, prepared: PreparedDataset, training: Training) -> TrainedModel:
    """Train a network of the book, or of own images, in the training loop."""
    # Imported here, as in later stages: torch takes seconds to import, which an unchanged run does not need.
    import safetensors.torch
    import torch

    from tasks.fitting import devices
    from tasks.fitting.progress import find_kept_epoch, watch_training
    from tasks.fitting.trainer import make_trainer

    device = devices.resolve(training.device)
    generator = torch.Generator().manual_seed(training.seed_number)
    with gpu_lock.hold(training.device), devices.one_thread():
        trainer = make_trainer(training, prepared, device)
        with devices.deterministic(trainer.follows_data and device.type == "cuda"):
            trained = trainer.begin_training(generator)
            curve, picture = watch_training(trained.epochs, trained.training, run)
    used = trained.training.hyperparameters.model_copy(update={"num_epochs": len(curve)})
    tensors = safetensors.torch.save(trained.read_weights())
    reference = atomic.write_bytes(run.file("weights.safetensors"), tensors, is_durable=False)
    atomic.write_json(run.file("learning-curve.json"), [point.model_dump() for point in curve], is_durable=False)
    return TrainedModel(
        weights=reference,
        device=devices.describe(device),
        learning_curve=curve,
        picture=picture,
        kept_epoch=find_kept_epoch(curve, training).epoch,
        num_examples=trained.num_examples,
        num_validation=trained.num_validation,
        steps=used if trainer.follows_data else None,
        recipe=None if trained.prepared is prepared else trained.prepared.recipe,
        class_counts=() if trained.prepared is prepared else trained.prepared.class_counts,
    )
