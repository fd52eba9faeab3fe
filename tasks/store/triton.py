"""``config.pbtxt``: what Triton needs to serve the champion, derived from ``champion.json``.

Triton reads the folder as it stands: versions are plain numbers, and ``version_policy`` names the champion alone.
The first dimension is part of the shapes (``max_batch_size: 0``), as in the ONNX file.
"""

from tasks.serving.contract import ModelMetadata
from tasks.store import artifact_paths, atomic, reading
from tasks.store.artifact_paths import METADATA

TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64"}


def config(name: str) -> str:
    """The text of ``config.pbtxt`` for the current champion.

    Raises:
        DataError: the champion's metadata are damaged; Triton keeps the configuration that it has.
    """
    pointer = reading.champion(name)
    if pointer is None:
        raise ValueError(f"{name} has no champion")
    folder = artifact_paths.version(name, pointer.version)
    metadata = ModelMetadata.parse(reading.read_file(folder, METADATA), folder / METADATA)
    return describe(name, pointer.version, metadata)


def describe(name: str, number: int, metadata: ModelMetadata) -> str:
    """The text of ``config.pbtxt`` that serves one version, from its ``metadata.json``."""
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
    for kind, tensors in (("input", metadata.inputs), ("output", metadata.outputs)):
        for tensor in tensors:
            dims = ", ".join(map(str, tensor.shape))
            lines.append(f'{kind} {{ name: "{tensor.name}" data_type: {TYPES[tensor.datatype]} dims: [ {dims} ] }}')
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
