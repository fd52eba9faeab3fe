"""Record batches in bounded anonymous memory: beyond it they lie in a file and are mapped back."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

HELD_BYTES = 128 * 2**20


class Spool:
    """Takes batches, whatever the schema of each, and gives them back in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: list[pa.RecordBatch] = []
        self._size = 0
        self._file: pa.NativeFile | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep a batch."""
        self._held.append(batch)
        self._size += batch.nbytes
        if self._size > HELD_BYTES or self._file is not None:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pa.OSFile(str(self._path), "wb")
        for batch in self._held:
            with pa.ipc.new_stream(self._file, batch.schema) as writer:
                writer.write_batch(batch)
        self._held, self._size = [], 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All batches; the file's name is gone afterwards, its content with the last array that lies in it."""
        if self._file is None:
            yield from self._held
            return
        self._file.close()
        mapped = pa.memory_map(str(self._path))
        self._path.unlink()
        end = mapped.size()
        while mapped.tell() < end:
            yield from pa.ipc.open_stream(mapped)
