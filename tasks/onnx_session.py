"""onnxruntime sessions that run where they say they run."""

from pathlib import Path
from typing import Any

from tasks import devices
from tasks.parameters import Device

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


def open_session(model: Path | bytes, device: Device) -> Any:
    """An ``onnxruntime.InferenceSession`` for a model file or its bytes.

    One thread: these graphs are too small to share one batch among cores (README, Speed). With ``cuda`` the model
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
        reason = f"onnxruntime cannot use the GPU: {str(error).splitlines()[0]}"
        if device is Device.CUDA:
            raise devices.missing(reason) from error
        print(f"predicting on the CPU, because {reason}")
        return _session(model, CPU)


def provider(session: Any) -> str:
    """The execution provider that really runs ``session``."""
    first: str = session.get_providers()[0]
    return first


def open_cuda_session(model: bytes, **options: str) -> Any:
    """A session that runs on the GPU or not at all, with more ``options`` of the CUDA provider.

    Raises:
        DeviceMissing: there is no usable GPU.
    """
    if fault := devices.cuda_fault():
        raise devices.missing(fault)
    return _session(model, CUDA, **options)


def _session(model: Path | bytes, wanted: str, **cuda_options: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # faults reach us as exceptions
    providers: list[Any] = [wanted]
    if wanted == CUDA:
        onnxruntime.preload_dlls()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(CUDA, {"use_tf32": "0", **cuda_options})]  # TF32 would cost three digits and the parity gate
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), sess_options=options, providers=providers
    )
    if provider(session) != wanted:
        raise RuntimeError(f"asked for {wanted}, got {provider(session)}")
    return session
