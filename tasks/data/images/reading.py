"""Images to raw pixels of one shape, in a file: decoded side by side, each written to its place."""

import hashlib
import io
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import mapped, pictures
from tasks.data.images.source import JOB, Content, Item, Job
from tasks.data.pictures import Picture
from tasks.data.table.hashing import Words
from tasks.machine import cores, progress

LARGEST_SIDE, USUAL_SIDE = 256, 28
WAITING = 8  # jobs that have been read and not decoded yet
BLOCK_BYTES = 2**20  # of pixels that are written together

Shape = tuple[int, ...]


class Asked(NamedTuple):
    """What is known of the shape before anything is read."""

    side: int | None = None
    channels: str | None = None  # grey or rgb
    shape: Shape | None = None  # that version 1 fixed

    def shape_of(self, sizes: Iterable[tuple[int, int]], is_grey: bool) -> Shape:
        """The shape for images of these sizes, all grey or not."""
        if self.shape:
            return self.shape
        found = set(sizes)
        width, height = found.pop() if len(found) == 1 else (0, 0)
        side = self.side or (width if width == height and 0 < width <= LARGEST_SIDE else USUAL_SIDE)
        in_colour = self.channels == "rgb" if self.channels else not is_grey
        return (side, side, 3) if in_colour else (side, side)


class Facts(NamedTuple):
    """What some images are like."""

    first: int
    hashes: Words  # (n,) BLAKE2b of 8 bytes of the pixels, as a little-endian number
    brightness: NDArray[np.float32]  # (n,) means, 0 to 255
    is_grey: bool  # all of them
    sizes: Counter[tuple[int, int]]  # width and height
    modes: Counter[str]
    broken: dict[int, str]  # why, by number


class Images(NamedTuple):
    """All images of a source in one shape; those that are broken are black."""

    spool: Path
    shape: Shape
    facts: Facts

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """Which images could be decoded, ``(n,)``."""
        whole = np.ones(len(self.facts.hashes), bool)
        whole[list(self.facts.broken)] = False
        return whole

    def blocks(self, rows: int = 2**10) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """The pixels ``(n, …)``, so many images at a time, read and not mapped: a map would count as memory."""
        size, total = math.prod(self.shape), len(self.facts.hashes)
        with self.spool.open("rb") as file:
            for start in range(0, total, rows):
                count = min(rows, total - start)
                block = np.fromfile(file, np.uint8, count * size).reshape(count, *self.shape)
                yield slice(start, start + count), block

    def some(self, numbers: Iterable[int]) -> list[NDArray[np.uint8]]:
        """The pixels of a few images."""
        size = math.prod(self.shape)
        return [np.fromfile(self.spool, np.uint8, size, offset=number * size).reshape(self.shape) for number in numbers]


def read(content: Content, asked: Asked, spool: Path) -> Images:
    """Read all images into the file ``spool``, again where their shape is not that of the first ones.

    Raises:
        OSError: the disk has no room for them.
        DataError: a file that holds many of them cannot be read.
    """
    looks = not (asked.shape or asked.channels)
    shape = asked.shape_of(*_look(content))
    images = _read(content, shape, looks, spool)
    better = asked.shape_of(images.facts.sizes, images.facts.is_grey)
    return images if better == shape or not images.facts.sizes else _read(content, better, False, spool)


def _look(content: Content) -> tuple[set[tuple[int, int]], bool]:
    """The sizes of a few images, evenly spread, and whether all of them are grey."""
    some = (_decoded(item, (1, 1), True) for item in content.sample())
    found = [picture for picture in some if isinstance(picture, Picture)]
    return {each.size for each in found}, all(each.is_grey for each in found)


def _read(content: Content, shape: Shape, looks_for_colour: bool, spool: Path) -> Images:
    size = math.prod(shape)
    with spool.open("wb") as file:
        mapped.allocate(file, 0, len(content) * size)
    decode = partial(decoded, shape=shape, looks_for_colour=looks_for_colour, spool=spool)
    with ThreadPoolExecutor(cores.available()) as workers, progress.bar() as bar:
        done = bar.track(_done(workers, decode, content.jobs()), -(-len(content) // JOB), description="decode")
        return Images(spool, shape, _together(done, len(content)))


def _done(workers: Executor, decode: Callable[[Job], Facts], jobs: Iterator[Job]) -> Iterator[Facts]:
    """What becomes of jobs, in order; few are read ahead."""
    waiting: deque[Future[Facts]] = deque()
    for job in jobs:
        waiting.append(workers.submit(decode, job))
        if len(waiting) > WAITING:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _together(found: Iterable[Facts], count: int) -> Facts:
    """The facts of all images ``count``."""
    hashes, brightness = np.zeros(count, np.uint64), np.zeros(count, np.float32)
    whole = Facts(0, hashes, brightness, True, Counter(), Counter(), {})
    for each in found:
        rows = slice(each.first, each.first + len(each.hashes))
        hashes[rows], brightness[rows] = each.hashes, each.brightness
        whole.sizes.update(each.sizes)
        whole.modes.update(each.modes)
        whole.broken.update(each.broken)
        whole = whole._replace(is_grey=whole.is_grey and each.is_grey)
    return whole


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
                picture = _decoded(item, shape, looks_for_colour)
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


def _decoded(item: Item, shape: Shape, looks_for_colour: bool) -> Picture | str:
    """An image, or why it is none."""
    try:
        if isinstance(item, np.ndarray):
            return pictures.of_array(item, shape)
        return pictures.read(io.BytesIO(item) if isinstance(item, bytes) else item, shape, looks_for_colour)
    except Exception as error:  # Pillow's are of any kind
        return pictures.reason(error)
