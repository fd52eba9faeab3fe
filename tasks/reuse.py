"""When two calls of a stage are the same: equal inputs, code, libraries and kind of device."""

import functools
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

from tasks import devices
from tasks.parameters import Device

PACKAGES = (
    "gradmill", "jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "pillow",
    "prefect", "safetensors", "scipy", "torch", "torchmetrics", "torchvision",
)  # fmt: skip


IRRELEVANT = {"device", "source"}  # the kind of device that is really used counts (``device_kind``), not the wish


def key(stage: str, inputs: dict[str, Any]) -> str:
    """SHA-256 (hex) of everything that a stage's outcome depends on; ``inputs`` are its arguments by name."""
    depends_on = {
        "stage": stage,
        "inputs": {name: _content(value) for name, value in inputs.items() if name != "run"},
        "code": code_digest(),
        "packages": package_versions(),
        "device": device_kind(inputs),
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


def _content(value: Any) -> Any:
    """A value as JSON: files by their digest alone, and nothing that cannot change a result."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        if "path" in value and "sha256" in value:
            return value["sha256"]
        return {name: _content(each) for name, each in value.items() if name not in IRRELEVANT}
    return [_content(each) for each in value] if isinstance(value, list | tuple) else value


def device_kind(inputs: dict[str, Any]) -> str:
    """Where a stage with these inputs computes: the same numbers are not expected of a CPU and a GPU."""
    wanted = [value.device for value in inputs.values() if isinstance(getattr(value, "device", None), Device)]
    return "cuda" if wanted and wanted[0] is not Device.CPU and devices.cuda_fault() is None else platform.machine()


@functools.cache
def code_digest() -> str:
    """SHA-256 of all source files below ``tasks/``: stages share leaves and networks, so none is left out."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")) + sorted(folder.rglob("*.jinja")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@functools.cache
def package_versions() -> dict[str, str]:
    """The installed versions of everything that can change a result, Python included."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
