"""``config.pbtxt``: what Triton needs to serve the champion, derived from ``champion.json``.

Triton reads the folder as it stands: versions are plain numbers, and ``version_policy`` names the champion alone.
The first dimension is part of the shapes (``max_batch_size: 0``), as in the ONNX file.
"""

from tasks.store import artifact_paths, atomic, reading

TYPES = {"UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "INT64": "TYPE_INT64"}


def config(name: str, number: int) -> str:
    """The text of ``config.pbtxt`` that serves one version.

    Raises:
        DataError: its manifest is damaged; Triton keeps the configuration that it has.
    """
    metadata = reading.manifest(name, number).metadata
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
    for kind, tensors in (("input", metadata.inputs), ("output", metadata.outputs)):
        for tensor in tensors:
            dims = ", ".join(map(str, tensor.shape))
            lines.append(f'{kind} {{ name: "{tensor.name}" data_type: {TYPES[tensor.datatype]} dims: [ {dims} ] }}')
    lines.append(f"version_policy {{ specific {{ versions: [ {number} ] }} }}")
    return "\n".join(lines) + "\n"


def write_config(name: str, champion: int) -> None:
    """Write ``config.pbtxt`` if it is not what the champion makes it; the caller holds the lock."""
    if not is_derived(name, champion):
        atomic.write_bytes(artifact_paths.triton_config(name), config(name, champion).encode())


def is_derived(name: str, champion: int) -> bool:
    """Whether ``config.pbtxt`` is what the champion makes it."""
    path = artifact_paths.triton_config(name)
    return path.is_file() and path.read_bytes() == config(name, champion).encode()
