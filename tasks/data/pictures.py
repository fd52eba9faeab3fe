"""Pictures as the models take them: 8-bit grey or RGB, of one size."""

import functools
import io
import warnings
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
# Whatever a file is named: for others Pillow may start a program, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SMALL_BYTES = 2**18  # files that are read at once: Pillow takes a third longer for many reads of a few bytes
LARGEST_PIXELS = 64_000_000  # what a picture may unpack to
GREY_MODES = ("1", "L", "LA", "La")
TURNED_BY = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # where Pillow looks for an orientation


class Picture(NamedTuple):
    """One picture as a model takes it, ``(height, width)`` or ``(height, width, 3)`` uint8, and what it was."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]  # width and height, upright
    mode: str  # as Pillow calls it: L, RGB, P, …
    is_grey: bool  # in what it shows, whatever its mode


@functools.cache
def _bombs_are_errors() -> None:
    """Once, for the limit is of the whole process: Pillow refuses twice as many pixels, even before it makes room."""
    Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS // 2
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def decode(file: Path | IO[bytes], shape: tuple[int, ...], name: str = "") -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """One picture, called ``name`` where it has no path, as an array of ``shape``, upright, and what was done to it.

    Raises:
        DataError: it cannot be decoded, is too large, or has more than 8 bits a channel.
    """
    try:
        picture = read(file, shape)
    except Exception as error:  # Pillow's are of any kind: struct.error of a broken Exif tag
        found = f"{name or file} is no picture: {reason(error)}"
        raise DataError(found, "an 8-bit PNG, JPEG, WebP, BMP or GIF", "repair or remove it") from error
    return picture.pixels, changes(picture.size, picture.mode, shape)


def reason(error: Exception) -> str:
    """Why a picture could not be read, in a line and without its name."""
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__


def changes(size: tuple[int, int], mode: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """What makes a picture of ``size`` (width, height) and Pillow's ``mode`` one of ``shape``, in words."""
    notes = [f"converted to {'grey' if len(shape) == 2 else 'RGB'}"] if mode != mode_of(shape) else []
    notes += [f"resized to {shape[1]} by {shape[0]}"] if size != (shape[1], shape[0]) else []
    return tuple(notes)


def read(file: Path | str | IO[bytes], shape: tuple[int, ...], looks_for_colour: bool = False) -> Picture:
    """One picture of ``shape``, upright; of several in a file the first.

    Transparency is ignored. Without ``looks_for_colour`` whether it is grey is told by its mode alone.

    Raises:
        Exception: of any kind; it cannot be decoded, is too large, or has more than 8 bits a channel.
    """
    _bombs_are_errors()
    with Image.open(_at_hand(file), formats=FORMATS) as picture:
        mode = picture.mode
        if mode.startswith(("I", "F")):
            raise ValueError(f"mode {mode} has more than 8 bits a channel: save it with 8")
        picture.load()  # what comes after the pixels is known only then
        if not TURNED_BY.isdisjoint(picture.info):
            ImageOps.exif_transpose(picture, in_place=True)
        is_grey = mode in GREY_MODES
        size = (shape[1], shape[0])
        pixels = _fitted(picture, mode_of(shape), size)
        if looks_for_colour and not is_grey:
            coloured = _fitted(picture, "RGB", size)
            is_grey = bool((coloured == coloured[..., :1]).all())
        return Picture(pixels, picture.size, mode, is_grey)


def _at_hand(file: Path | str | IO[bytes]) -> Path | str | IO[bytes]:
    """A small file's content, and any other file as it is."""
    if isinstance(file, (Path, str)):
        with open(file, "rb", buffering=0) as opened:  # noqa: PTH123  (a third of the time of a Path)
            content = opened.read(SMALL_BYTES)
            if not opened.read(1):
                return io.BytesIO(content)
    return file


def of_array(image: NDArray[np.uint8], shape: tuple[int, ...]) -> Picture:
    """The same of an image ``(h, w)`` or ``(h, w, 3)`` that is decoded already."""
    is_grey = image.ndim == 2 or bool((image == image[..., :1]).all())
    return Picture(fit(image, shape), (image.shape[1], image.shape[0]), mode_of(image.shape), is_grey)


def fit(image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Such an image as one of ``shape``, ``(h, w)`` or ``(h, w, 3)``: bilinear with antialiasing (as torchvision)."""
    if image.shape == shape:
        return image
    return _fitted(Image.fromarray(image), mode_of(shape), (shape[1], shape[0]))


def mode_of(shape: tuple[int, ...]) -> str:
    """What Pillow calls images of ``shape``."""
    return "L" if len(shape) == 2 else "RGB"


def _fitted(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.mode == "P" and "transparency" in picture.info:  # of which Pillow warns otherwise
        picture = picture.convert("RGBA")
    if picture.mode != mode:
        picture = picture.convert(mode)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(*size[::-1], *([3] if mode == "RGB" else []))
