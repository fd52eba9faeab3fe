"""Whether this machine has an NVIDIA GPU, asked of the driver itself: needs neither torch nor onnxruntime."""

import ctypes
import sys

from tasks.errors import DeviceMissing
from tasks.parameters import Device

CUDA_SUCCESS = 0


def cuda_fault() -> str | None:
    """Why CUDA cannot be used here, or None where the driver counts at least one GPU."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"the NVIDIA driver ({library}) is not on this machine"
    count = ctypes.c_int()
    if driver.cuInit(0) != CUDA_SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != CUDA_SUCCESS:
        return "the NVIDIA driver does not start"
    return None if count.value else "the NVIDIA driver sees no GPU"


def require(device: Device) -> None:
    """Fail early when CUDA is asked for and cannot be had.

    Raises:
        DeviceMissing: ``device`` is ``cuda`` and there is no usable GPU.
    """
    if device is Device.CUDA and (fault := cuda_fault()):
        raise missing(fault)


def missing(found: str) -> DeviceMissing:
    """The error for a GPU that is not there."""
    return DeviceMissing(found, "an NVIDIA GPU, since --device cuda was given", "use --device auto or --device cpu")
