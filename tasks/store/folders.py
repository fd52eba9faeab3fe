"""Which names in a model's folder are ours: exact ones, of real folders. Any other is ignored, and no link is followed.

Whoever can write into the store can plant a name there; nothing outside of it may ever be touched for that.
"""

import contextlib
import os
import re
import shutil
import stat
import sys
from pathlib import Path

from tasks.machine.telling import tell
from tasks.store import artifact_paths, names


def versions(model: Path) -> list[int]:
    """The numbers of the versions in a model's folder, ascending."""
    return sorted(int(path.name) for path in _folders(model) if names.VERSION.fullmatch(path.name))


def free_number(model: Path, number: int) -> int:
    """The first from ``number`` on whose name nothing has, be it a version or not."""
    while os.path.lexists(model / str(number)):
        number += 1
    return number


def leftovers(parent: Path, named: re.Pattern[str] = names.LEFTOVER) -> list[Path]:
    """What a killed publication or pruning left in a folder."""
    return [path for path in _folders(parent) if named.fullmatch(path.name)]


def tell_of_strangers(model: Path) -> None:
    """Say what looks like ours and is ignored."""
    ours = set(_folders(model))
    for path in sorted(model.iterdir()) if model.is_dir() else ():
        named = names.VERSION.fullmatch(path.name) or names.LEFTOVER.fullmatch(path.name)
        if names.LIKE_OURS.fullmatch(path.name) and not (named and path in ours):
            what = "a link" if path.is_symlink() else "no folder that gradmill has made"
            tell(f"ignored: {path.name!r} in {model} is {what}", file=sys.stderr)


def _folders(parent: Path) -> list[Path]:
    """The real folders in a folder, which may be missing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(parent) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def make_read_only(folder: Path) -> None:
    """Take the write bits off a version folder."""
    descriptor = _opened(folder)
    try:
        if os.fstat(descriptor).st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            os.fchmod(descriptor, 0o555)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Delete a folder that may be read-only.

    Raises:
        OSError: it is none (a link, for instance), or something in it is not to be removed.
    """
    descriptor = _opened(folder)
    try:
        os.fchmod(descriptor, 0o755)
    finally:
        os.close(descriptor)
    shutil.rmtree(folder)  # which follows no link either


def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def holding(path: Path) -> Path | None:
    """The folder in artifacts/ that a path lies in, or artifacts/ itself; None outside of it.

    Each of them may be a link to another place, and the path may be that of the place.
    """
    real = path.resolve()
    places = (artifact_paths.root() / name for name in (*artifact_paths.HIDDEN, *artifact_paths.FOLDERS, ""))
    return next((place for place in places if real.is_relative_to(place.resolve())), None)
