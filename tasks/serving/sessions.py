"""onnxruntime sessions that run where they say they run."""

import ctypes
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.machine import devices
from tasks.machine.telling import tell
from tasks.parameters import Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
BATCH = 1024  # rows that stay in the cache
VALUES = 2**24  # of rows of so many pixels that a batch would take gigabytes once they are float32
# The smallest model that has a kernel in every provider: y = Relu(x), float32 [1], opset 14.
PROBE = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x0e"
)


def package() -> Any:
    """The package onnxruntime, told before it loads to report nothing to its makers: it heeds no DO_NOT_TRACK."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def open_session(model: bytes, device: Device) -> Any:
    """An ``onnxruntime.InferenceSession`` for a model's bytes: a file is read, and compared, by who knows its digest.

    One thread: these graphs are too small to share one batch among cores (docs/speed.md). With ``cuda`` the model
    runs on the GPU or not at all; ``auto`` takes the CPU where CUDA cannot be used, and says so.

    Raises:
        DeviceMissing: CUDA was asked for and its provider does not load.
    """
    fault = None if device is Device.CPU else devices.cuda_fault()
    if device is Device.CPU or (device is Device.AUTO and fault):
        return _session(model, CPU)
    if fault:
        raise devices.missing(fault)
    try:
        return _session(model, CUDA)
    except Exception as error:  # onnxruntime raises its own types, RuntimeError and ValueError here
        reason = f"onnxruntime cannot use the GPU: {_reason(error)}"
        if device is Device.CUDA:
            raise devices.missing(reason) from error
        tell(f"predicting on the CPU, because {reason}")
        return _session(model, CPU)


def answers(session: Any, rows: "NDArray[Any]") -> "dict[str, NDArray[Any]]":
    """Every output of the model for all ``rows``, by name: probabilities are ``(n, classes)``, others ``(n,)``."""
    import numpy as np  # here: doctor looks for onnxruntime where numpy may be broken

    (source,) = session.get_inputs()
    names = [node.name for node in session.get_outputs()]
    size = max(1, min(BATCH, VALUES // max(1, math.prod(rows.shape[1:]))))
    batches = np.array_split(rows, max(1, len(rows) // size))
    outputs = zip(*(session.run(names, {source.name: batch}) for batch in batches), strict=True)
    return {name: np.concatenate(parts) for name, parts in zip(names, outputs, strict=True)}


def provider(session: Any) -> str:
    """The execution provider that really runs ``session``."""
    first: str = session.get_providers()[0]
    return first


def fault(wanted: str) -> str | None:
    """Why the provider ``wanted`` does not run a model in this process, in one line; None where it does."""
    onnxruntime = package()
    if wanted not in onnxruntime.get_available_providers():
        return "it is not in this build of onnxruntime"
    onnxruntime.set_default_logger_severity(4)  # what keeps a library from loading would go to stderr, in colours
    try:
        _session(PROBE, wanted)
    except Exception as error:  # onnxruntime raises its own types, RuntimeError and ValueError here
        return _reason(error)
    finally:
        onnxruntime.set_default_logger_severity(2)  # onnxruntime's own default
    return None


def _reason(error: Exception) -> str:
    """The library that the CUDA provider misses, which onnxruntime only logs; else the first line of ``error``."""
    provider_library = Path(package().__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider_library))
    except OSError as missing:
        if provider_library.exists() and "cannot open shared object file" in str(missing):
            return str(missing)
    return str(error).splitlines()[0]


def introduce(device: Device) -> None:
    """Print, at the start of a run that may use the GPU, which one it sees and whether onnxruntime runs on it."""
    if device is Device.CPU or devices.cuda_fault():
        return
    because = fault(CUDA)
    tell(f"{devices.driver()}; onnxruntime runs {f'{CPU}, not {CUDA}: {because}' if because else CUDA}")


def _session(model: bytes, wanted: str) -> Any:
    onnxruntime = package()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # faults reach us as exceptions
    providers: list[Any] = [wanted]
    if wanted == CUDA:
        onnxruntime.preload_dlls()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(CUDA, {"use_tf32": "0"})]  # TF32 would cost three digits and the parity gate
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=providers)
    if provider(session) != wanted:
        raise RuntimeError(f"asked for {wanted}, got {provider(session)}")
    return session
