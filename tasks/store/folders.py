"""Which names in a model's folder are ours: exact ones, of real folders. Any other is ignored, and no link is followed.

Whoever can write into the store can plant a name there; nothing outside of it may ever be touched for that. What cannot
be read or removed stops nobody: it is said.
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
from tasks.machine.run_messages import tell
from tasks.parameters.training import NAME_PATTERN
from tasks.store import artifact_paths, locks

MODEL = re.compile(NAME_PATTERN)


def tell_skipped(path: Path, reason: str | Exception) -> None:
    """Say that something was not looked at or not removed, and why."""
    tell(f"left alone: {path} ({reason.found if isinstance(reason, GradmillError) else reason})", file=sys.stderr)


Report = Callable[[Path, Exception], None]  # of what is not looked at, and why


@contextmanager
def skip_unreadable(path: Path, report: Report = tell_skipped) -> Iterator[None]:
    """Go on after the block where what lies at ``path`` cannot be read, judged or removed."""
    try:
        yield
    except (GradmillError, OSError, ValueError, RecursionError) as error:  # the last two of what is not ours
        report(path, error)


def list_named(pattern: re.Pattern[str], parent: Path) -> list[Path]:
    """The real folders with such names in a folder, which may be missing."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [path for path in map(Path, found) if pattern.fullmatch(path.name)]
    return []


def make_read_only(folder: Path) -> None:
    """Take the write bits off a version folder."""
    if folder.stat().st_mode & 0o222:
        set_mode(folder, 0o555)


def remove(folder: Path) -> None:
    """Delete a folder that may be read-only; what cannot be deleted is left for the next time, with a word."""
    try:
        set_mode(folder, 0o755)
        shutil.rmtree(folder)  # which follows no link either
    except OSError as error:
        tell(f"left: {folder} cannot be removed: {error}", file=sys.stderr)


def sweep(pattern: re.Pattern[str], parent: Path) -> None:
    """Remove what has such names: a kill has left it."""
    for leftover in list_named(pattern, parent):
        remove(leftover)


def sweep_model(model: Path) -> None:
    """Remove what was staged or pruned in a model's folder and not finished; the caller holds its lock.

    A folder without a version, on which Triton would not start, goes as well, unless others have put something there.
    Whoever waits for the lock makes it anew.
    """
    sweep(artifact_paths.LEFTOVER, model)
    if not list_named(artifact_paths.VERSION, model):
        with suppress(OSError):
            if [*model.iterdir()] == [lock := artifact_paths.lock(model)]:
                lock.unlink()
                model.rmdir()


def sweep_models() -> None:
    """Remove what killed publications have left in any model's folder, and folders without a version."""
    for path in list_named(MODEL, artifact_paths.models()):
        if list_named(artifact_paths.LEFTOVER, path) or not list_named(artifact_paths.VERSION, path):
            with suppress(OSError), locks.locked_if_free(artifact_paths.lock(path)) as free:
                if free:
                    sweep_model(path)


def set_mode(folder: Path, mode: int) -> None:
    """Change the mode of a folder, never of what a link leads to.

    Raises:
        OSError: it is a link or no folder, or somebody else's.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def find_folder_of(path: Path) -> Path | None:
    """The folder in artifacts/ that a path lies in, or artifacts/ itself; None outside of it.

    Each of them may be a link to another place, and the path may be that of the place.
    """
    real = path.resolve()
    places = (artifact_paths.root() / name for name in (*artifact_paths.HIDDEN, *artifact_paths.FOLDERS, ""))
    return next((place for place in places if real.is_relative_to(place.resolve())), None)


def identify_store(make: bool = False) -> tuple[str, int, int]:
    """What tells this store from its copies: its path, and of a file there the number and the time of its last change.

    That file is never written again: to copy, restore or unpack it gives it another time, whatever else is kept. A disk
    that is cloned block by block cannot be told from the original.

    Raises:
        OSError: there is no such file; ``make`` makes it.
    """
    path = artifact_paths.claim()
    if make:
        os.close(os.open(path, os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o444))
    facts = os.lstat(path)
    return str(path.parent.resolve()), facts.st_ino, facts.st_ctime_ns


# What lies on the disk, in bytes


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
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(place, name).lstat().st_size
    return total
