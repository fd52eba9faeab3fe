"""What lies on the disk, in bytes."""

import os
from contextlib import suppress
from pathlib import Path


def size(folder: Path) -> int:
    """The bytes of all files below a folder, which may be missing; links are not followed."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += size(Path(entry.path)) if is_folder else entry.stat(follow_symlinks=False).st_size
    return total
