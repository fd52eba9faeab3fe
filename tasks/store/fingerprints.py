"""What tells one state of a file from another without reading all of it."""

import hashlib
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tasks.errors import DataError
from tasks.store import atomic, regular_files

SAMPLED_BLOCKS = 16
BLOCK_BYTES = 64 * 1024


class Fingerprint(NamedTuple):
    """Where a file is and what it was like when it was looked at."""

    path: str
    bytes: int
    mtime_ns: int
    digest: str


def of(files: list[Path], full_digest: bool = False, unreadable: str = "") -> list[Fingerprint]:
    """Fingerprint every file, large ones by sampled blocks unless ``full_digest``.

    Raises:
        DataError: a file cannot be read, and there is no word for ``unreadable`` ones in the place of a digest.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda file: _of(file, full_digest, unreadable), files))


def _of(path: Path, full_digest: bool, unreadable: str) -> Fingerprint:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise regular_files.irregular(path)
        if not facts.st_size:  # or a file of /proc, which may wait for ever
            digest = hashlib.sha256().hexdigest()
        elif full_digest or facts.st_size <= SAMPLED_BLOCKS * BLOCK_BYTES:
            digest = atomic.file_digest(path)
        else:
            with path.open("rb") as stream:
                digest = sampled(facts.st_size, lambda start: (stream.seek(start), stream.read(BLOCK_BYTES))[1])
    except OSError as error:
        if unreadable:
            return Fingerprint(str(path), 0, 0, unreadable)
        raise DataError(f"{path} cannot be read: {error.strerror}", "a readable file", "see its permissions") from error
    return Fingerprint(str(path), facts.st_size, facts.st_mtime_ns, digest)


def sampled(size: int, block: Callable[[int], bytes]) -> str:
    """The SHA-256 of blocks that lie evenly in ``size`` bytes; ``block`` gives the one that starts at a byte."""
    digest = hashlib.sha256()
    for index in range(SAMPLED_BLOCKS):
        digest.update(block(max(0, size - BLOCK_BYTES) * index // (SAMPLED_BLOCKS - 1)))
    return digest.hexdigest()
