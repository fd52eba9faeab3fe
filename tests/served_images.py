"""The folder of a model of pictures as consumers see it, written by our exporter with weights drawn by chance."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime

from own_images import prepare
from tasks.parameters.training import Training
from tasks.serving import onnx_graph, runtime
from tasks.serving.contract import Signature
from tasks.serving.task import TASKS

LABELS = tuple(f"class {number}" for number in range(10))
OF_BLACK = 4  # the class that the bias chooses for a black picture


def write(models: Path) -> Path:
    """``softmax-regression`` below ``models``: version 3 of pictures of 28 by 28, which is the champion."""
    folder = models / "softmax-regression"
    (folder / "3").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (40, 28, 28), np.uint8)
    prepared = prepare(pictures, np.arange(40) % 10, LABELS)
    signature = Signature(inputs=(prepared.recipe.input,), outputs=TASKS["classification"].outputs(10))
    bias = np.eye(1, 10, OF_BLACK, dtype=np.float32)[0]
    weights = {"W": rng.normal(size=(784, 10)).astype(np.float32), "b": bias}
    training = Training.model_validate({"model": "softmax-regression"})
    written = onnx_graph.write_model(weights, prepared.recipe, signature, onnx_graph.describe_model(prepared, training))
    model = folder / "3" / "model.onnx"
    model.write_bytes(written)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (folder / "3" / "sample.npz").write_bytes(runtime.write_sample(session, prepared.recipe, pictures))
    (folder / "3" / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    facts = {"name": folder.name, "version": 3, "recipe": {"kind": "pixels"}, "metrics": {}, "files": {}}
    manifest = json.dumps(facts | {"dataset": {"class_names": LABELS}}).encode()
    (folder / "3" / "manifest.json").write_bytes(manifest)
    digests = {"model": written, "manifest": manifest}
    pointer = {f"{key}_sha256": hashlib.sha256(content).hexdigest() for key, content in digests.items()}
    (folder / "champion.json").write_text(json.dumps({"version": 3} | pointer))
    return folder
