"""What all sources of labelled images come to: classes, labels, and images that are read in jobs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.data.report import Finding
from tasks.store.regular_files import shown

Item: TypeAlias = "str | bytes | NDArray[np.uint8]"  # the path of a picture file, its content, or decoded pixels
JOB = 256  # images that are read together


class Job(Protocol):
    """Some images, one after another; it goes to another process."""

    @property
    def first(self) -> int:
        """The number of the first among all images of the source."""

    @property
    def size(self) -> int:
        """How many there are."""

    def items(self) -> Iterator[Item]:
        """The images."""


class Content(Protocol):
    """All images of a source, in order."""

    def __len__(self) -> int: ...

    @property
    def num_files(self) -> int:
        """How many files they are in."""

    def jobs(self) -> Iterator[Job]:
        """All of them."""

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


class FileJob(NamedTuple):
    """Picture files."""

    first: int
    paths: list[str]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.paths)

    def items(self) -> Iterator[Item]:
        """Their paths."""
        return iter(self.paths)


@dataclass(frozen=True)
class Files:
    """Images of which each is a file."""

    paths: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_files(self) -> int:
        """As many."""
        return len(self.paths)

    def jobs(self) -> Iterator[Job]:
        """All of them."""
        return (FileJob(at, self.paths[at : at + JOB]) for at in range(0, len(self.paths), JOB))

    def place(self, number: int) -> str:
        """The path."""
        return " ".join(shown(self.paths[number]).split())
