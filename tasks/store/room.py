"""How much room is left for artifacts/."""

import shutil
from typing import NamedTuple

from tasks.store import artifact_paths

LITTLE = 0.1  # of the whole: then somebody should know


class Room(NamedTuple):
    """Bytes that are free, and all there are, on the disk that artifacts/ are on."""

    free: int
    total: int

    @property
    def is_little(self) -> bool:
        """Whether under a tenth is free."""
        return self.free < LITTLE * self.total

    def __str__(self) -> str:
        return f"{self.free / 2**30:.1f} of {self.total / 2**30:.1f} GiB free ({self.free / self.total:.0%})"


def left() -> Room:
    """What is left, where the folder is or will be.

    Raises:
        OSError: the folder cannot be looked at.
    """
    root = artifact_paths.root()
    there = next(each for each in (root, *root.parents) if each.exists())
    usage = shutil.disk_usage(there)
    return Room(usage.free, usage.total)
