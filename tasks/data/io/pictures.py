"""Pictures as the models take them, 8-bit grey or RGB in one size: with Pillow, and with few imports.

A process that decodes pictures imports this module but none that reads tables.
"""

import hashlib
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gradmill.pictures import LARGEST_PIXELS, convert_picture, get_mode, open_picture
from tasks.errors import DataError
from tasks.store import regular_files

LARGEST_BYTES = 4 * LARGEST_PIXELS + 2**20  # bytes read from a file: no format needs more for its first picture
GREY_MODES = ("1", "L", "LA", "La")
BLOCK_BYTES = 2**20  # of pixels that are written at once
# This limit is for the whole process: Pillow refuses twice as many pixels, before it allocates memory.
Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS // 2
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

Shape: TypeAlias = tuple[int, ...]
Item: TypeAlias = "Path | str | bytes | NDArray[np.uint8]"  # the path of a picture, a file's content, decoded pixels
# What is known about each image.
FACTS = np.dtype(
    [
        ("hash", np.uint64),  # 8-byte BLAKE2b of the pixels, as a little-endian number
        ("brightness", np.float32),  # the mean of the pixels, 0 to 255
        ("width", np.int32),  # original width
        ("height", np.int32),
        ("mode", "S5"),  # as Pillow names it
        ("is_grey", np.bool_),
        ("is_readable", np.bool_),
    ]
)


def decode(file: Item, shape: Shape, name: str = "") -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """One picture, called ``name`` where it has no path, as an array of ``shape``, upright, and what was done to it.

    Raises:
        DataError: it cannot be decoded, is too large, or has more than 8 bits per channel.
    """
    pixels, _, reasons, notes = decode_pictures([file], shape)
    if reasons:
        found = f"{name or file!s} cannot be used: {reasons[0]}"
        raise DataError(found, "an 8-bit PNG, JPEG, WebP, BMP or GIF", "repair or remove it")
    return pixels[0], notes


def _describe_error(error: Exception) -> str:
    """Why a picture could not be read, in one line without its name."""
    if isinstance(error, DataError):
        return error.found
    return " ".join(str(error).split()) or type(error).__name__


def read_picture(
    item: Item, shape: Shape, looks_for_colour: bool
) -> tuple[NDArray[np.uint8], tuple[int, int], str, bool]:
    """One picture of ``shape``, ``(h, w)`` or ``(h, w, 3)``, upright; if a file has several, the first.

    It is followed by its original size (width and height) and mode, and whether its content is grey: without
    ``looks_for_colour`` this is judged by its mode alone. Transparency is ignored.

    Raises:
        Exception: of any kind; it cannot be decoded, is too large, or has more than 8 bits per channel.
    """
    if isinstance(item, np.ndarray):
        is_grey = item.ndim == 2 or (looks_for_colour and bool((item == item[..., :1]).all()))
        return fit(item, shape), (item.shape[1], item.shape[0]), get_mode(item.shape), is_grey
    content = item if isinstance(item, bytes) else _read_file(item)
    with open_picture(content) as picture:
        is_grey = picture.mode in GREY_MODES
        if looks_for_colour and not is_grey:
            coloured = convert_picture(picture, (*shape[:2], 3))
            is_grey = bool((coloured == coloured[..., :1]).all())
        return convert_picture(picture, shape), picture.size, picture.mode, is_grey


def _read_file(path: Path | str) -> bytes:
    """Read a file at once: Pillow is slower by a third if it reads a few bytes at a time.

    A file that claims to have no bytes is not read: those of /proc claim this, and reading some of them never ends.
    """
    descriptor = regular_files.open_descriptor(path)
    try:
        return os.read(descriptor, min(os.fstat(descriptor).st_size, LARGEST_BYTES))
    finally:
        os.close(descriptor)


def fit(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """An image of ``shape`` from such an image, or ``(h, w, 1)``: bilinear with antialiasing (as in torchvision)."""
    if image.shape[2:] == (1,):
        image = image[..., 0]
    if image.shape == shape:
        return image
    return convert_picture(Image.fromarray(image), shape)


def decode_pictures(
    items: Sequence[Item], shape: Shape, looks_for_colour: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.void], dict[int, str], tuple[str, ...]]:
    """Some pictures of ``shape``, black if unreadable, and why; their ``FACTS`` except hash and brightness.

    The last item has notes on what was done to some of them.
    """
    pixels, facts = np.zeros((len(items), *shape), np.uint8), np.zeros(len(items), FACTS)
    reasons, notes = dict[int, str](), list[str]()
    for at, item in enumerate(items):
        try:
            pixels[at], size, mode, is_grey = read_picture(item, shape, looks_for_colour)
        except Exception as error:  # Pillow raises any kind, such as struct.error for a broken Exif tag
            reasons[at] = _describe_error(error)
        else:
            facts[at] = (0, 0, *size, mode, is_grey, True)
            if mode != get_mode(shape):
                notes.append(f"converted to {'grey' if len(shape) == 2 else 'RGB'}")
            if size != (shape[1], shape[0]):
                notes.append(f"resized to {shape[1]} by {shape[0]}")
    return pixels, facts, reasons, tuple(notes)


def decode_job(
    job: tuple[int, Sequence[Item]], shape: Shape, looks_for_colour: bool, spill_file: Path
) -> tuple[NDArray[np.void], dict[int, str]]:
    """Decode some images and write them to their place in the file ``spill_file``.

    A job is the number of its first image among all of the source, and the images; the answer their ``FACTS`` ``(n,)``
    and why some are unreadable, by number among all.
    """
    first, items = job
    size = math.prod(shape)
    facts, reasons, rows = np.zeros(len(items), FACTS), dict[int, str](), max(1, BLOCK_BYTES // size)
    with spill_file.open("r+b") as file:
        file.seek(first * size)
        for start in range(0, len(items), rows):
            pixels, found, unreadable, _ = decode_pictures(items[start : start + rows], shape, looks_for_colour)
            flat = pixels.reshape(len(pixels), size)
            digests = b"".join(hashlib.blake2b(each.data, digest_size=8).digest() for each in flat)
            found["hash"] = np.frombuffer(digests, "<u8")
            found["brightness"] = flat.sum(axis=1, dtype=np.uint64) / size
            facts[start : start + rows] = found
            reasons |= {first + start + at: why for at, why in unreadable.items()}
            file.write(flat.data)
    return facts, reasons
