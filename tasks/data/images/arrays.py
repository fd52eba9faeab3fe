"""Labelled images of which many are in an array, whatever file it lies in."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from tasks.data import pictures
from tasks.data.images.decoding import Item, Job
from tasks.data.images.source import JOB, SAMPLE, Source
from tasks.data.readers.formats import broken, reading
from tasks.data.readers.labels import CLASS_NAMES, first_label, names_beside, require_names
from tasks.data.split import TEST, TRAINING, VALIDATION
from tasks.data.table.levels import in_order
from tasks.errors import DataError
from tasks.machine.arrays import Array
from tasks.store import fingerprints

WORDS = {
    "train": TRAINING, "t10k": TEST, "test": TEST,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
}  # fmt: skip
BLOCK_BYTES = 2**22


class Piece(NamedTuple):
    """Images of one part in one array; they are read when it is asked for ``blocks``."""

    place: str  # for people
    side: int | None
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[Array | list[bytes]]]  # each at most ``JOB`` images
    labels: Array  # (n,) whole numbers or names


@dataclass(frozen=True)
class Arrays:
    """Images of which many are in a file, piece after piece."""

    pieces: tuple[Piece, ...]
    num_files: int

    def __len__(self) -> int:
        return sum(len(piece.labels) for piece in self.pieces)

    def jobs(self) -> Iterator[Job]:
        """All of them, block by block."""
        first = 0
        for piece in self.pieces:
            for block in piece.blocks():
                yield Job(first, list(block))
                first += len(block)

    def sample(self) -> Iterator[Item]:
        """The first ones of each piece."""
        for piece in self.pieces:
            for block in itertools.islice(piece.blocks(), 1):
                yield from block[: SAMPLE // len(self.pieces) + 1]

    def place(self, number: int) -> str:
        """File and row."""
        for piece in self.pieces:
            if number < len(piece.labels):
                return f"{piece.place} row {number}"
            number -= len(piece.labels)
        raise IndexError(number)


def source_of(path: Path, files: list[Path], pieces: list[Piece], names: tuple[str, ...] | None) -> Source:
    """What pieces come to; ``names`` are those of whole-numbered labels, from 0 on.

    Where there is one part only, its images are split by their hashes, whatever it is called.

    Raises:
        DataError: images and labels differ in number, are none, or a label has no name.
    """
    for piece in pieces:
        _check(piece)
    first = 0
    if names:
        require_names(str(path), names)
    elif names := names_beside(path):
        first = first_label([piece.labels for piece in pieces], len(names))
    values = [_named(piece, names, first) for piece in pieces]
    class_names = names or in_order(itertools.chain.from_iterable(np.unique(each).tolist() for each in values))
    places = {name: place for place, name in enumerate(class_names)}
    labels = [np.array([places[name] for name in kinds], np.int64)[at] for kinds, at in map(_distinct, values)]
    sides = {piece.side for piece in pieces} - {None}
    has_test = TEST in sides
    if TRAINING not in sides or len(sides) < 2:
        of_images = None
    else:
        of_pieces = [TEST if piece.side == VALIDATION and not has_test else piece.side for piece in pieces]
        of_images = np.repeat(np.array(of_pieces, np.uint8), [len(piece.labels) for piece in pieces])
    return Source(
        source=str(path),
        look=hashlib.sha256(json.dumps(fingerprints.of(files)).encode()).hexdigest(),
        class_names=tuple(class_names),
        labels=np.concatenate(labels),
        sides=of_images,
        content=Arrays(tuple(pieces), len(files)),
    )


def _distinct(values: Array) -> tuple[list[str], Array]:
    kinds, at = np.unique(values, return_inverse=True)
    return kinds.tolist(), at


def _check(piece: Piece) -> None:
    rows = piece.shape[0] if piece.shape else 0
    if not rows:
        raise DataError(f"{piece.place} holds no images", "at least one", "write them again")
    if piece.labels.shape != (rows,):
        found = f"{rows} images and {piece.labels.shape} labels in {piece.place}"
        raise DataError(found, "one label for each image", "see that both belong to the same part")


def _named(piece: Piece, names: tuple[str, ...] | None, first: int) -> Array:
    """The class of each image ``(n,)`` by name."""
    labels = piece.labels
    if labels.dtype.kind not in "iu":
        return labels.astype(str)
    if names is None:
        return labels.astype(str)
    if labels.min() < first or labels.max() >= len(names) + first:
        row = int(np.argmax((labels < first) | (labels >= len(names) + first)))
        found = f"label {labels[row]} at row {row} of {piece.place}"
        raise DataError(found, f"labels from {first} to {len(names) + first - 1}", f"mend it, or {CLASS_NAMES}")
    return np.array(names)[labels.astype(np.int64) - first]


def checked(place: str, dtype: Any, shape: tuple[int, ...]) -> None:
    """Whether an array can be images.

    Raises:
        DataError: it cannot.
    """
    is_one = np.dtype(dtype) == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))
    if not is_one or 0 in shape[1:] or math.prod(shape[1:3]) > pictures.LARGEST_PIXELS:
        found = f"{place} holds {np.dtype(dtype)} of shape {list(shape)}"
        expected = "uint8 pixels, 0 to 255, of shape [images, height, width], or with 3 channels last"
        raise DataError(found, expected, "convert the array: multiply shares of 1 by 255, put channels last")


def in_blocks(stream: IO[bytes], shape: tuple[int, ...], path: Path) -> Iterator[Array]:
    """The images of a stream, from where it stands; a last axis of one channel is left out."""
    of_image = shape[1:3] if shape[3:] == (1,) else shape[1:]
    size = math.prod(of_image)
    step = max(1, min(JOB, BLOCK_BYTES // size))
    for start in range(0, shape[0], step):
        count = min(step, shape[0] - start)
        with reading(path):
            content = stream.read(count * size)
        if len(content) != count * size:
            raise broken(path, f"it ends at image {start + len(content) // size} of {shape[0]}")
        yield np.frombuffer(content, np.uint8).reshape(count, *of_image)


def side_of(name: str) -> int | None:
    """The part of the split that a name tells of."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((WORDS[word] for word in words if word in WORDS), None)
