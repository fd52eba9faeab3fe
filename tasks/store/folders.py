"""Which names in a model's folder are ours: exact ones, of real folders. Others are ignored, and links never followed.

Whoever can write into the store can plant a name there, which must never affect anything outside of it. What cannot be
read or removed is reported and stops nothing.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tasks.errors import GradmillError
from tasks.machine.run_messages import print_message
from tasks.parameters.training import NAME_PATTERN
from tasks.store import artifact_paths, locks

MODEL = re.compile(NAME_PATTERN)


def tell_skipped(path: Path, reason: str | Exception) -> None:
    """Print that something was not inspected or not removed, and why."""
    print_message(
        f"left alone: {path} ({reason.found if isinstance(reason, GradmillError) else reason})", file=sys.stderr
    )


Report = Callable[[Path, Exception], None]  # called with the path that is skipped, and why


@contextmanager
def skip_unreadable(path: Path, report: Report = tell_skipped) -> Iterator[None]:
    """Continue after the block if what is at ``path`` cannot be read, judged or removed."""
    try:
        yield
    except (GradmillError, OSError, ValueError, RecursionError) as error:  # the last two for files not ours
        report(path, error)


def list_named(pattern: re.Pattern[str], parent: Path) -> list[Path]:
    """The real folders in ``parent``, which may be missing, whose names match."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(parent) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    return []


def make_read_only(folder: Path) -> None:
    """Remove the write permissions of a version folder."""
    if folder.stat().st_mode & 0o222:
        set_mode(folder, 0o555)


def remove(folder: Path) -> None:
    """Delete a folder that may be or hold read-only ones; a failure is reported and left for the next time."""
    try:
        for inner, _, _ in os.walk(folder):
            if not os.access(inner, os.W_OK):
                set_mode(Path(inner), 0o755)
        shutil.rmtree(folder)  # it does not follow links either
    except OSError as error:
        print_message(f"left: {folder} cannot be removed: {error}", file=sys.stderr)


def sweep(pattern: re.Pattern[str], parent: Path) -> None:
    """Remove the folders whose names match: leftovers of killed processes."""
    for leftover in list_named(pattern, parent):
        remove(leftover)


def sweep_model(model: Path) -> None:
    """Remove unfinished staging and pruning folders from a model's folder; the caller holds its lock.

    A folder without a version, on which Triton would not start, is removed too, unless others have put something there.
    A process that waits for the lock creates it again.
    """
    sweep(artifact_paths.LEFTOVER, model)
    if not list_named(artifact_paths.VERSION, model):
        with suppress(OSError):
            if [*model.iterdir()] == [lock := artifact_paths.lock(model)]:
                lock.unlink()
                model.rmdir()


def sweep_models() -> None:
    """Remove what killed publications left in any model's folder, and folders without a version."""
    for path in list_named(MODEL, artifact_paths.models()):
        if list_named(artifact_paths.LEFTOVER, path) or not list_named(artifact_paths.VERSION, path):
            with suppress(OSError), locks.locked_if_free(artifact_paths.lock(path)) as free:
                if free:
                    sweep_model(path)


def set_mode(folder: Path, mode: int) -> None:
    """Change the mode of a folder, never that of a link's target.

    Raises:
        OSError: it is a link, not a folder, or belongs to another user.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def find_folder_of(path: Path) -> Path | None:
    """The folder in artifacts/ that contains a path, or artifacts/ itself; None outside of it.

    Each of these folders may be a link, and the path may be given by its target.
    """
    real = path.resolve()
    places = (artifact_paths.root() / name for name in (*artifact_paths.HIDDEN, *artifact_paths.FOLDERS, ""))
    return next((place for place in places if real.is_relative_to(place.resolve())), None)


def identify_store(make: bool = False) -> tuple[str, int, int]:
    """What tells this store from its copies: its path, and the inode and change time (ns) of a file in it.

    That file is never written again: copying, restoring or unpacking it changes its change time in any case. A disk
    cloned block by block cannot be told from the original.

    Raises:
        OSError: there is no such file; ``make`` creates it.
    """
    path = artifact_paths.claim()
    if make:
        os.close(os.open(path, os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o444))
    facts = os.lstat(path)
    return str(path.parent.resolve()), facts.st_ino, facts.st_ctime_ns


# Disk usage in bytes


LITTLE = 0.1  # of the whole disk: below that, somebody should know


class DiskSpace(NamedTuple):
    """The free and the total bytes of the disk that holds artifacts/."""

    free: int
    total: int

    @property
    def is_little(self) -> bool:
        """Whether less than a tenth is free."""
        return self.free < LITTLE * self.total

    def __str__(self) -> str:
        return f"{self.free / 2**30:.1f} of {self.total / 2**30:.1f} GiB free ({self.free / self.total:.0%})"


def read_disk_space() -> DiskSpace:
    """The free space where the folder is or will be.

    Raises:
        OSError: the folder cannot be inspected.
    """
    root = artifact_paths.root()
    usage = shutil.disk_usage(next(each for each in (root, *root.parents) if each.exists()))
    return DiskSpace(usage.free, usage.total)


def size(folder: Path) -> int:
    """The total size in bytes of all files below a folder, which may be missing; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(place, name).lstat().st_size
    return total
