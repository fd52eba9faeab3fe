"""What no prediction from a file to Parquet can be faster than: bare calls of numpy, onnxruntime and pyarrow.

The rows of our parts, by a session and a thread a core; nothing is checked, counted, told or forced to disk, and there
is no Prefect.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.batch import shard

BATCH, CHUNK = 1024, 2**17  # rows that are run, and that are written, at a time: the best of those that were tried


def rate(sessions: list[Any], path: Path, class_names: list[str], write: str) -> float:
    """Images a second, of a file ``.npy`` ``(n, 28, 28)`` uint8; ``write`` as ``gradmill predict``, beside the file."""
    begun = time.perf_counter()
    images = np.load(path, mmap_mode="r")  # of which the header alone is looked at: rows are read
    bounds = [len(images) * number // len(sessions) for number in range(len(sessions) + 1)]

    def part(number: int) -> None:
        rows, target = range(bounds[number], bounds[number + 1]), path.parent / f"part-{number:05d}.parquet"
        tables = _tables(sessions[number], path, images, rows, class_names, write == "all")
        first = next(tables)
        with shard.part_writer(target, first.schema) as into:  # pyarrow's, with our encodings
            into.write_table(first)
            for table in tables:
                into.write_table(table)

    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(part, range(len(sessions))))
    return len(images) / (time.perf_counter() - begun)


def _tables(
    session: Any, path: Path, images: "np.memmap[Any, Any]", rows: range, class_names: list[str], has_all: bool
) -> Iterator[pa.Table]:
    source, names = pa.array([str(path)]), pa.array(class_names)
    labels, probabilities = np.empty(CHUNK, np.int64), np.empty((len(class_names), CHUNK), np.float32)
    with path.open("rb") as file:
        for start in range(rows.start, rows.stop, CHUNK):
            count = min(CHUNK, rows.stop - start)
            place = images.offset + start * images[0].nbytes
            _run(session, file.fileno(), place, labels[:count], probabilities[:, :count] if has_all else None)
            columns: dict[str, pa.Array] = {
                "row": pa.array(np.arange(start, start + count)),
                "source": pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), source, safe=False),
                "label": pa.array(labels[:count]),
                "label_name": pa.DictionaryArray.from_arrays(labels[:count].astype(np.int8), names, safe=False),
            }
            if has_all:
                each_class = zip(class_names, probabilities, strict=True)
                columns |= {f"probability_{name}": pa.array(values[:count]) for name, values in each_class}
            fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
            yield pa.table(columns, schema=pa.schema(fields))


def _run(session: Any, file: int, place: int, labels: NDArray[Any], probabilities: NDArray[Any] | None) -> None:
    memory = np.empty((BATCH, 28, 28), np.uint8)
    outputs = ["label"] if probabilities is None else ["label", "probabilities"]
    for start in range(0, len(labels), BATCH):
        batch = memory[: len(labels) - start]
        os.preadv(file, [batch.data.cast("B")], place + start * batch[0].nbytes)
        found = session.run(outputs, {"images": batch})
        labels[start : start + BATCH] = found[0]
        if probabilities is not None:
            probabilities[:, start : start + BATCH] = found[1].T
