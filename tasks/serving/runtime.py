"""onnxruntime sessions that run where they claim to, and ``sample.npz``, with which consumers check their own."""

import ctypes
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.data.recipe import Recipe
from tasks.errors import DataError
from tasks.machine import devices
from tasks.machine.run_messages import print_message
from tasks.parameters import Device
from tasks.store.artifact_paths import SAMPLE
from tasks.store.verified_files import RESTORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
ROWS = 8  # in a sample
TOLERANCE = 2e-5  # how far runtimes may differ (docs/consumers.md, "Other runtimes")
BATCH = 1024  # rows that stay in the cache
VALUES = 2**24  # values per batch where rows have so many pixels that, as float32, a batch would take gigabytes
# The smallest model for which every provider has a kernel: y = Relu(x), float32 [1], opset 14.
PROBE = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x0e"
)


def import_onnxruntime() -> Any:
    """The package onnxruntime, with telemetry switched off before it loads: it ignores DO_NOT_TRACK."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def open_session(model: bytes, device: Device, path: Path | str = "the model") -> Any:
    """An ``onnxruntime.InferenceSession`` for a model's bytes; the caller reads the file and compares its digest.

    ``path`` is where the bytes were read from.

    One thread: these graphs are too small to share one batch among cores (docs/speed.md). With ``cuda`` the model
    runs on the GPU or not at all; ``auto`` takes the CPU where CUDA cannot be used, and says so.

    Raises:
        DeviceMissing: CUDA was requested and its provider does not load.
        DataError: the bytes are not a model, or not one that onnxruntime can run.
    """
    fault = None if device is Device.CPU else devices.cuda_fault()
    if fault and device is Device.CUDA:
        raise devices.missing_gpu(fault)
    # onnxruntime raises its own types, RuntimeError and ValueError here.
    if device is not Device.CPU and not fault:
        try:
            return _start(model, CUDA)
        except Exception as error:
            reason = f"onnxruntime cannot use the GPU: {_reason(error)}"
            if device is Device.CUDA:
                raise devices.missing_gpu(reason) from error
            print_message(f"predicting on the CPU, because {reason}")
    try:
        return _start(model, CPU)
    except Exception as error:
        found = f"{path} does not load: {str(error).splitlines()[0]}"
        raise DataError(found, "a model that onnxruntime runs", RESTORE) from error


def run_model(session: Any, rows: "NDArray[Any]") -> "dict[str, NDArray[Any]]":
    """Every output of the model for all ``rows``, by name: probabilities are ``(n, classes)``, others ``(n,)``."""
    import numpy as np  # here, as below: doctor looks for onnxruntime where numpy may be broken

    size = max(1, min(BATCH, VALUES // max(1, math.prod(rows.shape[1:]))))
    answers = list(run_batches(session, rows, size))
    return {name: np.concatenate([outputs[name] for outputs in answers]) for name in answers[0]}


def run_batches(session: Any, rows: "NDArray[Any]", size: int) -> "Iterator[dict[str, NDArray[Any]]]":
    """The outputs of the model by name, for ``size`` rows at a time; without rows there is one empty batch."""
    import numpy as np

    (source,) = session.get_inputs()
    names = [node.name for node in session.get_outputs()]
    for start in range(0, max(1, len(rows)), size):
        batch = np.ascontiguousarray(rows[start : start + size])
        yield dict(zip(names, session.run(names, {source.name: batch}), strict=True))


def get_provider(session: Any) -> str:
    """The execution provider that really runs ``session``."""
    first: str = session.get_providers()[0]
    return first


def find_fault(wanted: str) -> str | None:
    """Why the provider ``wanted`` does not run a model in this process, in one line; None where it does."""
    onnxruntime = import_onnxruntime()
    if wanted not in onnxruntime.get_available_providers():
        return "it is not in this build of onnxruntime"
    onnxruntime.set_default_logger_severity(4)  # why a library does not load would go to stderr, in colours
    try:
        _start(PROBE, wanted)
    except Exception as error:  # onnxruntime raises its own types, RuntimeError and ValueError here
        return _reason(error)
    finally:
        onnxruntime.set_default_logger_severity(2)  # onnxruntime's own default
    return None


def _reason(error: Exception) -> str:
    """The library that the CUDA provider lacks, which onnxruntime only logs; otherwise the first line of ``error``."""
    provider_library = Path(import_onnxruntime().__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider_library))
    except OSError as missing:
        if provider_library.exists() and "cannot open shared object file" in str(missing):
            return str(missing)
    return str(error).splitlines()[0]


def tell_device(device: Device) -> None:
    """Print, at the start of a run that may use the GPU, which one it sees and whether onnxruntime runs on it."""
    if device is Device.CPU or devices.cuda_fault():
        return
    because = find_fault(CUDA)
    print_message(f"{devices.query_driver()}; onnxruntime runs {f'{CPU}, not {CUDA}: {because}' if because else CUDA}")


def _start(model: bytes, wanted: str) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # faults reach us as exceptions
    providers: list[Any] = [wanted]
    if wanted == CUDA:
        onnxruntime.preload_dlls()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(CUDA, {"use_tf32": "0"})]  # TF32 would cost three digits and the parity gate
    session = onnxruntime.InferenceSession(model, sess_options=options, providers=providers)
    if (found := get_provider(session)) != wanted:
        raise RuntimeError(f"asked for {wanted}, got {found}")
    return session


def write_sample(session: Any, recipe: Recipe, rows: "NDArray[Any]") -> bytes:
    """A few of ``rows``, as ``recipe`` chooses them, with the answers of ``session``, as an npz file."""
    import numpy as np

    (source,), chosen = session.get_inputs(), recipe.choose_sample(rows, ROWS)
    arrays: dict[str, Any] = {source.name: chosen, **run_model(session, chosen)}
    with io.BytesIO() as stream:
        np.savez(stream, **arrays)
        return stream.getvalue()


def find_tolerance(recipe: Recipe) -> float:
    """How far an answer may differ; for a predicted number, in target deviations plus two spacings of float32."""
    import numpy as np

    target = recipe.target_scaling
    return TOLERANCE * target.scale + 2 * float(np.spacing(np.float32(target.typical_value)))


def read_sample(content: bytes, path: Path | str) -> "dict[str, NDArray[Any]]":
    """The inputs and outputs in ``sample.npz``, which was read from ``path``.

    Raises:
        DataError: it is not such a file.
    """
    import numpy as np

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # numpy and zipfile raise a dozen types here
        raise DataError(f"{path} holds no arrays", "a few inputs and outputs of the model", RESTORE) from error


def find_contradiction(session: Any, recipe: Recipe, content: bytes, path: Path | str = SAMPLE) -> str | None:
    """The first input or output where ``session`` does not agree with the sample, or None.

    It raises as ``read_sample`` does.
    """
    import numpy as np

    (source,), sample = session.get_inputs(), read_sample(content, path)
    try:
        outputs = run_model(session, sample[source.name])
    except Exception:  # a KeyError, or onnxruntime's own types when the shape differs
        return str(source.name)
    for name, found in outputs.items():
        fits = name in sample and found.shape == sample[name].shape
        if not fits or not np.allclose(found, sample[name], rtol=0, atol=find_tolerance(recipe)):
            return name
    return None
