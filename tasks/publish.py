"""Stage 6: the candidate becomes a version by one rename, then the champion."""

import importlib.metadata
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks import artifact_paths, model_store
from tasks.artifact_paths import LABELS, ONNX
from tasks.parameters import RetrainParameters
from tasks.records import Evaluation, ExportedModel, FileRef, PreparedDataset, PublishedModel, TrainedModel
from tasks.run_folder import RunFolder
from tasks.stage import stage

PACKAGES = ("gradmill", "numpy", "onnx", "onnxscript", "prefect", "safetensors", "torch", "torchvision")


@stage()
def publish(
    run: RunFolder,
    parameters: RetrainParameters,
    prepared: PreparedDataset,
    trained: TrainedModel,
    evaluated: Evaluation,
    exported: ExportedModel,
) -> PublishedModel:
    """Publish the exported model under its name, unless these very bytes are kept already."""
    name = parameters.name
    with model_store.lock(name):
        model_store.sweep(name)
        number = model_store.find(name, exported.onnx.sha256)
        pointer = model_store.champion(name) or {"version": 0}
        unchanged = number is not None and number <= pointer["version"]
        if number is None:
            facts = _manifest(run, parameters, prepared, trained, evaluated, exported)

            def fill(folder: Path, number: int) -> dict[str, Any]:
                shutil.copyfile(exported.onnx.path, folder / ONNX)
                if prepared.class_names:
                    (folder / LABELS).write_text("".join(f"{label}\n" for label in prepared.class_names))
                return {"schema_version": 1, "name": name, "version": number} | facts

            number = model_store.publish(name, fill)
        if not unchanged:
            model_store.point_to(name, number)
    published = PublishedModel(
        outcome="unchanged" if unchanged else "published",
        name=name,
        version=number,
        model=FileRef(path=artifact_paths.version(name, number) / ONNX, sha256=exported.onnx.sha256),
    )
    print(f"{name} version {number}: {published.outcome}")
    return published


def _manifest(
    run: RunFolder,
    parameters: RetrainParameters,
    prepared: PreparedDataset,
    trained: TrainedModel,
    evaluated: Evaluation,
    exported: ExportedModel,
) -> dict[str, Any]:
    """The version's lineage: what it was made of, by what, and how it was judged."""
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.path.name,
        "dataset": prepared.model_dump(mode="json"),
        "parameters": parameters.model_dump(mode="json"),
        "device": trained.device,
        "platform": platform.platform(),
        "packages": {"python": platform.python_version()} | _package_versions(),
        "metrics": evaluated.metrics,
        "gates": [verdict.model_dump() for verdict in (*evaluated.gates, *exported.gates)],
    }


def _package_versions() -> dict[str, str]:
    installed = {}
    for package in (*PACKAGES, "onnxruntime", "onnxruntime-gpu"):
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
