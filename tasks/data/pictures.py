"""Pictures as the models take them: 8-bit grey or RGB, of one size."""

import functools
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tasks.errors import DataError

FORMATS = ("PNG", "JPEG")  # whatever a file is named: for others Pillow may start a program, such as Ghostscript
LARGEST_PIXELS = 64_000_000  # what a picture may unpack to


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize one image ``(h, w)`` or ``(h, w, 3)``, bilinear with antialiasing (as torchvision)."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@functools.cache
def _bombs_are_errors() -> None:
    """Once, for filters are of the whole process: too large a picture is one to reject, not to write of to stderr."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode(path: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """One picture file as an array of ``shape``, upright, and what had to be done to it.

    Raises:
        DataError: it cannot be decoded, is too large, or has more than 8 bits a channel.
    """
    mode = "L" if len(shape) == 2 else "RGB"
    notes = []
    _bombs_are_errors()
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > LARGEST_PIXELS:
                raise ValueError(f"{picture.width} by {picture.height} pixels are too many")
            if picture.mode.startswith(("I", "F")):
                raise ValueError(f"mode {picture.mode} has more than 8 bits a channel")
            upright = ImageOps.exif_transpose(picture)
            if upright.mode != mode:
                upright = upright.convert(mode)
                notes.append("converted to grey" if mode == "L" else "converted to RGB")
            if upright.size != (shape[1], shape[0]):
                upright = upright.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
                notes.append(f"resized to {shape[1]} by {shape[0]}")
            return np.asarray(upright), tuple(notes)
    except Exception as error:  # Pillow's are of any kind: struct.error of a broken Exif tag
        raise DataError(f"{path} is no picture: {error}", "an 8-bit PNG or JPEG", "repair or remove it") from error
