"""Stage 5: one self-contained ONNX file that takes raw inputs, proved equal to torch on the whole test split."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from tasks.fitting.splits import load_split, scores
from tasks.judging import gates
from tasks.judging.servability import servability
from tasks.networks.training import Split
from tasks.parameters import Device, Gates, Training
from tasks.records import ExportedModel, GateVerdict, PreparedDataset, TrainedModel
from tasks.serving import contract, drift, sessions
from tasks.serving.task import TASKS
from tasks.stage import stage
from tasks.store import atomic, verified
from tasks.store.artifact_paths import METADATA, ONNX, SAMPLE
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

IMAGE_METADATA = {  # keys of the ONNX standard, docs/MetadataProps.md
    "Image.BitmapPixelFormat": "Gray8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


@stage(reusable=True)
def export(
    run: RunFolder, prepared: PreparedDataset, trained: TrainedModel, training: Training, bounds: Gates
) -> ExportedModel:
    """Write ``model.onnx``, its metadata and a sample into the run's folder, and let the gates after export judge it.

    Raises:
        GateFailed: onnxruntime and torch differ on the test split by more than float32 rounding explains, or a fresh
            process cannot serve the file.
    """
    weights = load(verified.read(trained.weights))
    test = load_split(prepared, "test")
    signature = prepared.signature
    proto = to_onnx(weights, prepared.recipe.scale, signature)
    onnx.helper.set_model_props(proto, metadata(prepared, training, signature))
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString(deterministic=True)
    session = sessions.open_session(content, Device.CPU)
    found = contract.of_session(session)
    if found != signature:
        raise RuntimeError(f"the exporter wrote {found}, the contract is {signature}")
    outputs = answers(session, test.X.numpy())
    model = atomic.write_bytes(run.file(ONNX), content)
    exported = ExportedModel(
        onnx=model,
        metadata=contract.open_inference_metadata(None, None, signature).write(run.file(METADATA)),
        sample=_write_sample(run.file(SAMPLE), session, test.X[: contract.SAMPLE_ROWS].numpy()),
        profile=drift.reference(TASKS[prepared.task], outputs),
        gates=(
            *parity(outputs, scores(weights, test), test, bounds.max_parity_error),
            *servability(model, run.file(METADATA), run.file(SAMPLE), bounds),
        ),
    )
    gates.enforce(exported, exported.gates, run)
    return exported


def _write_sample(path: Path, session: Any, rows: NDArray[Any]) -> FileRef:
    """The first test inputs with the outputs that onnxruntime gives for them."""
    (source,) = session.get_inputs()
    names = [node.name for node in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {source.name: rows}), strict=True))
    with io.BytesIO() as stream:
        arrays: dict[str, Any] = {source.name: rows, **outputs}
        np.savez(stream, **arrays)
        return atomic.write_bytes(path, stream.getvalue())


class Classifier(nn.Module):
    """Raw pixels in, probabilities and label out; the scale is folded into the weights."""

    def __init__(self, W: Tensor, b: Tensor, scale: float) -> None:  # noqa: N803  (the book's letter)
        super().__init__()
        self.W, self.b = nn.Parameter(W * scale), nn.Parameter(b)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``images`` uint8 ``(batch, height, width)`` to ``(batch, classes)`` float32 and ``(batch,)`` int64."""
        probabilities = torch.softmax(images.flatten(1).to(torch.float32) @ self.W + self.b, dim=1)
        return probabilities, probabilities.argmax(dim=1)


class Regressor(nn.Module):
    """Raw features in, prediction out."""

    def __init__(self, W: Tensor, b: Tensor, scale: float) -> None:  # noqa: N803  (the book's letter)
        super().__init__()
        self.W, self.b = nn.Parameter(W * scale), nn.Parameter(b)

    def forward(self, features: Tensor) -> Tensor:
        """``features`` float32 ``(batch, inputs)`` to ``(batch,)`` float32."""
        return (features @ self.W + self.b).squeeze(1)


