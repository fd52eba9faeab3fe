"""Files are read whole and compared with their digests first: the bytes checked are the bytes used."""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from tasks.errors import DataError
from tasks.store import atomic, regular_files
from tasks.store.record_base import FileRef

RESTORE = "restore it from a copy"
WRITTEN = "the file as it was written"


@contextmanager
def open_verified(path: Path, action: str = RESTORE) -> Iterator[BufferedReader]:
    """Open a regular file; ``action`` is the advice given if it cannot be read.

    Raises:
        DataError: it is missing, not regular, or unreadable.
    """
    try:
        with regular_files.open_regular(path) as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}", WRITTEN, action) from error
    except DataError as error:
        raise DataError(error.found, WRITTEN, action) from error


def read_content(path: Path, action: str = RESTORE) -> bytes:
    """The content of a regular file; it raises as ``open_verified`` does."""
    with open_verified(path, action) as stream:
        return stream.read()


def read(file: FileRef, action: str = RESTORE) -> bytes:
    """The content of a referenced file.

    Raises:
        DataError: it cannot be read, or has changed.
    """
    found = read_content(file.path, action)
    if sha256(found) != file.sha256:
        raise DataError(f"{file.path} has changed", f"SHA-256 {file.sha256}", action)
    return found


def check(file: FileRef, action: str = RESTORE) -> None:
    """Check a referenced file, which may be larger than memory; it raises as ``read`` does."""
    with open_verified(file.path, action) as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        raise DataError(f"{file.path} has changed", f"SHA-256 {file.sha256}", action)


def sha256(content: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


def checksums(digests: Mapping[str, str]) -> bytes:
    """``SHA256SUMS`` as ``sha256sum`` writes it, sorted by file name."""
    return "".join(f"{digest}  {filename}\n" for filename, digest in sorted(digests.items())).encode()


# The state of a file


SAMPLED_BLOCKS = 16
BLOCK_BYTES = 64 * 1024


class Fingerprint(NamedTuple):
    """The path of a file, and its state when it was inspected."""

    path: str
    bytes: int
    mtime_ns: int
    digest: str


def fingerprint_files(files: list[Path], full_digest: bool = False, unreadable: str = "") -> list[Fingerprint]:
    """Fingerprint every file, large ones by sampled blocks unless ``full_digest``.

    Raises:
        DataError: a file cannot be read, and ``unreadable`` gives no word to use in place of its digest.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda file: _fingerprint(file, full_digest, unreadable), files))


def _fingerprint(path: Path, full_digest: bool, unreadable: str) -> Fingerprint:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise regular_files.irregular_file(path)
        if not facts.st_size:  # a file of /proc has size 0 too, and reading it may wait forever
            digest = hashlib.sha256().hexdigest()
        elif full_digest or facts.st_size <= SAMPLED_BLOCKS * BLOCK_BYTES:
            digest = atomic.file_digest(path)
        else:
            digest = _digest_samples(path, facts.st_size)
    except OSError as error:
        if unreadable:
            return Fingerprint(str(path), 0, 0, unreadable)
        raise DataError(f"{path} cannot be read: {error.strerror}", "a readable file", "see its permissions") from error
    return Fingerprint(str(path), facts.st_size, facts.st_mtime_ns, digest)


def _digest_samples(path: Path, size: int) -> str:
    """The SHA-256 of evenly spaced blocks of a file of ``size`` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for index in range(SAMPLED_BLOCKS):
            stream.seek((size - BLOCK_BYTES) * index // (SAMPLED_BLOCKS - 1))
            digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()
