"""Whether this machine has an NVIDIA GPU and which, according to the driver: needs neither torch nor onnxruntime."""

import ctypes
from contextlib import suppress
from typing import NamedTuple

from tasks.errors import DeviceMissing
from tasks.parameters import Device

LIBRARY = "libcuda.so.1"
TEXT_BYTES = 128  # more than any name or version that the driver writes


class Gpu(NamedTuple):
    """One GPU as the driver describes it; ``memory`` in bytes."""

    name: str
    memory: int


class Driver(NamedTuple):
    """The NVIDIA driver: its own version (None where NVML is missing) and the newest CUDA that it runs, as ``13.0``."""

    version: str | None
    cuda: str
    gpus: tuple[Gpu, ...]

    def __str__(self) -> str:
        gpus = ", ".join(f"{gpu.name} ({gpu.memory / 2**30:.1f} GiB)" for gpu in self.gpus)
        return f"{gpus}, driver {self.version or 'of unknown version'}, CUDA {self.cuda}"


def cuda_fault() -> str | None:
    """Why CUDA cannot be used here, or None where the driver counts at least one GPU."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"the NVIDIA driver ({LIBRARY}) is not on this machine"
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):  # 0 is success
        return "the NVIDIA driver does not start"
    return None if count.value else "the NVIDIA driver sees no GPU"


def query_driver() -> Driver:
    """What the driver reports about itself and about the GPUs that this process may use.

    Raises:
        DeviceMissing: there is no usable GPU.
    """
    require(Device.CUDA)
    cuda = ctypes.CDLL(LIBRARY)
    newest, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(newest))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(cuda, ordinal) for ordinal in range(count.value))
    return Driver(_driver_version(), f"{newest.value // 1000}.{newest.value % 1000 // 10}", gpus)


def _gpu(cuda: ctypes.CDLL, ordinal: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(TEXT_BYTES)
    cuda.cuDeviceGet(ctypes.byref(device), ordinal)
    cuda.cuDeviceGetName(name, TEXT_BYTES, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return Gpu(name.value.decode(errors="replace"), memory.value)


def _driver_version() -> str | None:
    """The driver's version from NVML, which comes with the driver; everything else needs libcuda alone."""
    version = ctypes.create_string_buffer(TEXT_BYTES)
    with suppress(OSError):
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if not nvml.nvmlInit_v2() and not nvml.nvmlSystemGetDriverVersion(version, TEXT_BYTES):
            return version.value.decode(errors="replace")
    return None


def require(device: Device) -> None:
    """Fail early when CUDA is requested but unavailable.

    Raises:
        DeviceMissing: ``device`` is ``cuda`` and there is no usable GPU.
    """
    if device is Device.CUDA and (fault := cuda_fault()):
        raise missing_gpu(fault)


def missing_gpu(found: str) -> DeviceMissing:
    """The error for a GPU that is not there."""
    return DeviceMissing(found, "an NVIDIA GPU, since --device cuda was given", "use --device auto or --device cpu")
