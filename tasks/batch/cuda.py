"""One lane on a GPU: pinned host buffers, fixed device buffers, and a CUDA graph that replays on them.

onnxruntime captures the graph at a session's first run, for the addresses and the batch size of that run; so every
batch is copied into the same buffers and a short one is padded. Two lanes, each with its own stream, are the double
buffer: while one copies, the other computes.
"""

import ctypes
from typing import Any

import numpy as np

from tasks.data.readers.formats import Array
from tasks.machine.settings import Settings
from tasks.machine.telling import tell
from tasks.serving import contract, sessions

DEVICE = "cuda"
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every context


class CudaLane:
    """Called with a batch of at most ``batch_size`` rows; returns the outputs as views of its pinned buffers.

    The views hold until the next call. ``GRADMILL_CUDA_GRAPHS=0`` runs the kernels one by one instead.
    """

    def __init__(self, model: bytes, batch_size: int) -> None:
        onnxruntime = sessions.package()
        self._session = sessions.open_cuda_session(model, enable_cuda_graph=str(int(Settings().cuda_graphs)))
        self.signature = contract.of_session(self._session)
        (source,) = self.signature.inputs
        self._input = _pinned((batch_size, *source.shape), source.dtype)
        self._outputs = [_pinned((batch_size, *tensor.shape), tensor.dtype) for tensor in self.signature.outputs]
        self._binding = self._session.io_binding()
        self._device_input = onnxruntime.OrtValue.ortvalue_from_numpy(self._input, DEVICE, 0)
        self._binding.bind_ortvalue_input(source.name, self._device_input)
        self._device_outputs, self._host_outputs = [], []
        for tensor, host in zip(self.signature.outputs, self._outputs, strict=True):
            value = onnxruntime.OrtValue.ortvalue_from_numpy(host, DEVICE, 0)
            self._binding.bind_ortvalue_output(tensor.name, value)
            self._device_outputs.append(value)
            self._host_outputs.append(onnxruntime.OrtValue.ortvalue_from_numpy(host))  # shares the pinned memory

    def __call__(self, batch: Array) -> list[Array]:
        """The outputs of ``batch`` ``(n, …)``, ``n`` at most the batch size."""
        from onnxruntime.capi.onnxruntime_inference_collection import copy_tensors

        self._input[: len(batch)] = batch  # what an earlier batch left below is the padding
        self._device_input.update_inplace(self._input)
        self._session.run_with_iobinding(self._binding)
        copy_tensors(self._device_outputs, self._host_outputs)
        return [host[: len(batch)] for host in self._outputs]


def _pinned(shape: tuple[int, ...], dtype: str) -> Array:
    """A zeroed array in page-locked memory, from and to which the GPU copies at the bus's full speed."""
    array = np.zeros(shape, dtype)
    code = _runtime().cudaHostRegister(array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes), PORTABLE)
    if code:
        tell(f"the GPU's buffers are not pinned (cudaHostRegister says {code}): copies will be slower")
    return array


def _runtime() -> Any:
    """The CUDA runtime that onnxruntime has loaded already."""
    major = str(getattr(sessions.package(), "cuda_version", "") or "13").split(".")[0]
    return ctypes.CDLL(f"libcudart.so.{major}")
