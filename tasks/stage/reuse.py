"""When two calls of a stage are the same (equal inputs, code, libraries, kind of device), and what the first returned.

Records are kept as JSON of ours: a file that somebody damaged or planted is no record, and no code comes out of it.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.errors import DataError
from tasks.judging import gates
from tasks.machine import devices
from tasks.parameters import Device
from tasks.store import artifact_paths, atomic
from tasks.store.documents import Document
from tasks.store.record import FileRef, Record

R = TypeVar("R", bound=Record)

PACKAGES = (
    "gradmill", "jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "pillow",
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
    folder = Path(__file__).parents[1]
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


class KeptRecord(Document):
    """What a stage returned; ``sha256`` is of everything else here."""

    key: str
    kind: str
    record: dict[str, Any]
    sha256: str

    @classmethod
    def of(cls, key: str, record: Record) -> "KeptRecord":
        """The document that keeps ``record`` under ``key``."""
        kind, content = type(record).__name__, record.model_dump(mode="json")
        return cls(key=key, kind=kind, record=content, sha256=_digest(key, kind, content))


def _digest(key: str, kind: str, content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([key, kind, content], sort_keys=True).encode()).hexdigest()


def keep(key: str, record: Record) -> None:
    """Let later runs find ``record``; a file that cannot be written costs them time, and this run nothing."""
    try:
        KeptRecord.of(key, record).write(artifact_paths.stage_record(key))
    except OSError as error:
        print(f"what this stage returned is not kept for later runs: {error}")


def find(key: str, kind: type[R]) -> R | None:
    """The record kept under ``key``, or None where there is none that is whole, down to every file it names.

    What is there and not used is said.
    """
    path = artifact_paths.stage_record(key)
    if not os.path.lexists(path):
        return None
    try:
        return _read(path, key, kind)
    except DataError as fault:
        print(f"computed anew: {fault.found}")
        return None


def _read(path: Path, key: str, kind: type[R]) -> R:
    kept = KeptRecord.read(path)
    named = (kept.key, kept.kind, kept.sha256)
    if named != (key, kind.__name__, _digest(key, kind.__name__, kept.record)):
        raise DataError(f"{path} is damaged, or the record of another stage", kind.__name__, "compute it anew")
    try:
        record = kind.model_validate_json(json.dumps(kept.record), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise DataError(f"{path} is no {kind.__name__}: {first['msg']}", kind.__name__, "compute it anew") from error
    verdicts = getattr(record, "gates", None)
    if verdicts is not None and not (verdicts and all(map(gates.has_passed, verdicts))):  # a refused one is not kept
        raise DataError(f"{path} has gates that were not passed", "those of a candidate that went on", "judge it anew")
    for file in files_of(record):
        if not (file.path.is_file() and atomic.file_digest(file.path) == file.sha256):
            raise DataError(f"{file.path} is missing or damaged", "the file as it was written", "compute it anew")
    return record


def files_of(record: Record) -> list[FileRef]:
    """Every file that a record refers to."""
    found: list[FileRef] = []
    for _, value in record:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, FileRef):
                found.append(each)
            elif isinstance(each, Record):
                found += files_of(each)
    return found
