"""onnxruntime sessions side by side: one per core on the CPU, two on a GPU, which all threads share."""

import functools
import math
import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tasks.machine.arrays import Array
from tasks.parameters import Device
from tasks.serving import contract, runtime
from tasks.serving.contract import Tensor
from tasks.store import verified_files
from tasks.store.record_base import FileRef

CUDA_BATCH_SIZE = 16384
CPU_BATCH_SIZES = (1024, 8192)  # the fewest and the most rows that are run at a time
CPU_BATCH_VALUES = 2**16  # values of the rows of a batch between these limits: they fit the cache (docs/speed.md)
CUDA_SESSIONS = 2  # one copies while the other computes
POOLS = 8  # that a process keeps open: a Dask worker has shards of several jobs in turns

Buffers: TypeAlias = dict[str, Array]
Worker: TypeAlias = tuple[Any, Buffers]  # a session, which several may share, and buffers of its own


class SessionPool:
    """What a process predicts with: a number of threads, each with a session and buffers for its answers."""

    def __init__(self, sessions: list[Any], workers: int) -> None:
        self.signature = contract.read_signature(sessions[0])
        self._idle = queue.SimpleQueue[Worker]()
        for number in range(workers):
            self._idle.put((sessions[number % len(sessions)], {}))

    @contextmanager
    def hold_worker(self) -> Iterator[Worker]:
        """Hold a core. Threads that only wait for the disk should hold none."""
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def run(self, values: Array, batch_size: int, worker: Worker) -> Buffers:
        """Every output by name, with the rows last: ``(n,)`` or ``(classes, n)``, the layout that Parquet columns need.

        The outputs lie in the worker's buffers, and are valid until it runs again.
        """
        session, buffers = worker
        if not buffers or next(iter(buffers.values())).shape[-1] < len(values):
            buffers.update(empty_outputs(self.signature.outputs, len(values)))
        outputs = {name: buffer[..., : len(values)] for name, buffer in buffers.items()}
        for number, answers in enumerate(runtime.run_batches(session, values, batch_size)):
            rows = slice(number * batch_size, (number + 1) * batch_size)
            for name, column in outputs.items():
                column[..., rows] = answers[name].T
        return outputs


def empty_outputs(tensors: Iterable[Tensor], rows: int = 0) -> dict[str, Array]:
    """An uninitialised array ``(…, rows)`` for each output."""
    return {tensor.name: np.empty((*tensor.shape, rows), tensor.dtype) for tensor in tensors}


def default_batch_size(provider: str, shape: tuple[int, ...]) -> int:
    """How many rows of a ``shape`` are run at a time, unless a number was given."""
    if provider == runtime.CUDA:
        return CUDA_BATCH_SIZE
    fewest, most = CPU_BATCH_SIZES
    return max(fewest, min(most, CPU_BATCH_VALUES // math.prod(shape)))


def open_pool(model: Path, sha256: str, provider: str, workers: int) -> SessionPool:
    """This process's sessions for a model, opened once however many threads and jobs ask for them.

    Raises:
        DataError: the model file is gone or has other bytes than it had when the job was planned.
        DeviceMissing: the job was planned for CUDA and this process has none.
    """
    with _OPENING:
        return _open_pool(model, sha256, provider, workers)


_OPENING = threading.Lock()


@functools.lru_cache(maxsize=POOLS)
def _open_pool(model: Path, sha256: str, provider: str, workers: int) -> SessionPool:
    content = verified_files.read(
        FileRef(path=model, sha256=sha256), "restore the version, or run the job again with --restart"
    )
    is_cuda = provider == runtime.CUDA
    device, count = (Device.CUDA, CUDA_SESSIONS) if is_cuda else (Device.CPU, workers)
    return SessionPool([runtime.open_session(content, device) for _ in range(count)], workers)
