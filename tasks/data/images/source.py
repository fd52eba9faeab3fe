"""What all sources of labelled images come to: classes, labels, and images that are read in jobs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.data.images.decoding import Item, Job
from tasks.data.report import Finding
from tasks.store.regular_files import shown

JOB = 256  # images that are read together from a file of many
FILE_JOBS = 32  # of all picture files: the cores are to end at one time
FEWEST_FILES, MOST_FILES = 16, 1024  # of a job: a process waits for the interpreter's lock of its parent before each
SAMPLE = 64  # images by which the shape is guessed: where all others are alike, they are read once


class Content(Protocol):
    """All images of a source, in order."""

    def __len__(self) -> int: ...

    @property
    def num_files(self) -> int:
        """How many files they are in."""

    def jobs(self) -> Iterator[Job]:
        """All of them; what is not a path is read as it is asked for."""

    def sample(self) -> Iterator[Item]:
        """A few of them, from here and there."""

    def place(self, number: int) -> str:
        """Where an image is, for people."""


class Source(NamedTuple):
    """Labelled images as they were found; nothing is decoded yet."""

    source: str  # an absolute path
    look: str  # a digest that changes where a file looks touched, comes or goes
    class_names: tuple[str, ...]  # as the data have them, in any order
    labels: NDArray[np.int64]  # (n,) into them
    sides: NDArray[np.uint8] | None  # (n,) of the split; None where the source has none
    content: Content
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Files:
    """Images of which each is a file; as strings, the paths would be as large as small images."""

    folders: list[str]
    folder: NDArray[np.int32]  # (n,) that each is in
    names: NDArray[np.bytes_]  # (n,)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_files(self) -> int:
        """As many."""
        return len(self)

    def jobs(self) -> Iterator[Job]:
        """All of them."""
        numbers, step = range(len(self)), min(MOST_FILES, max(FEWEST_FILES, len(self) // FILE_JOBS))
        return (Job(at, [self._path(number) for number in numbers[at : at + step]]) for at in numbers[::step])

    def sample(self) -> Iterator[Item]:
        """A few paths, evenly spread."""
        return map(self._path, range(0, len(self), max(1, len(self) // SAMPLE)))

    def place(self, number: int) -> str:
        """The path."""
        return " ".join(shown(self._path(number)).split())

    def _path(self, number: int) -> str:
        return f"{self.folders[self.folder[number]]}{os.sep}{os.fsdecode(self.names[number])}"
