"""A job's scratch: one folder in its output, known by a mark, where everything begins that is not whole yet."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import UsageError
from tasks.store import artifact_paths, atomic

MARK = "made-by-gradmill"


def make(folder: Path) -> None:
    """Make a job's folder with its scratch, which is known as ours from its first moment on.

    Raises:
        UsageError: something of that name is there, and it is not ours.
        FileExistsError, NotADirectoryError: so it is with the folder.
    """
    scratch = artifact_paths.scratch(folder)
    if os.path.lexists(scratch) and not is_ours(folder):
        raise UsageError(f"{scratch} is not of a job", "none, or one of a job", "move it elsewhere")
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / MARK).touch()


def is_ours(folder: Path) -> bool:
    """Whether a folder's scratch is one that ``make`` made; a link, or what holds other things, never is."""
    scratch = artifact_paths.scratch(folder)
    if scratch.is_symlink() or not scratch.is_dir():
        return False
    entries = list(os.scandir(scratch))  # empty: killed before the mark was there
    marked = any(entry.name == MARK and entry.is_file(follow_symlinks=False) for entry in entries)
    return not entries or (marked and not any(entry.is_symlink() for entry in entries))


@contextmanager
def placing(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary path in the scratch; when the block succeeds it becomes ``name`` in the folder.

    Raises:
        OSError: the disk is full or the folder is not writable; the file is then as it was.
    """
    whole = artifact_paths.scratch(folder) / name
    with atomic.replacing(whole) as temporary:
        yield temporary
    whole.replace(folder / name)
    atomic.sync(folder)


def empty(folder: Path) -> None:
    """Remove everything from a job's scratch but its mark."""
    for entry in list(os.scandir(artifact_paths.scratch(folder))):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != MARK:
            Path(entry.path).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a job's scratch, if it is there and one of ours; the mark goes last."""
    if is_ours(folder):
        empty(folder)
        (artifact_paths.scratch(folder) / MARK).unlink(missing_ok=True)
        artifact_paths.scratch(folder).rmdir()
