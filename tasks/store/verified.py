"""A file is read whole and compared with its digest before it is believed: the bytes checked are the bytes used."""

import hashlib
from pathlib import Path

from tasks.errors import DataError
from tasks.store.record import FileRef

RESTORE = "restore it from a copy"


def require(path: Path, action: str = RESTORE) -> Path:
    """The path of a regular file (a FIFO would be waited for without end); ``action`` is what to do where it is none.

    Raises:
        DataError: it is missing, or something else.
    """
    if not path.is_file():
        state = "is no regular file" if path.exists() else "is missing"
        raise DataError(f"{path} {state}", "the file as it was written", action)
    return path


def content(path: Path, action: str = RESTORE) -> bytes:
    """What a regular file holds; ``action`` is what to do where it cannot be read.

    Raises:
        DataError: it is missing, no regular file, or unreadable.
    """
    require(path, action)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", "the file as it was written", action) from error


def read(file: FileRef, action: str = RESTORE) -> bytes:
    """The bytes that a reference means.

    Raises:
        DataError: they cannot be read, or are others.
    """
    found = content(file.path, action)
    if hashlib.sha256(found).hexdigest() != file.sha256:
        raise DataError(f"{file.path} has changed", f"SHA-256 {file.sha256}", action)
    return found
