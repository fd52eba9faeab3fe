"""Pictures as the models take them, 8-bit grey or RGB of one size: with Pillow, and with few imports.

A process that decodes pictures imports this module and no reader of tables.
"""

import functools
import hashlib
import io
import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.errors import DataError
from tasks.store import regular_files

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
# Whatever a file is named: for others Pillow may start a program, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SMALL_BYTES = 2**18  # files that are read at once: Pillow takes a third longer for many reads of a few bytes
LARGEST_PIXELS = 64_000_000  # what a picture may unpack to
GREY_MODES = ("1", "L", "LA", "La")
ORIENTATION_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # where Pillow looks for one
BLOCK_BYTES = 2**20  # of pixels that are written together

Shape: TypeAlias = tuple[int, ...]
Item: TypeAlias = "str | bytes | NDArray[np.uint8]"  # the path of a picture file, its content, or decoded pixels


class Picture(NamedTuple):
    """One picture as a model takes it, ``(height, width)`` or ``(height, width, 3)`` uint8, and what it was."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]  # width and height, upright
    mode: str  # as Pillow calls it: L, RGB, P, …
    is_grey: bool  # in what it shows, whatever its mode


@functools.cache
def _limit_pixels() -> None:
    """Once, for the limit is of the whole process: Pillow refuses twice as many pixels, even before it makes room."""
    Image.MAX_IMAGE_PIXELS = LARGEST_PIXELS // 2
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def decode(file: Path | IO[bytes], shape: Shape, name: str = "") -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """One picture, called ``name`` where it has no path, as an array of ``shape``, upright, and what was done to it.

    Raises:
        DataError: it cannot be decoded, is too large, or has more than 8 bits a channel.
    """
    try:
        picture = read_picture(file, shape)
    except Exception as error:  # Pillow's are of any kind: struct.error of a broken Exif tag
        found = f"{name or file} is no picture: {reason(error)}"
        raise DataError(found, "an 8-bit PNG, JPEG, WebP, BMP or GIF", "repair or remove it") from error
    return picture.pixels, changes(picture.size, picture.mode, shape)


def reason(error: Exception) -> str:
    """Why a picture could not be read, in a line and without its name."""
    if isinstance(error, UnidentifiedImageError):
        return f"none of {', '.join(FORMATS)}"
    if isinstance(error, DataError):
        return error.found
    return " ".join(str(error).split()) or type(error).__name__


def changes(size: tuple[int, int], mode: str, shape: Shape) -> tuple[str, ...]:
    """What makes a picture of ``size`` (width, height) and Pillow's ``mode`` one of ``shape``, in words."""
    notes = [f"converted to {'grey' if len(shape) == 2 else 'RGB'}"] if mode != mode_of(shape) else []
    notes += [f"resized to {shape[1]} by {shape[0]}"] if size != (shape[1], shape[0]) else []
    return tuple(notes)


def read_picture(file: Path | str | IO[bytes], shape: Shape, looks_for_colour: bool = False) -> Picture:
    """One picture of ``shape``, upright; of several in a file the first.

    Transparency is ignored. Without ``looks_for_colour`` whether it is grey is told by its mode alone.

    Raises:
        Exception: of any kind; it cannot be decoded, is too large, or has more than 8 bits a channel.
    """
    _limit_pixels()
    source = _read_small(file) if isinstance(file, (Path, str)) else file
    with Image.open(source, formats=FORMATS) as picture:
        mode = picture.mode
        if mode.startswith(("I", "F")):
            raise ValueError(f"mode {mode} has more than 8 bits a channel: save it with 8")
        picture.load()  # what comes after the pixels is known only then
        if not ORIENTATION_KEYS.isdisjoint(picture.info):
            ImageOps.exif_transpose(picture, in_place=True)
        is_grey = mode in GREY_MODES
        size = (shape[1], shape[0])
        pixels = _convert(picture, mode_of(shape), size)
        if looks_for_colour and not is_grey:
            coloured = _convert(picture, "RGB", size)
            is_grey = bool((coloured == coloured[..., :1]).all())
        return Picture(pixels, picture.size, mode, is_grey)


def _read_small(file: Path | str) -> Path | str | IO[bytes]:
    """A small file's content; a large one as it is; nothing of a file that has no bytes by its own word.

    Those of /proc have none, and some of them wait for ever.
    """
    descriptor = regular_files.descriptor(file)
    try:
        size = os.fstat(descriptor).st_size
        return file if size > SMALL_BYTES else io.BytesIO(os.read(descriptor, SMALL_BYTES) if size else b"")
    finally:
        os.close(descriptor)


