"""Stage 5: one self-contained ONNX file that takes raw inputs, proved equal to torch on the whole test split."""

import safetensors.torch

from tasks.fitting.splits import load_split, scores
from tasks.judging import gates
from tasks.judging.parity import PARITY
from tasks.judging.servability import servability
from tasks.parameters import Device, Gates, Training
from tasks.records import ExportedModel, PreparedDataset, TrainedModel
from tasks.serving import contract, drift, graph, properties, sample, sessions
from tasks.serving.task import TASKS
from tasks.stage import stage
from tasks.store import atomic, verified
from tasks.store.artifact_paths import METADATA, ONNX, SAMPLE
from tasks.store.run_folder import RunFolder


@stage(reusable=True)
def export(
    run: RunFolder, prepared: PreparedDataset, trained: TrainedModel, training: Training, bounds: Gates
) -> ExportedModel:
    """Write ``model.onnx``, its metadata and a sample into the run's folder, and let the gates after export judge it.

    Raises:
        GateFailed: onnxruntime and torch differ on the test split by more than float32 rounding explains, or a fresh
            process cannot serve the file.
    """
    weights = safetensors.torch.load(verified.read(trained.weights))
    test = load_split(prepared, "test")
    rows, signature = test.X.numpy(), prepared.signature
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    content = graph.write(arrays, prepared.recipe, signature, properties.of(prepared, training))
    session = sessions.open_session(content, Device.CPU)
    answers = sessions.answers(session, rows)
    parity = PARITY[prepared.task](answers, scores(weights, test).numpy(), test.y.numpy(), bounds.max_parity_error)
    model = atomic.write_bytes(run.file(ONNX), content)
    metadata = contract.open_inference_metadata(None, None, signature).write(run.file(METADATA))
    stored = atomic.write_bytes(run.file(SAMPLE), sample.write(session, rows))
    exported = ExportedModel(
        onnx=model,
        metadata=metadata,
        sample=stored,
        profile=drift.reference(TASKS[prepared.task], {name: values.T for name, values in answers.items()}),
        gates=(*parity, *servability(model, metadata.path, stored.path, bounds)),
    )
    gates.enforce(exported, exported.gates, run)
    return exported
