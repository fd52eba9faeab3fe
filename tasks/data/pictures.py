"""Pictures as the models take them: 8-bit grey or RGB, of one size."""

import functools
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tasks.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
# Whatever a file is named: for others Pillow may start a program, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
LARGEST_PIXELS = 64_000_000  # what a picture may unpack to
GREY_MODES = ("1", "L", "LA", "La")


class Picture(NamedTuple):
    """One picture as a model takes it, ``(height, width)`` or ``(height, width, 3)`` uint8, and what it was."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]  # width and height, upright
    mode: str  # as Pillow calls it: L, RGB, P, …
    is_grey: bool  # in what it shows, whatever its mode


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
    try:
        picture = read(path, shape)
    except Exception as error:  # Pillow's are of any kind: struct.error of a broken Exif tag
        raise DataError(
            f"{path} is no picture: {error}", "an 8-bit PNG, JPEG, WebP, BMP or GIF", "repair or remove it"
        ) from error
    notes = [f"converted to {'grey' if len(shape) == 2 else 'RGB'}"] if picture.mode != _mode(shape) else []
    notes += [f"resized to {shape[1]} by {shape[0]}"] if picture.size != (shape[1], shape[0]) else []
    return picture.pixels, tuple(notes)


def read(file: Path | str | IO[bytes], shape: tuple[int, ...], looks_for_colour: bool = False) -> Picture:
    """One picture of ``shape``, upright; of several in a file the first.

    Transparency is ignored. Without ``looks_for_colour`` whether it is grey is told by its mode alone.

    Raises:
        Exception: of any kind; it cannot be decoded, is too large, or has more than 8 bits a channel.
    """
    _bombs_are_errors()
    with Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > LARGEST_PIXELS:
            raise ValueError(f"{picture.width} by {picture.height} pixels are too many")
        mode = picture.mode
        if mode.startswith(("I", "F")):
            raise ValueError(f"mode {mode} has more than 8 bits a channel")
        upright = ImageOps.exif_transpose(picture)
        is_grey = mode in GREY_MODES
        size = (shape[1], shape[0])
        pixels = _fitted(upright, _mode(shape), size)
        if looks_for_colour and not is_grey:
            coloured = _fitted(upright, "RGB", size)
            is_grey = bool((coloured == coloured[..., :1]).all())
        return Picture(pixels, upright.size, mode, is_grey)


def of_array(image: NDArray[np.uint8], shape: tuple[int, ...]) -> Picture:
    """The same of an image ``(h, w)`` or ``(h, w, 3)`` that is decoded already."""
    is_grey = image.ndim == 2 or bool((image == image[..., :1]).all())
    size = (image.shape[1], image.shape[0])
    pixels = image if image.shape == shape else _fitted(Image.fromarray(image), _mode(shape), (shape[1], shape[0]))
    return Picture(pixels, size, "L" if image.ndim == 2 else "RGB", is_grey)


def _mode(shape: tuple[int, ...]) -> str:
    return "L" if len(shape) == 2 else "RGB"


def _fitted(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.mode == "P" and "transparency" in picture.info:  # of which Pillow warns otherwise
        picture = picture.convert("RGBA")
    if picture.mode != mode:
        picture = picture.convert(mode)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture)
