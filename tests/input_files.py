"""Files of small images in bytes, and how inputs of a prediction are read."""

import io
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from tasks.data.io import inputs
from tasks.data.io.batches import Batch, ReadSpec
from tasks.data.io.discovery import base_folder


def png(image: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    """A picture's content, of this kind or another."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def read(path: Path, wanted: ReadSpec, start: int = 0, stop: int | None = None) -> list[Batch]:
    """The rows of an input; what cannot be read from the middle is spilled beside it."""
    spool = path.parent / f"spool-{path.name}"
    sources = inputs.count_inputs(inputs.find_inputs(str(path)).files, wanted, spool, base_folder(path))
    end = sources[-1].first_row + sources[-1].rows
    return list(inputs.read_batches(sources, start, end if stop is None else stop, wanted))


def rejected(chunks: list[Batch]) -> dict[int, str]:
    return {chunk.first_row + at: reason for chunk in chunks for at, reason in chunk.reasons.items()}
