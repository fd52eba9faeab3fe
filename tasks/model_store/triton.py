"""``config.pbtxt``: what Triton needs to serve the champion, derived from ``champion.json``.

Triton reads the folder as it stands: versions are plain numbers, and ``version_policy`` names the champion alone.
The first dimension is part of the shapes (``max_batch_size: 0``), as in the ONNX file.
"""

from typing import Any

from tasks import artifact_paths, atomic
from tasks.artifact_paths import METADATA
from tasks.model_store import reading

TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64"}


def config(name: str) -> str:
    """The text of ``config.pbtxt`` for the current champion."""
    pointer = reading.champion(name)
    if pointer is None:
        raise ValueError(f"{name} has no champion")
    number = pointer["version"]
    return describe(name, number, reading.read_json(artifact_paths.version(name, number) / METADATA))


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
    path, text = artifact_paths.triton_config(name), config(name)
    if not path.is_file() or path.read_text() != text:
        atomic.write_bytes(path, text.encode())
