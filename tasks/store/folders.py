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
from tasks.parameters import is_name
from tasks.store import artifact_paths, locks, names

WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def named(pattern: re.Pattern[str], parent: Path) -> list[Path]:
    """The real folders with such names in a folder, which may be missing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [path for path in map(Path, found) if pattern.fullmatch(path.name)]
    return []


def tell_of_strangers(model: Path) -> None:
    """Say what looks like ours and is ignored."""
    ours = {*named(names.VERSION, model), *named(names.LEFTOVER, model)}
    for path in sorted(model.iterdir()) if model.is_dir() else ():
        if names.LIKE_OURS.fullmatch(path.name) and path not in ours:
            what = "a link" if path.is_symlink() else "no folder that gradmill has made"
            tell(f"ignored: {path.name!r} in {model} is {what}", file=sys.stderr)


def make_read_only(folder: Path) -> None:
    """Take the write bits off a version folder."""
    if folder.stat().st_mode & WRITABLE:
        _set_mode(folder, 0o555)


def remove(folder: Path) -> None:
    """Delete a folder that may be read-only; what cannot be deleted is left for the next time, with a word."""
    try:
        _set_mode(folder, 0o755)
        shutil.rmtree(folder)  # which follows no link either
    except OSError as error:
        tell(f"left: {folder} cannot be removed: {error}", file=sys.stderr)


def sweep(pattern: re.Pattern[str], parent: Path) -> None:
    """Remove what has such names: a kill has left it."""
    for leftover in named(pattern, parent):
        remove(leftover)


def remove_hollow(model: Path) -> None:
    """Remove a model's folder without a version, on which Triton would not start; the caller holds its lock.

    One in which others have put something stays. Whoever waits for the lock makes the folder anew.
    """
    if not named(names.VERSION, model):
        sweep(names.LEFTOVER, model)
        with contextlib.suppress(OSError):
            if [*model.iterdir()] == [lock := artifact_paths.lock(model)]:
                lock.unlink()
                model.rmdir()


def sweep_models() -> None:
    """Remove the folders that killed first publications, or others, have left without a version."""
    models = artifact_paths.models()
    for path in sorted(models.iterdir()) if models.is_dir() else ():
        is_ours = is_name(path.name) and path.is_dir() and not path.is_symlink()
        if is_ours and not named(names.VERSION, path):
            with contextlib.suppress(OSError), locks.locked_if_free(artifact_paths.lock(path)) as free:
                if free:
                    remove_hollow(path)


def _set_mode(folder: Path, mode: int) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def holding(path: Path) -> Path | None:
    """The folder in artifacts/ that a path lies in, or artifacts/ itself; None outside of it.

    Each of them may be a link to another place, and the path may be that of the place.
    """
    real = path.resolve()
    places = (artifact_paths.root() / name for name in (*artifact_paths.HIDDEN, *artifact_paths.FOLDERS, ""))
    return next((place for place in places if real.is_relative_to(place.resolve())), None)
