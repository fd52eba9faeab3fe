"""A job's scratch: one folder in its output, known by a mark, where everything begins that is not whole yet."""

import os
import shutil
from pathlib import Path

from tasks import artifact_paths, atomic

MARK = "made-by-gradmill"


def make(folder: Path) -> None:
    """Make a job's folder with its scratch, which is known as ours from its first moment on."""
    scratch = artifact_paths.scratch(folder)
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


def place(folder: Path, name: str) -> None:
    """Let a file that is whole in the scratch take its place in the folder."""
    (artifact_paths.scratch(folder) / name).replace(folder / name)
    atomic.sync(folder)


def remove(folder: Path) -> None:
    """Remove a job's scratch, if it is one; the mark goes last."""
    if not is_ours(folder):
        return
    scratch = artifact_paths.scratch(folder)
    for entry in os.scandir(scratch):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != MARK:
            os.unlink(entry.path)  # noqa: PTH108  (an entry's own path)
    (scratch / MARK).unlink(missing_ok=True)
    scratch.rmdir()
