"""Pictures in the models' input format, 8-bit grey or RGB of one size, read with Pillow."""

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# Decided by content, not by file name: for other formats Pillow may start a program, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
LARGEST_PIXELS = 64_000_000  # limit of a decoded picture
ORIENTATION_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # where Pillow finds orientations


def read_pictures(rows: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read and resize pictures ``(n, *shape)`` from a path or a file's content, or from several.

    Raises:
        ValueError: a file cannot be used as a picture; the message names it.
    """
    is_one = isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable)
    items = [rows] if is_one else list(rows)
    pictures = np.empty((len(items), *shape), np.uint8)
    for at, item in enumerate(items):
        if isinstance(item, bytes):
            name, content = f"picture {at}", item
        elif not isinstance(item, str | os.PathLike):
            expected = f"the path or the content of a file, or a uint8 array of shape {shape}"
            raise ValueError(f"picture {at} is {type(item).__name__}, not {expected}")
        elif (path := Path(item)).is_dir():
            raise ValueError(f"{path} is a folder, not a picture: name its files")
        else:
            name, content = str(path), path.read_bytes()
        try:
            pictures[at] = convert_picture(open_picture(content), shape)
        except Exception as error:  # Pillow raises any kind: struct.error for a broken Exif tag
            raise ValueError(f"{name} cannot be used: {error}") from error
    return pictures


def open_picture(content: bytes) -> Image.Image:
    """Open a file's picture (the first of several), rotated upright.

    Raises:
        Exception: of any kind, if it cannot be decoded, is too large, or has more than 8 bits per channel.
    """
    try:
        picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(f"none of {', '.join(FORMATS)}, or one that is damaged") from error
    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"mode {picture.mode} has more than 8 bits a channel: save it with 8")
    if picture.width * picture.height > LARGEST_PIXELS:
        raise ValueError(f"{picture.width} by {picture.height} pixels are more than {LARGEST_PIXELS:,}")
    picture.load()  # data after the pixels are known only then
    if not ORIENTATION_KEYS.isdisjoint(picture.info):
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def get_mode(shape: tuple[int, ...]) -> str:
    """Pillow's mode for images of ``shape``; a last axis of one channel is grey too."""
    return "RGB" if shape[2:] == (3,) else "L"


def convert_picture(picture: Image.Image, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Resize a picture to ``(height, width)`` or ``(height, width, 3)``, bilinear with antialiasing as in torchvision.

    Transparency is ignored.
    """
    mode, size = get_mode(shape), (shape[1], shape[0])
    if picture.mode == "P" and "transparency" in picture.info:  # otherwise Pillow warns
        picture = picture.convert("RGBA")
    if picture.mode != mode:
        picture = picture.convert(mode)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(*size[::-1], *([3] if mode == "RGB" else []))
