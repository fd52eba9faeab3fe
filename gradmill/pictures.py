"""Pictures as the models take them, 8-bit grey or RGB of one size, with Pillow."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Whatever a file is named: for others Pillow may start a program, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
LARGEST_PIXELS = 64_000_000  # what a picture may unpack to
ORIENTATION_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # where Pillow looks for one


def read_pictures(rows: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Pictures ``(n, *shape)`` of a path or the content of a file, or of several, read and resized.

    Raises:
        ValueError: a file is no picture; it is named.
    """
    items = [rows] if isinstance(rows, str | bytes | Path) else list(rows)
    pictures = np.empty((len(items), *shape), np.uint8)
    for at, item in enumerate(items):
        name = f"picture {at}" if isinstance(item, bytes) else str(item)
        content = item if isinstance(item, bytes) else Path(item).read_bytes()
        try:
            pictures[at] = convert_picture(open_picture(content), shape)
        except Exception as error:  # Pillow's are of any kind: struct.error of a broken Exif tag
            raise ValueError(f"{name} is no picture: {error}") from error
    return pictures


def open_picture(content: bytes) -> Image.Image:
    """A file's picture, the first of several, upright.

    Raises:
        Exception: of any kind; it cannot be decoded, is too large, or has more than 8 bits a channel.
    """
    picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"mode {picture.mode} has more than 8 bits a channel: save it with 8")
    if picture.width * picture.height > LARGEST_PIXELS:
        raise ValueError(f"{picture.width} by {picture.height} pixels are more than {LARGEST_PIXELS:,}")
    picture.load()  # what comes after the pixels is known only then
    if not ORIENTATION_KEYS.isdisjoint(picture.info):
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def get_mode(shape: tuple[int, ...]) -> str:
    """What Pillow calls images of ``shape``; a last axis of one channel is grey, too."""
    return "RGB" if shape[2:] == (3,) else "L"


def convert_picture(picture: Image.Image, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A picture as ``(height, width)`` or ``(height, width, 3)``: bilinear with antialiasing (as torchvision).

    Transparency is ignored.
    """
    mode, size = get_mode(shape), (shape[1], shape[0])
    if picture.mode == "P" and "transparency" in picture.info:  # of which Pillow warns otherwise
        picture = picture.convert("RGBA")
    if picture.mode != mode:
        picture = picture.convert(mode)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(*size[::-1], *([3] if mode == "RGB" else []))
