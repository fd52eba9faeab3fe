"""What lies on the disk of artifacts/, and how much room is left there, in bytes."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
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


def read_room() -> Room:
    """What is left, where the folder is or will be.

    Raises:
        OSError: the folder cannot be looked at.
    """
    root = artifact_paths.root()
    usage = shutil.disk_usage(next(each for each in (root, *root.parents) if each.exists()))
    return Room(usage.free, usage.total)


def size(folder: Path) -> int:
    """The bytes of all files below a folder, which may be missing; links are not followed."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += size(Path(entry.path)) if is_folder else entry.stat(follow_symlinks=False).st_size
    return total
