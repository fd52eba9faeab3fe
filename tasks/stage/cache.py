"""When two calls of a stage are the same (equal inputs, code, libraries, kind of device), and what the first returned.

Records are kept as JSON of ours, with a digest: one that is damaged is found out, and none can run code. The digest is
no proof of origin: whoever may write into artifacts/ can plant a record that is believed, as he can a model.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from tasks.errors import DataError
from tasks.machine import devices
from tasks.machine.telling import tell
from tasks.parameters import Device
from tasks.store import artifact_paths, atomic
from tasks.store.documents import Document
from tasks.store.record import NOT_IN_KEY, Record, files_in

R = TypeVar("R", bound=Record)
CODE = Path(__file__).parents[1]  # tasks/

PACKAGES = (
    "gradmill", "jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "pillow",
    "prefect", "pyarrow", "safetensors", "scipy", "torch", "torchvision",
)  # fmt: skip


def make_key(stage: str, inputs: dict[str, Any]) -> str:
    """SHA-256 (hex) of everything that a stage's outcome depends on; ``inputs`` are its arguments by name."""
    depends_on = {
        "stage": stage,
        "inputs": inputs,
        "code": code_digest(),
        "packages": package_versions(),
        "machine": platform.machine(),
    }
    return hashlib.sha256(json.dumps(depends_on, default=_simplify, sort_keys=True).encode()).hexdigest()


def _simplify(value: Any) -> Any:
    """A value for JSON, without fields marked ``NOT_IN_KEY``; a wish for a device is the kind that is really used."""
    if not isinstance(value, BaseModel):
        return to_jsonable_python(value)
    fields = type(value).model_fields
    simple = {name: each for name, each in value if NOT_IN_KEY not in fields[name].metadata}
    if isinstance(device := simple.get("device"), Device):  # the same numbers are not expected of a CPU and a GPU
        simple["device"] = "cpu" if device is Device.CPU or devices.cuda_fault() is not None else "cuda"
    return simple


@functools.cache
def code_digest(folder: Path = CODE) -> str:
    """SHA-256 of all source files in ``folder`` and in ``gradmill`` beside it.

    Stages share readers, networks and the like, so none is left out.
    """
    digest, shared = hashlib.sha256(), folder.with_name("gradmill")
    for path in [each for kind in ("*.py", "*.jinja") for each in sorted([*shared.rglob(kind), *folder.rglob(kind)])]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder.parent)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@functools.cache
def package_versions() -> dict[str, str]:
    """The installed versions of everything that can change a result, Python included."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


class StageRecord(Document):
    """What a stage returned; ``sha256`` is of everything else here."""

    key: str
    kind: str
    record: dict[str, Any]
    sha256: str

    @classmethod
    def seal(cls, key: str, kind: type[Record], content: dict[str, Any]) -> Self:
        """The ``content`` of a record of this ``kind`` with its digest."""
        sealed = json.dumps([key, kind.__name__, content], sort_keys=True).encode()
        return cls(key=key, kind=kind.__name__, record=content, sha256=hashlib.sha256(sealed).hexdigest())


def keep_record(key: str, record: Record) -> None:
    """Let later runs find ``record``; a file that cannot be written costs them time, and this run nothing."""
    sealed = StageRecord.seal(key, type(record), record.model_dump(mode="json"))
    try:
        sealed.write(artifact_paths.stage_record(key), is_kept=False)  # one that is damaged is not believed
    except OSError as error:
        tell(f"what this stage returned is not kept for later runs: {error}")


def find_record(key: str, kind: type[R]) -> R | None:
    """The record kept under ``key``, or None where there is none that is whole, down to every file it names.

    What is there and not used is said.
    """
    path = artifact_paths.stage_record(key)
    try:
        with contextlib.suppress(OSError):
            os.utime(path)  # first: to housekeeping it and its files are in use
        return _read(path, key, kind) if os.path.lexists(path) else None
    except (DataError, OSError, ValueError) as error:  # housekeeping may have been quicker
        tell(f"computed anew: {error.found if isinstance(error, DataError) else str(error).splitlines()[0]}")
    return None


def _read(path: Path, key: str, kind: type[R]) -> R:
    kept = StageRecord.read(path)
    if kept != StageRecord.seal(key, kind, kept.record):
        raise ValueError(f"{path} is damaged, or the record of another stage")
    record = kind.model_validate_json(json.dumps(kept.record), strict=True)
    verdicts = getattr(record, "gates", None)  # what a refused candidate has come to is not kept
    if verdicts is not None and not (verdicts and all(each.lets_pass for each in verdicts)):
        raise ValueError(f"{path} has gates that were not passed")
    for file in files_in(kept.record):
        if not (file.path.is_file() and atomic.file_digest(file.path) == file.sha256):
            raise ValueError(f"{file.path} is missing or damaged")
    return record
