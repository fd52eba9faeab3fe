"""Sessions side by side: as many as cores on the CPU, two on a GPU, each used by one thread at a time."""

import functools
import math
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.data.readers.formats import CHUNK_BYTES, Array, Rows
from tasks.parameters import Device
from tasks.serving import contract, sessions
from tasks.store import verified
from tasks.store.record import FileRef

CUDA_BATCH_SIZE = 16384
CPU_BATCH_SIZES = (1024, 8192)  # the fewest and the most rows that are run at a time
CPU_BATCH_VALUES = 2**16  # of the rows in between: they fit the cache (docs/speed.md)
CUDA_LANES = 2  # one copies while the other computes
Memory = dict[str, Array]  # for each output of a chunk, kept from chunk to chunk


class Lane(Protocol):
    """A session that finds its rows in ``memory`` ``(batch size, …)``, which stays in the cache."""

    memory: Array

    def __call__(self, size: int) -> list[Array]:
        """The outputs of the first ``size`` rows there, in the signature's order; they hold until the next call."""


class Lanes:
    """What a process predicts with. ``working`` bounds the threads that use a core, ``run`` the sessions."""

    def __init__(self, lanes: list[Lane], signature: contract.Signature, workers: int) -> None:
        self.signature = signature
        self._cores = threading.BoundedSemaphore(workers)
        self._idle: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in lanes:
            self._idle.put(lane)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold a core: to be left for whatever waits for the disk alone."""
        with self._cores:
            yield

    def run(self, values: Rows, memory: Memory) -> dict[str, Array]:
        """Every output by name, with the rows last: ``(n,)`` or ``(classes, n)``, as Parquet wants its columns.

        They lie in ``memory``, and hold until it is given again.
        """
        outputs = {}
        for tensor in self.signature.outputs:
            if tensor.name not in memory or memory[tensor.name].shape[-1] < len(values):
                memory[tensor.name] = np.empty((*tensor.shape, len(values)), tensor.dtype)
            outputs[tensor.name] = memory[tensor.name][..., : len(values)]
        lane = self._idle.get()
        try:
            start = 0
            for size in _filled(lane.memory, values):
                for column, found in zip(outputs.values(), lane(size), strict=True):
                    column[..., start : start + size] = found.T
                start += size
        finally:
            self._idle.put(lane)
        return outputs


def _filled(memory: Array, values: Rows) -> Iterator[int]:
    """Bring rows into ``memory``, as many at a time as it holds, and yield how many."""
    if not isinstance(values, np.ndarray):
        yield from values.fill(memory)
        return
    for start in range(0, len(values), len(memory)):
        batch = values[start : start + len(memory)]
        memory[: len(batch)] = batch
        yield len(batch)


def batch_size(provider: str, shape: tuple[int, ...]) -> int:
    """How many rows of a ``shape`` are run at a time, unless that is asked for."""
    if provider == sessions.CUDA:
        return CUDA_BATCH_SIZE
    fewest, most = CPU_BATCH_SIZES
    return max(fewest, min(most, CPU_BATCH_VALUES // math.prod(shape)))


def open_lanes(model: Path, sha256: str, provider: str, batch_size: int, workers: int) -> Lanes:
    """The lanes of this process, opened once for all shards of a job, however many threads ask at once.

    Raises:
        DataError: the model file is gone or has other bytes than it had when the job was planned.
        DeviceMissing: the job was planned for CUDA and this process has none.
    """
    with _OPENING:
        return _open_lanes(model, sha256, provider, batch_size, workers)


_OPENING = threading.Lock()


@functools.lru_cache(maxsize=1)
def _open_lanes(model: Path, sha256: str, provider: str, batch_size: int, workers: int) -> Lanes:
    content = verified.read(FileRef(path=model, sha256=sha256), "restore the version, or --restart the job")
    if provider == sessions.CUDA:
        from tasks.batch.cuda import CudaLane

        cuda_lanes = [CudaLane(content, batch_size) for _ in range(CUDA_LANES)]
        return Lanes([*cuda_lanes], cuda_lanes[0].signature, workers)
    lanes = [CpuLane(sessions.open_session(content, Device.CPU), batch_size) for _ in range(workers)]
    return Lanes([*lanes], lanes[0].signature, workers)


class CpuLane:
    """A session on the CPU. What is bound once needs no Python for each batch, which would keep other threads waiting.

    ``memory`` has no more rows than a chunk.
    """

    def __init__(self, session: Any, batch_size: int) -> None:
        self.signature = contract.of_session(session)
        (source,) = self.signature.inputs
        rows = max(1, min(batch_size, CHUNK_BYTES // (math.prod(source.shape) * np.dtype(source.dtype).itemsize)))
        self.memory = np.empty((rows, *source.shape), source.dtype)
        self._outputs = [np.empty((rows, *tensor.shape), tensor.dtype) for tensor in self.signature.outputs]
        self._session, self._found = session, list[Array]()
        self._bind(rows)

    def __call__(self, size: int) -> list[Array]:
        """The outputs of the first ``size`` rows of ``memory``."""
        if size != len(self._found[0]):
            self._bind(size)
        self._session.run_with_iobinding(self._binding)
        return self._found

    def _bind(self, size: int) -> None:
        value_of = sessions.package().OrtValue.ortvalue_from_numpy  # shares the memory
        self._found, self._binding = [output[:size] for output in self._outputs], self._session.io_binding()
        self._binding.bind_ortvalue_input(self.signature.inputs[0].name, value_of(self.memory[:size]))
        for tensor, found in zip(self.signature.outputs, self._found, strict=True):
            self._binding.bind_ortvalue_output(tensor.name, value_of(found))
