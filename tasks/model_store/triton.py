"""``config.pbtxt``: what Triton needs to serve the champion, derived from ``champion.json``.

Triton reads the folder as it stands: versions are plain numbers, and ``version_policy`` names the champion alone.
The first dimension is part of the shapes (``max_batch_size: 0``), as in the ONNX file.
"""

from typing import Any

from tasks import artifact_paths, atomic
from tasks.artifact_paths import MANIFEST, METADATA
from tasks.errors import DataError
from tasks.model_store import reading

TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64"}


def config(name: str) -> str:
    """The text of ``config.pbtxt`` for the current champion.

    Raises:
        DataError: the champion's metadata are damaged; Triton keeps the configuration that it has.
    """
    pointer = reading.champion(name)
    if pointer is None:
        raise ValueError(f"{name} has no champion")
    number = pointer["version"]
    path = artifact_paths.version(name, number) / METADATA
    with reading.nothing_lacking(path.with_name(MANIFEST)):
        expected = reading.manifest(name, number)["files"][METADATA]
    metadata = reading.read_json(path)
    if atomic.file_digest(path) != expected:
        raise DataError(f"{path} has changed", f"{name} version {number} as it was published", "restore it from a copy")
    return describe(name, number, metadata)


def describe(name: str, number: int, metadata: dict[str, Any]) -> str:
    """The text of ``config.pbtxt`` that serves one version, from its ``metadata.json``."""
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
    for kind in ("input", "output"):
        for tensor in metadata[f"{kind}s"]:
            dims = ", ".join(map(str, tensor["shape"]))
            lines.append(
                f'{kind} {{ name: "{tensor["name"]}" data_type: {TYPES[tensor["datatype"]]} dims: [ {dims} ] }}'
            )
    lines.append(f"version_policy {{ specific {{ versions: [ {number} ] }} }}")
    return "\n".join(lines) + "\n"


def write_config(name: str) -> None:
    """Write ``config.pbtxt`` if it is not what it should be; the caller holds the lock."""
    if not is_derived(name):
        atomic.write_bytes(artifact_paths.triton_config(name), config(name).encode())


def is_derived(name: str) -> bool:
    """Whether ``config.pbtxt`` is what the champion makes it."""
    path = artifact_paths.triton_config(name)
    return path.is_file() and path.read_bytes() == config(name).encode()
