"""Which images ``--data`` means, and whether it means images at all: the one place that says so."""

import glob
from collections.abc import Callable
from pathlib import Path

from tasks.data import pictures
from tasks.data.images import array_files, folders, parquet
from tasks.data.images.source import Source
from tasks.data.sources import half_written, table_files
from tasks.errors import DataError, UsageError
from tasks.store import regular_files

EXPECTED = "a folder of pictures for each class, MNIST's files, .npz, .safetensors or Parquet of images"
OF_FILES: dict[str, Callable[[Path], Source | None]] = {
    ".npz": array_files.find_npz, ".safetensors": array_files.find_safetensors, ".parquet": parquet.find,
}  # fmt: skip
OF_A_TABLE = "see the path; of a table, name the column to predict with --target"


def find(source: str) -> Source:
    """The images at a path.

    Raises:
        UsageError: a table is there, of which must be said what to predict.
        DataError: nothing is there, or no images.
    """
    path, shown = _path(source), regular_files.shown(source)
    found = _found(path) if path and path.exists() else None
    if not path or (not (found and len(found.content)) and _is_table(path)):
        action = "name it with --target" if path else "name it with --target; of images download the folder first"
        raise UsageError(f"no --target for {shown}", "the column of the table to predict", action)
    if not path.exists():
        is_glob = glob.has_magic(source)
        action = "name the folder of images itself, no glob" if is_glob else f"give --data another, or {OF_A_TABLE}"
        raise DataError(f"no folder {shown}", EXPECTED, action)
    if found is None or not found.class_names:
        raise DataError(f"{shown} holds no classes of images", EXPECTED, OF_A_TABLE)
    if not len(found.content):
        named = ", ".join(found.class_names[:5])
        raise DataError(f"no pictures in {shown} (folders {named})", EXPECTED, OF_A_TABLE)
    return found


def _path(source: str) -> Path | None:
    """On this machine; of a URL there is none."""
    local = source.removeprefix("file://")
    return None if "://" in local else regular_files.absolute(local)


def _found(path: Path) -> Source | None:
    """What is at a path, if it is anything."""
    if path.is_dir():
        found = array_files.find_idx(path) or parquet.find(path)
        if found:
            half_written.require_none(path)
        return found or folders.find(path)
    read = OF_FILES.get(path.suffix.lower())
    if read:
        half_written.require_none(path)
    return read(path) if read else None


def _is_table(path: Path) -> bool:
    return table_files.is_table(path) or (path.is_dir() and any(map(table_files.is_table, path.rglob("*"))))


def is_meant(source: str) -> bool:
    """Whether images are at a path, or what is no table: what says of ``gradmill inspect`` which of them is meant."""
    path = _path(source)
    if path is None:
        return False
    if path.exists():
        found = _found(path)
        if found and len(found.content):
            return True
    is_folder = path.is_dir() and not _is_table(path)
    of_glob = glob.glob(str(path)) if glob.has_magic(str(path)) else []  # noqa: PTH207  (a pattern may be absolute)
    is_of_folders = bool(of_glob) and all(Path(each).is_dir() for each in of_glob)
    return is_folder or is_of_folders or path.suffix.lower() in pictures.SUFFIXES
