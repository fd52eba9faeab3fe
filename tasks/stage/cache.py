"""When two calls of a stage are the same (equal inputs, code, libraries, kind of device), and what the first returned.

Records are stored as our own JSON with a digest: damage is detected, and no record can run code. The digest is no proof
of origin: whoever may write to artifacts/ can plant a record that is believed, just as they can plant a model.
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
from tasks.machine.run_messages import print_message
from tasks.parameters import Device
from tasks.store import artifact_paths, verified_files
from tasks.store.documents import Document
from tasks.store.record_base import NOT_IN_KEY, Record, files_in

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
    """A value for JSON, without fields marked ``NOT_IN_KEY``; a requested device becomes the kind that is used."""
    if not isinstance(value, BaseModel):
        return to_jsonable_python(value)
    fields = type(value).model_fields
    simple = {name: each for name, each in value if NOT_IN_KEY not in fields[name].metadata}
    if isinstance(device := simple.get("device"), Device):  # a CPU and a GPU are not expected to give the same numbers
        simple["device"] = "cpu" if device is Device.CPU or devices.cuda_fault() is not None else "cuda"
    return simple


@functools.cache
def code_digest(folder: Path = CODE) -> str:
    """SHA-256 of all source files in ``folder`` and in ``gradmill`` beside it.

    Stages share readers, networks and other modules, so no file is left out.
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
    """What a stage returned; ``sha256`` is the digest of all the other fields."""

    key: str
    kind: str
    record: dict[str, Any]
    sha256: str

    @classmethod
    def seal(cls, key: str, kind: type[Record], content: dict[str, Any]) -> Self:
        """A record of this ``kind`` with this ``content``, and its digest."""
        sealed = json.dumps([key, kind.__name__, content], sort_keys=True).encode()
        return cls(key=key, kind=kind.__name__, record=content, sha256=hashlib.sha256(sealed).hexdigest())


def keep_record(key: str, record: Record) -> None:
    """Make ``record`` available to later runs; if the file cannot be written, only these lose time."""
    sealed = StageRecord.seal(key, type(record), record.model_dump(mode="json"))
    try:
        sealed.write(artifact_paths.stage_record(key), is_durable=False)  # a damaged record is not believed anyway
    except OSError as error:
        print_message(f"what this stage returned is not kept for later runs: {error}")


def find_record(key: str, kind: type[R]) -> R | None:
    """The record kept under ``key``, or None unless it is intact, including every file that it names.

    A record that exists but cannot be used is reported.
    """
    path = artifact_paths.stage_record(key)
    try:
        with contextlib.suppress(OSError):
            os.utime(path)  # first, so that housekeeping sees the record and its files as in use
        return _read(path, key, kind) if os.path.lexists(path) else None
    except (DataError, OSError, ValueError) as error:  # housekeeping may have been quicker
        print_message(f"computed again: {error.found if isinstance(error, DataError) else str(error).splitlines()[0]}")
    return None


def _read(path: Path, key: str, kind: type[R]) -> R:
    kept = StageRecord.read(path)
    if kept != StageRecord.seal(key, kind, kept.record):
        raise ValueError(f"{path} is damaged, or the record of another stage")
    record = kind.model_validate_json(json.dumps(kept.record), strict=True)
    verdicts = getattr(record, "gates", None)  # the record of a refused candidate is not kept
    if verdicts is not None and not (verdicts and all(each.lets_pass for each in verdicts)):
        raise ValueError(f"{path} has gates that were not passed")
    for file in files_in(kept.record):
        verified_files.check(file)
    return record
