"""Files that are whole or absent: written beside their place, synced, then renamed into it."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.records import FileRef

PARTIAL = ".partial"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block succeeds it takes the place of ``path``.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    with temporary.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # tells ``sweep`` that somebody is still writing; the kernel drops it at death
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed writers left up to three folders deep."""
    for pattern in ("*", "*/*", "*/*/*", "*/*/*/*"):
        for leftover in folder.glob(f"{pattern}{PARTIAL}"):
            with contextlib.suppress(FileNotFoundError, BlockingIOError), leftover.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()


def write_bytes(path: Path, content: bytes) -> FileRef:
    """Write ``content`` to ``path`` atomically and return its reference."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return FileRef(path=path, sha256=hashlib.sha256(content).hexdigest())


def write_json(path: Path, document: Any) -> FileRef:
    """Write ``document`` as indented JSON (NaN is an error, not a token that other parsers reject)."""
    return write_bytes(path, as_json(document))


def as_json(document: Any) -> bytes:
    """What ``write_json`` writes."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
