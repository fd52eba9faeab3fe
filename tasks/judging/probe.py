"""Serve a model as an outsider would: with onnxruntime and numpy, and without any of Gradmill's code.

It runs as a script in a fresh process, ``python -I``, which reads ``[MODEL, SHA256, METADATA, SAMPLE, TOLERANCE]``
as JSON from stdin, so that it can start before the file exists. It prints one JSON object: ``sha256`` (of the bytes in
MODEL; if it is not SHA256, nothing else), ``faults`` (what would make a consumer fail), ``latency_ms`` (95th
percentile, one row), ``memory_mb`` (the peak of this process, in MiB).
"""

import hashlib
import json
import sys
import timeit
from typing import Any

import numpy as np
import onnxruntime

CALLS = 200
DATATYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FP32", "tensor(int64)": "INT64"}


def describe_nodes(nodes: Any) -> list[dict[str, Any]]:
    """Inputs or outputs as the Open Inference Protocol describes them."""
    return [
        {
            "name": node.name,
            "datatype": DATATYPES.get(node.type, node.type),
            "shape": [size if isinstance(size, int) else -1 for size in node.shape],
        }
        for node in nodes
    ]


def probe(model: bytes, metadata_path: str, sample_path: str, tolerance: float) -> dict[str, Any]:
    """Load the model, compare its signature, answer the sample and batches of 1 and 1,000, and time one row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with open(metadata_path) as stream:  # noqa: PTH123  (a stranger's script)
        metadata = json.load(stream)
    sample = dict(np.load(sample_path, allow_pickle=False))
    faults = []
    for kind, nodes in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        if describe_nodes(nodes) != metadata[kind]:
            faults.append(f"{kind} are {describe_nodes(nodes)}, metadata.json says {metadata[kind]}")
    columns = json.loads(session.get_modelmeta().custom_metadata_map.get("columns", "null"))
    if columns != metadata.get("parameters", {}).get("columns"):
        faults.append("columns of metadata_props are not those of metadata.json")
    source = session.get_inputs()[0].name
    names = [node.name for node in session.get_outputs()]
    rows = sample[source]
    for count in (len(rows), 1, 1000):
        batch = np.resize(rows, (count, *rows.shape[1:]))
        for name, found in zip(names, session.run(names, {source: batch}), strict=True):
            expected = np.resize(sample[name], (count, *sample[name].shape[1:]))
            if found.shape != expected.shape:
                faults.append(f"{name} of a batch of {count} has shape {found.shape}")
                continue
            error = float(np.abs(found.astype(np.float64) - expected).max())
            if not error <= tolerance:
                faults.append(f"{name} of a batch of {count} differs from the sample's by {error}")
    one = {source: np.ascontiguousarray(rows[:1])}
    seconds = timeit.repeat(lambda: session.run(names, one), number=1, repeat=CALLS)
    with open("/proc/self/status") as status:  # noqa: PTH123  (ru_maxrss counts the parent's before exec)
        memory = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    return {"faults": faults, "latency_ms": float(np.percentile(seconds, 95)) * 1000, "memory_mb": memory}


if __name__ == "__main__":
    path, sha256, metadata_file, sample_file, tolerance = json.load(sys.stdin)
    with open(path, "rb") as stream:  # noqa: PTH123  (a stranger's script)
        content = stream.read()
    found: dict[str, Any] = {"sha256": hashlib.sha256(content).hexdigest()}
    if found["sha256"] == sha256:
        found |= probe(content, metadata_file, sample_file, tolerance)
    print(json.dumps(found))  # noqa: T201  (to the process that asked)
