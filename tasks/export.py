"""Stage 6: write one self-contained ONNX file for raw inputs, and check it on the whole test split."""

from dataclasses import replace

import numpy as np
import safetensors.numpy

from tasks.data.prepared_splits import read_batches
from tasks.judging import gates, parity
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_number
from tasks.parameters import Device, Gates, Training
from tasks.records import ExportedModel, PreparedDataset, TrainedModel
from tasks.serving import contract, raw_units, runtime
from tasks.stage import stage
from tasks.store import atomic, verified_files
from tasks.store.artifact_paths import EVALUATED_ONNX, METADATA, ONNX, SAMPLE, WEIGHTS
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder


@stage()
def export(
    run: RunFolder, prepared: PreparedDataset, trained: TrainedModel, training: Training, bounds: Gates
) -> ExportedModel:
    """Write ``model.onnx``, its metadata and a sample into the run's folder, and apply the export gates.

    Raises:
        GateFailed: onnxruntime and the trained weights differ on the test split by more than rounding explains, or a
            fresh process cannot serve the file.
    """
    with parity.start_fresh_process() as stranger:
        from tasks.serving import onnx_graph

        def write_model(weights: raw_units.Weights, training: Training) -> bytes:
            description = onnx_graph.describe_model(prepared, training)
            return onnx_graph.write_model(weights, recipe, signature, description)

        weights, evaluated_onnx = safetensors.numpy.load(verified_files.read(trained.weights)), None
        recipe, signature = prepared.recipe, prepared.signature
        if trained.refit_weights:
            content = write_model(weights, training.model_copy(update={"refit": False}))
            evaluated_onnx = atomic.write_bytes(run.file(EVALUATED_ONNX), content, is_durable=False)
            weights = safetensors.numpy.load(verified_files.read(trained.refit_weights))
        content = write_model(weights, training)
        session = runtime.open_session(content, Device.CPU)
        in_float32, profile = parity.compare_with_weights(session, weights, prepared, bounds)
        in_float64 = parity.compare_in_float64(session, weights, prepared, bounds)
        model = atomic.write_bytes(run.file(ONNX), content, is_durable=False)
        described = contract.open_inference_metadata(None, None, signature, recipe.describe_columns())
        metadata = described.write(run.file(METADATA), is_durable=False)
        first = next(read_batches(prepared.test, prepared)).inputs
        stored = atomic.write_bytes(run.file(SAMPLE), runtime.write_sample(session, recipe, first), is_durable=False)
        stored_weights = _write_weights(run, weights, prepared) if recipe.columns else None
        tolerance = runtime.find_tolerance(recipe)
        served = parity.judge_servability(stranger, model, metadata.path, stored.path, bounds, tolerance)
    made = ExportedModel(
        onnx=model,
        evaluated_onnx=evaluated_onnx,
        metadata=metadata,
        sample=stored,
        weights=stored_weights,
        profile=profile,
        gates=(*in_float32, *in_float64, *served),
    )
    agreement = f"{ONNX}: equal to the trained weights within {format_number(in_float32[0].value, 2)}"
    print_message(f"{agreement}, {len(content):,} bytes", short=agreement)
    gates.raise_if_failed(made, made.gates, run)
    return made


def _write_weights(run: RunFolder, weights: raw_units.Weights, prepared: PreparedDataset) -> FileRef:
    """Write a tabular model's weights in raw units, relative to the training means, which explain its predictions."""
    folded = raw_units.fold_weights(weights, prepared.recipe, np.float64)
    if prepared.recipe.is_plain:  # the book's data, whose recipe has no means
        sums = [each.inputs.sum(axis=0, dtype=np.float64) for each in read_batches(prepared.train, prepared)]
        mean = np.sum(sums, axis=0) / prepared.num_train
        folded = replace(folded, mean=mean, b=folded.b + mean @ folded.W)
    return atomic.write_bytes(run.file(WEIGHTS), raw_units.save_weights(folded), is_durable=False)
