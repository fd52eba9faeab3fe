"""Sessions side by side: as many as cores on the CPU, two on a GPU, each used by one thread at a time."""

import functools
import math
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tasks.data.readers.formats import Array, Rows
from tasks.parameters import Device
from tasks.serving import contract, sessions
from tasks.store import verified
from tasks.store.record import FileRef

CUDA_BATCH_SIZE = 16384
CPU_BATCH_SIZES = (1024, 8192)  # the fewest and the most rows that are run at a time
CPU_BATCH_VALUES = 2**16  # of the rows in between: they fit the cache (docs/speed.md)
CUDA_LANES = 2  # one copies while the other computes

Memory: TypeAlias = dict[str, Array]
Lane = Callable[[Array], list[Array]]  # a batch (at most the batch size) to the outputs, in the signature's order


class Lanes:
    """What a process predicts with. ``working`` bounds the threads that use a core, ``run`` the sessions.

    Whoever holds a core has the memory for outputs that goes with it, so that none is made for every chunk.
    """

    def __init__(self, lanes: list[Lane], signature: contract.Signature, batch_size: int, workers: int) -> None:
        self.signature, self._batch_size = signature, batch_size
        self._cores: queue.SimpleQueue[Memory] = queue.SimpleQueue()
        for _ in range(workers):
            self._cores.put({})
        self._idle: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in lanes:
            self._idle.put(lane)

    @contextmanager
    def working(self) -> Iterator[Memory]:
        """Hold a core, and a memory for ``run``: to be left for whatever waits for the disk alone."""
        memory = self._cores.get()
        try:
            yield memory
        finally:
            self._cores.put(memory)

    def run(self, values: Rows, memory: Memory | None = None) -> dict[str, Array]:
        """Every output by name, with the rows last: ``(n,)`` or ``(classes, n)``, as Parquet wants its columns.

        In a ``memory`` they hold until that is used again.
        """
        outputs = _outputs({} if memory is None else memory, self.signature, len(values))
        lane = self._idle.get()
        try:
            start = 0
            for batch in _batches(values, self._batch_size):
                for column, found in zip(outputs.values(), lane(batch), strict=True):
                    column[..., start : start + len(batch)] = found.T
                start += len(batch)
        finally:
            self._idle.put(lane)
        return outputs


def _outputs(memory: Memory, signature: contract.Signature, num_rows: int) -> dict[str, Array]:
    for tensor in signature.outputs:
        if tensor.name not in memory or memory[tensor.name].shape[-1] < num_rows:
            memory[tensor.name] = np.empty((*tensor.shape, num_rows), tensor.dtype)
    return {name: held[..., :num_rows] for name, held in memory.items()}


def _batches(values: Rows, size: int) -> Iterator[Array]:
    if not isinstance(values, np.ndarray):
        return values.batches(size)
    return (values[start : start + size] for start in range(0, len(values), size))


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
        return Lanes([*cuda_lanes], cuda_lanes[0].signature, batch_size, workers)
    opened = [sessions.open_session(content, Device.CPU) for _ in range(workers)]
    return Lanes([_cpu_lane(session) for session in opened], contract.of_session(opened[0]), batch_size, workers)


def _cpu_lane(session: Any) -> Lane:
    (source,) = session.get_inputs()
    names = [node.name for node in session.get_outputs()]

    def lane(batch: Array) -> list[Array]:
        outputs: list[Array] = session.run(names, {source.name: np.ascontiguousarray(batch)})
        return outputs

    return lane
