"""Files that somebody is still writing, by the names that they have until they are done."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.errors import DataError
from tasks.store.regular_files import shown

SUFFIXES = (".tmp", ".part", ".partial", ".filepart", ".crdownload")
LONGEST = 3  # names that a message has


def require_none(path: Path) -> None:
    """Let a folder pass in which nothing is half written, and a file or a glob beside which none of its own is.

    Raises:
        DataError: something is, or seems so since it was never ended.
    """
    refuse(_below(path) if path.is_dir() else _beside(path))


def refuse(paths: Iterable[str]) -> None:
    """Let files pass none of which is half written by its name.

    Raises:
        DataError: one is.
    """
    half = sorted(path for path in paths if path.lower().endswith(SUFFIXES))
    if half:
        more = f" and {len(half) - LONGEST:,} more" if len(half) > LONGEST else ""
        raise DataError(
            f"half written, by the name: {', '.join(map(shown, half[:LONGEST]))}{more}",
            "files that are whole",
            "run it again once they are, or remove what nobody writes any more",
        )


def _below(folder: Path) -> Iterator[str]:
    """All files but hidden ones."""
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(path, name) for name in files if not name.startswith("."))  # noqa: PTH118  (many)


def _beside(path: Path) -> Iterator[str]:
    """What a file, or each file of a glob, is called until it is whole."""
    pattern = glob.escape(str(path)) if path.exists() else str(path)
    for suffix in ("", *SUFFIXES):
        yield from glob.iglob(pattern + suffix, recursive=True)  # noqa: PTH207  (the pattern is absolute)
