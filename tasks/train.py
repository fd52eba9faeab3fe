"""Stage 3: learn the weights, with the whole split resident on the device."""

import safetensors.torch

from tasks.fitting import devices
from tasks.fitting.building import build
from tasks.fitting.learning import epochs, parts
from tasks.fitting.watching import kept, watch
from tasks.parameters import Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.stage import gpu, stage
from tasks.store import atomic
from tasks.store.run_folder import RunFolder


@stage(reusable=True)
def train(run: RunFolder, prepared: PreparedDataset, training: Training) -> TrainedModel:
    """Train one of the four systems; write ``weights.safetensors`` and the learning curve into the run's folder.

    Raises:
        UsageError: so few examples are left for training, or held out, that they say nothing.
        TrainingDiverged: the loss is not finite.
        DeviceMissing: CUDA was asked for and is not there.
    """
    device = devices.resolve(training.device)
    with (
        gpu.turn(training.device),
        devices.one_thread(),
        devices.seeded(device, training.seed_number) as generator,
    ):
        net, optimizer = build(training, prepared, generator, device)
        data = parts(prepared, training.validation, generator, device)
        curve, picture = watch(epochs(net, optimizer, data, training, generator), training, run)
    weights = {name: tensor.cpu().contiguous() for name, tensor in net.weights().items()}
    reference = atomic.write_bytes(run.file("weights.safetensors"), safetensors.torch.save(weights))
    atomic.write_json(run.file("learning-curve.json"), [point.model_dump() for point in curve])
    return TrainedModel(
        weights=reference,
        device=devices.describe(device),
        learning_curve=curve,
        picture=picture,
        kept_epoch=kept(curve, training).epoch,
        num_examples=len(data.train),
        num_validation=len(data.validation) if data.validation else 0,
    )