def convert_array(image: NDArray[np.uint8], shape: Shape) -> Picture:
    """The same of an image ``(h, w)`` or ``(h, w, 3)`` that is decoded already."""
    is_grey = image.ndim == 2 or bool((image == image[..., :1]).all())
    return Picture(fit(image, shape), (image.shape[1], image.shape[0]), mode_of(image.shape), is_grey)


def fit(image: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Such an image as one of ``shape``, ``(h, w)`` or ``(h, w, 3)``: bilinear with antialiasing (as torchvision)."""
    if image.shape == shape:
        return image
    return _convert(Image.fromarray(image), mode_of(shape), (shape[1], shape[0]))


def mode_of(shape: Shape) -> str:
    """What Pillow calls images of ``shape``; a last axis of one channel is grey, too."""
    return "RGB" if shape[2:] == (3,) else "L"


def _convert(picture: Image.Image, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    if picture.mode == "P" and "transparency" in picture.info:  # of which Pillow warns otherwise
        picture = picture.convert("RGBA")
    if picture.mode != mode:
        picture = picture.convert(mode)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(*size[::-1], *([3] if mode == "RGB" else []))


class Job(NamedTuple):
    """Some images, one after another."""

    first: int  # the number of the first among all images of the source
    items: Sequence[Item]


@dataclass
class DecodeStats:
    """What the images from ``first`` on are like."""

    first: int
    hashes: NDArray[np.uint64]  # (n,) BLAKE2b of 8 bytes of the pixels, as a little-endian number
    brightness: NDArray[np.float32]  # (n,) means, 0 to 255
    is_grey: bool = True  # all of them
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # width and height
    modes: Counter[str] = field(default_factory=Counter)
    unreadable: dict[int, str] = field(default_factory=dict)  # why, by number among all images

    @classmethod
    def create(cls, first: int, count: int) -> "DecodeStats":
        """Those of ``count`` images before any is read."""
        return cls(first, np.zeros(count, np.uint64), np.zeros(count, np.float32))

    def update(self, part: "DecodeStats") -> None:
        """Take over what was found of some of the images."""
        rows = slice(part.first - self.first, part.first - self.first + len(part.hashes))
        self.hashes[rows], self.brightness[rows] = part.hashes, part.brightness
        self.is_grey = self.is_grey and part.is_grey
        self.sizes.update(part.sizes)
        self.modes.update(part.modes)
        self.unreadable.update(part.unreadable)


def decode_job(job: Job, shape: Shape, looks_for_colour: bool, spool: Path) -> DecodeStats:
    """Decode some images and write them to their place in the file ``spool``; those that are unreadable are black."""
    stats, size = DecodeStats.create(job.first, len(job.items)), math.prod(shape)
    rows = max(1, BLOCK_BYTES // size)
    with spool.open("r+b") as file:
        file.seek(job.first * size)
        for start in range(0, len(job.items), rows):
            items = job.items[start : start + rows]
            block = np.zeros((len(items), size), np.uint8)
            for at, (item, pixels) in enumerate(zip(items, block, strict=True), start):
                try:
                    picture = read_item(item, shape, looks_for_colour)
                except Exception as error:  # Pillow's are of any kind
                    stats.unreadable[job.first + at] = reason(error)
                    continue
                pixels[:] = picture.pixels.reshape(-1)
                digest = hashlib.blake2b(pixels.data, digest_size=8).digest()
                stats.hashes[at] = int.from_bytes(digest, "little")
                stats.sizes[picture.size] += 1
                stats.modes[picture.mode] += 1
                stats.is_grey = stats.is_grey and picture.is_grey
            stats.brightness[start : start + rows] = block.sum(axis=1, dtype=np.uint64) / size
            file.write(block.data)
    return stats


def read_item(item: Item, shape: Shape, looks_for_colour: bool) -> Picture:
    """One image, as a path, as a file's content or decoded.

    Raises:
        Exception: of any kind; it is none.
    """
    if isinstance(item, np.ndarray):
        return convert_array(item, shape)
    return read_picture(io.BytesIO(item) if isinstance(item, bytes) else item, shape, looks_for_colour)
