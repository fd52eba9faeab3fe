"""Files that are either whole or absent: written beside their destination, synced, then renamed into place."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.store import artifact_paths, locks
from tasks.store.record_base import FileRef


@contextmanager
def replace_file(path: Path, is_durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it to ``path`` when the block succeeds.

    If ``is_durable``, the file is forced to disk, which takes some milliseconds. Files of a run are not: a later run
    checks their digests before it uses them, and a version has its own copies.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_in(path.parent) as temporary:
        try:
            yield temporary
            if is_durable:
                sync(temporary)
            temporary.replace(path)
            if is_durable:
                sync(path.parent)
        except OSError as error:
            if error.errno and error.filename in (None, str(temporary)):  # the system names no file when a write fails
                error.filename = str(path)
            raise


@contextmanager
def temporary_in(folder: Path) -> Iterator[Path]:
    """Yield an empty file that exists for the duration of the block; after a kill the next sweep removes it.

    A lock shows ``sweep`` that the file is in use; the kernel releases it when the process dies. If a sweep locks or
    removes the file between its creation and our lock, another one is made.
    """
    held = None
    while held is None:
        temporary = artifact_paths.temporary_path(folder)
        held = locks.take(temporary, os.O_CREAT | os.O_EXCL)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(held)


def sweep(folder: Path, depth: int = 3) -> None:
    """Remove the temporary files that killed writers left up to ``depth`` folders deep, and nothing else.

    Links are not followed, and whatever cannot be inspected or removed is left in place.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if depth:
                    sweep(Path(entry.path), depth - 1)
            elif artifact_paths.TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), locks.locked_if_free(Path(entry.path), flags=0) as dead:
                    if dead:
                        Path(entry.path).unlink()


def write_bytes(path: Path, content: bytes, is_durable: bool = True) -> FileRef:
    """Write ``content`` to ``path`` atomically and return its reference."""
    with replace_file(path, is_durable) as temporary:
        temporary.write_bytes(content)
    return FileRef(path=path, sha256=hashlib.sha256(content).hexdigest())


def write_json(path: Path, document: Any, is_durable: bool = True) -> FileRef:
    """Write ``document`` as indented JSON (NaN is an error, not a token that other parsers reject)."""
    return write_bytes(path, as_json(document), is_durable)


def as_json(document: Any) -> bytes:
    """The bytes that ``write_json`` writes."""
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
