"""Some images to raw pixels of one shape, at their place in a file: what each core does, with few imports."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.data import pictures
from tasks.data.pictures import Picture

BLOCK_BYTES = 2**20  # of pixels that are written together

Shape = tuple[int, ...]
Item: TypeAlias = "str | bytes | NDArray[np.uint8]"  # the path of a picture file, its content, or decoded pixels


class Job(NamedTuple):
    """Some images, one after another."""

    first: int  # the number of the first among all images of the source
    items: Sequence[Item]


class Facts(NamedTuple):
    """What some images are like."""

    first: int
    hashes: NDArray[np.uint64]  # (n,) BLAKE2b of 8 bytes of the pixels, as a little-endian number
    brightness: NDArray[np.float32]  # (n,) means, 0 to 255
    is_grey: bool  # all of them
    sizes: Counter[tuple[int, int]]  # width and height
    modes: Counter[str]
    broken: dict[int, str]  # why, by number


def decoded(job: Job, shape: Shape, looks_for_colour: bool, spool: Path) -> Facts:
    """Decode some images and write them to their place in the spool."""
    hashes, brightness = np.zeros(len(job.items), np.uint64), np.zeros(len(job.items), np.float32)
    facts, is_grey = Facts(job.first, hashes, brightness, True, Counter(), Counter(), {}), True
    size = math.prod(shape)
    rows = max(1, BLOCK_BYTES // size)
    with spool.open("r+b") as file:
        file.seek(job.first * size)
        for start in range(0, len(job.items), rows):
            items = job.items[start : start + rows]
            block = np.zeros((len(items), size), np.uint8)
            for at, (item, pixels) in enumerate(zip(items, block, strict=True), start):
                picture = decode(item, shape, looks_for_colour)
                if isinstance(picture, str):
                    facts.broken[job.first + at] = picture
                    continue
                pixels[:] = picture.pixels.reshape(-1)
                hashes[at] = int.from_bytes(hashlib.blake2b(pixels.data, digest_size=8).digest(), "little")
                facts.sizes[picture.size] += 1
                facts.modes[picture.mode] += 1
                is_grey = is_grey and picture.is_grey
            brightness[start : start + rows] = block.sum(axis=1, dtype=np.uint64) / size
            file.write(block.data)
    return facts._replace(is_grey=is_grey)


def decode(item: Item, shape: Shape, looks_for_colour: bool) -> Picture | str:
    """An image, or why it is none."""
    try:
        if isinstance(item, np.ndarray):
            return pictures.of_array(item, shape)
        return pictures.read(io.BytesIO(item) if isinstance(item, bytes) else item, shape, looks_for_colour)
    except Exception as error:  # Pillow's are of any kind
        return pictures.reason(error)
