"""Stage 4: learn the weights, with the whole split resident on the device."""

from tasks.parameters import Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.stage import gpu_lock, stage
from tasks.store import atomic
from tasks.store.run_folder import RunFolder


@stage()
def train(run: RunFolder, prepared: PreparedDataset, training: Training) -> TrainedModel:
    """Train one of the four systems; write ``weights.safetensors`` and the learning curve into the run's folder.

    Raises:
        UsageError: too few examples are left for training, or are held out, to be meaningful.
        TrainingDiverged: the loss or a weight is not finite.
        DeviceMissing: CUDA was requested and is not available.
    """
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
        collinear=trained.collinear,
        recipe=None if trained.prepared is prepared else trained.prepared.recipe,
        class_counts=() if trained.prepared is prepared else trained.prepared.class_counts,
    )
