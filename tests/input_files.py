"""Input files of small images and of rows of two features, and how they are read."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from tasks.data.io import inputs
from tasks.data.io.batches import Batch, ReadSpec
from tasks.data.recipe import Column, Columns, Pixels

PICTURES = Pixels(shape=(4, 5), scale=1 / 255)
IMAGES = ReadSpec(PICTURES, y_name="labels")
RESIZED = ReadSpec(PICTURES.model_copy(update={"resize": "bilinear"}), y_name="labels")
FEATURES = ReadSpec(Columns(columns=(Column(name="x1"), Column(name="x2"))))
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (50, 4, 5), dtype=np.uint8)
ROWS = RNG.standard_normal((50, 2)).astype(np.float32)

Save = Callable[[Path, NDArray[Any]], object]


def idx_bytes(pixels: NDArray[Any]) -> bytes:
    return struct.pack(f">4B{pixels.ndim}I", 0, 0, 8, pixels.ndim, *pixels.shape) + pixels.tobytes()


def png(image: NDArray[Any]) -> bytes:
    """A file's content."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def parquet(path: Path, pixels: NDArray[Any], row_group_size: int = 8) -> None:
    """Pictures as the library ``datasets`` writes them."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": png(image), "path": None} for image in pixels], kind)
    pq.write_table(pa.table({"number": range(len(pixels)), "image": rows}), path, row_group_size=row_group_size)


def read(path: Path | str, wanted: ReadSpec, spool: Path, start: int = 0, stop: int | None = None) -> list[Batch]:
    sources = inputs.count_inputs(inputs.find_inputs(str(path)).files, wanted, spool)
    return list(
        inputs.read_batches(sources, start, sources[-1].first_row + sources[-1].rows if stop is None else stop, wanted)
    )


def values(chunks: list[Batch]) -> NDArray[Any]:
    return np.concatenate([chunk.X for chunk in chunks])


def rejected(chunks: list[Batch]) -> dict[int, str]:
    return {reject.row: reject.reason for chunk in chunks for reject in chunk.rejects}


def found_paths(source: str) -> list[Path]:
    """The files that an input stands for."""
    return [Path(file.path) for file in inputs.find_inputs(source).files]
