"""Images to raw pixels of one shape, in a file: decoded side by side, each written to its place."""

import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data.images import decoding
from tasks.data.images.decoding import Facts, Job, Shape
from tasks.data.images.source import Content
from tasks.data.pictures import Picture
from tasks.machine import cores, processes, progress

LARGEST_SIDE, USUAL_SIDE = 256, 28
WAITING = 8  # jobs that have been read and not decoded yet
LONG_SECONDS = 0.2  # of decoding, beyond which processes are worth their start


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
        """The pixels of a few images, each of ``shape``."""
        size = math.prod(self.shape)
        return [np.fromfile(self.spool, np.uint8, size, offset=number * size).reshape(self.shape) for number in numbers]


def read(content: Content, asked: Asked, spool: Path) -> Images:
    """Read all images into the file ``spool``, again where their shape is not that of the first ones.

    Raises:
        OSError: the disk has no room for them.
        DataError: a file that holds many of them cannot be read.
        EnvironmentProblem: a process that decodes them was ended.
    """
    looks = not (asked.shape or asked.channels)
    sizes, is_grey, is_long = _look(content)
    shape = asked.shape_of(sizes, is_grey)
    images = _read(content, shape, looks, spool, is_long)
    better = asked.shape_of(images.facts.sizes, images.facts.is_grey)
    return images if better == shape or not images.facts.sizes else _read(content, better, False, spool, is_long)


def _look(content: Content) -> tuple[set[tuple[int, int]], bool, bool]:
    """The sizes of a few images, evenly spread, whether all of them are grey, and whether files take long to decode."""
    sizes, is_grey, count, in_files = set(), True, 0, False
    started = time.perf_counter()
    for item in content.sample():
        count, in_files = count + 1, not isinstance(item, np.ndarray)
        if isinstance(found := decoding.decode(item, (1, 1), True), Picture):
            sizes.add(found.size)
            is_grey = is_grey and found.is_grey
    seconds = (time.perf_counter() - started) * len(content) / max(1, count)
    return sizes, is_grey, in_files and seconds > LONG_SECONDS


def _read(content: Content, shape: Shape, looks_for_colour: bool, spool: Path, is_long: bool) -> Images:
    with spool.open("wb") as file:
        if size := len(content) * math.prod(shape):
            os.posix_fallocate(file.fileno(), 0, size)
    decode = partial(decoding.decoded, shape=shape, looks_for_colour=looks_for_colour, spool=spool)
    with processes.by_all_cores(decode, cores.available(), is_long) as begin, progress.bar() as bar:
        shown = bar.add_task("decode", total=len(content))
        told = partial(bar.advance, shown)
        return Images(spool, shape, _together(_done(begin, content.jobs()), len(content), told))


def _done(begin: Callable[[Job], Future[Facts]], jobs: Iterator[Job]) -> Iterator[Facts]:
    """What becomes of jobs, in order; few are read ahead."""
    waiting: deque[Future[Facts]] = deque()
    for job in jobs:
        waiting.append(begin(job))
        if len(waiting) > WAITING:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _together(found: Iterable[Facts], count: int, tell: Callable[[float], None]) -> Facts:
    """The facts of all images ``count``; it is told how many came as they come."""
    hashes, brightness = np.zeros(count, np.uint64), np.zeros(count, np.float32)
    whole = Facts(0, hashes, brightness, True, Counter(), Counter(), {})
    for each in found:
        tell(len(each.hashes))
        rows = slice(each.first, each.first + len(each.hashes))
        hashes[rows], brightness[rows] = each.hashes, each.brightness
        whole.sizes.update(each.sizes)
        whole.modes.update(each.modes)
        whole.broken.update(each.broken)
        whole = whole._replace(is_grey=whole.is_grey and each.is_grey)
    return whole
