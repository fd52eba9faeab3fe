"""Which images ``--data`` means, and whether it means images at all: the one place that says so."""

from pathlib import Path

from tasks.data.images import folders
from tasks.data.images.source import Source
from tasks.data.sources import table_files
from tasks.errors import DataError, UsageError
from tasks.store import regular_files

EXPECTED = "a folder with a folder of pictures for each class"
OF_A_TABLE = "see the path; of a table, name the column to predict with --target"


def find(source: str) -> Source:
    """The images at a path.

    Raises:
        UsageError: nothing is there, or a table, of which must be said what to predict.
        DataError: what is there are no images.
    """
    path = regular_files.absolute(source.removeprefix("file://"))
    if "://" in source.removeprefix("file://") or _is_table(path):
        raise UsageError(f"no --target for {source}", "the column of the table to predict", "name it with --target")
    if not path.exists():
        raise UsageError(f"no folder {regular_files.shown(path)}", EXPECTED, OF_A_TABLE)
    found = folders.find(path) if path.is_dir() else None
    if found is None or not found.class_names:
        raise DataError(f"{regular_files.shown(path)} holds no classes of images", EXPECTED, OF_A_TABLE)
    if not len(found.content):
        named = ", ".join(found.class_names[:5])
        raise DataError(f"no pictures in {regular_files.shown(path)} (folders {named})", EXPECTED, OF_A_TABLE)
    return found


def _is_table(path: Path) -> bool:
    return table_files.is_table(path) or (path.is_dir() and any(map(table_files.is_table, path.iterdir())))


def is_there(source: str) -> bool:
    """Whether images, and no table, are at a path: what says of ``gradmill inspect`` which of them is meant."""
    path = regular_files.absolute(source.removeprefix("file://"))
    return "://" not in source.removeprefix("file://") and folders.is_one(path)
