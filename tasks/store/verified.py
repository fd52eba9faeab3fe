"""A file is read whole and compared with its digest before it is believed: the bytes checked are the bytes used."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from tasks.errors import DataError
from tasks.store import regular_files
from tasks.store.record import FileRef

RESTORE = "restore it from a copy"
WRITTEN = "the file as it was written"


@contextmanager
def opened(path: Path, action: str = RESTORE) -> Iterator[BufferedReader]:
    """A regular file; ``action`` is what to do where it cannot be read.

    Raises:
        DataError: it is missing, no regular file, or unreadable.
    """
    try:
        with regular_files.opened(path) as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", WRITTEN, action) from error
    except DataError as error:
        raise DataError(error.found, WRITTEN, action) from error


def content(path: Path, action: str = RESTORE) -> bytes:
    """What a regular file holds; it raises as ``opened`` does."""
    with opened(path, action) as stream:
        return stream.read()


def size(path: Path, action: str = RESTORE) -> int:
    """How many bytes that is; it raises as ``opened`` does."""
    with opened(path, action) as stream:
        return os.fstat(stream.fileno()).st_size


def read(file: FileRef, action: str = RESTORE) -> bytes:
    """The bytes that a reference means.

    Raises:
        DataError: they cannot be read, or are others.
    """
    found = content(file.path, action)
    if sha256(found) != file.sha256:
        raise DataError(f"{file.path} has changed", f"SHA-256 {file.sha256}", action)
    return found


def check(file: FileRef, action: str = RESTORE) -> None:
    """Whether a reference still means a file, which may be larger than memory; it raises as ``read`` does."""
    with opened(file.path, action) as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        raise DataError(f"{file.path} has changed", f"SHA-256 {file.sha256}", action)


def sha256(content: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


def checksums(digests: Mapping[str, str]) -> bytes:
    """``SHA256SUMS`` of files by their names, as ``sha256sum`` writes it, sorted by name."""
    return "".join(f"{digest}  {filename}\n" for filename, digest in sorted(digests.items())).encode()