def to_onnx(weights: dict[str, Tensor], scale: float, signature: contract.Signature) -> onnx.ModelProto:
    """Export by torch's dynamo exporter, then remove everything that tells of this machine."""
    (source,) = signature.inputs
    module = (Classifier if source.name == contract.IMAGES else Regressor)(weights["W"], weights["b"], scale).eval()
    example = torch.zeros(2, *source.shape, dtype=getattr(torch, source.dtype))
    with warnings.catch_warnings():  # the exporter's own use of deprecated parts of torch
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=contract.OPSET,
            input_names=[source.name],
            output_names=[target.name for target in signature.outputs],
            dynamic_shapes={source.name: {0: torch.export.Dim(contract.BATCH)}},
        )
    assert program is not None, "dynamo=True returns a program"  # noqa: S101  (narrows the type)
    proto: onnx.ModelProto = program.model_proto
    strip(proto)
    return proto


def strip(proto: onnx.ModelProto) -> None:
    """Delete what torch notes about source files, at every level, so that equal models are equal bytes."""
    graph = proto.graph
    for part in (
        proto,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def metadata(prepared: PreparedDataset, training: Training, signature: contract.Signature) -> dict[str, str]:
    """``metadata_props``: what a consumer may want to know, and nothing that changes from day to day."""
    facts: dict[str, Any] = {
        "signature": signature.model_dump(mode="json"),
        "training": training.model_dump(mode="json", exclude={"device"}),
    }
    if prepared.class_names:
        facts["labels"] = prepared.class_names
    images = IMAGE_METADATA if prepared.recipe.kind == "pixels" else {}
    return {
        "dataset_digest": prepared.digest,
        **{key: json.dumps(value, sort_keys=True) for key, value in facts.items()},
        **images,
    }


def answers(session: Any, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Every output of the model for all ``rows`` by name, rows last: ``(n,)`` or ``(classes, n)``."""
    (source,) = session.get_inputs()
    batches = [session.run(None, {source.name: batch}) for batch in np.array_split(rows, max(1, len(rows) // 1024))]
    names = [node.name for node in session.get_outputs()]
    return {name: np.concatenate(parts).T for name, parts in zip(names, zip(*batches, strict=True), strict=True)}


def parity(found: dict[str, NDArray[Any]], o: Tensor, test: Split, max_error: float) -> tuple[GateVerdict, ...]:
    """Compare onnxruntime's answers on the raw test inputs with the trained weights' scores ``o`` ``(n, outputs)``.

    Probabilities may differ by ``max_error + 0.1·max_error·max|score|``, a prediction by ``max_error`` standard
    deviations of the target and two spacings of float32 at the largest prediction (which a target that never changes
    leaves room for); labels must be equal unless the two best probabilities are closer than that.
    """
    if contract.PREDICTION in found:
        return _regression_parity(found[contract.PREDICTION], o.squeeze(1).numpy(), float(test.y.std()), max_error)
    return _classification_parity(found[contract.PROBABILITIES].T, found[contract.LABEL], o, max_error)


def _regression_parity(
    found: NDArray[np.float32], expected: NDArray[np.float32], deviation: float, max_error: float
) -> tuple[GateVerdict, ...]:
    tolerance = max_error * deviation + 2 * float(np.spacing(np.abs(expected).max()))
    error = float(np.abs(found - expected).max())
    return (gates.judge("parity", error, maximum=tolerance, detail=f"predictions of {len(found)} rows"),)


def _classification_parity(
    probabilities: NDArray[np.float32], label: NDArray[np.int64], o: Tensor, max_error: float
) -> tuple[GateVerdict, ...]:
    tolerance = max_error + 0.1 * max_error * float(o.abs().max())
    best_two = o.softmax(dim=1).topk(2, dim=1)
    expected = o.softmax(dim=1).numpy()
    error = float(np.abs(probabilities - expected).max())
    clear = (best_two.values[:, 0] - best_two.values[:, 1]).numpy() > tolerance
    flipped = int(((label != best_two.indices[:, 0].numpy()) & clear).sum())
    return (
        gates.judge("parity", error, maximum=tolerance, detail=f"probabilities of {len(label)} rows"),
        gates.judge("parity_labels", flipped, maximum=0, detail="labels that differ, near ties aside"),
    )
