"""``history.jsonl``: every change of a model's folder, a line each, which is synced and never changed again.

Each line has the digest of the line before it, and ``.history.json`` that of the last one, so that nothing in between
can be changed or lost unseen. A last line without its end was never acknowledged: it is not read, and the next line
takes its place. Whoever appends holds the lock.
"""

import errno
import json
import os
from collections.abc import Iterable
from typing import Literal

from tasks.errors import DataError
from tasks.store import artifact_paths, atomic, reading, verified
from tasks.store.changed import Change
from tasks.store.record import Sha256

ACTION = "restore it from a backup or a mirror, or move it away: then another is begun, with the last 1000 changes"


class Line(Change):
    """One line."""

    past: Sha256 | Literal[""]  # SHA-256 (hex) of the line before, without its end


def read(name: str) -> list[Line]:
    """Every line, the oldest first; none where there is no such file.

    Raises:
        DataError: a line is not as gradmill wrote it.
    """
    path, past, found = artifact_paths.journal(name), "", []
    for number, written in enumerate(_lines(name), 1):
        line = Line.parse(written, f"{path}, line {number}", ACTION)
        if line.past != past:
            raise DataError(f"{path}, line {number} does not follow the line before it", "every line", ACTION)
        past = verified.sha256(written)
        found.append(line)
    return found


def append(name: str, changes: Iterable[Change]) -> str:
    """Add a line for each change, all of them synced, and return the digest of the last.

    Raises:
        DataError: the file cannot be read.
        OSError: it cannot be written; it is then as it was.
    """
    path, there = artifact_paths.journal(name), _lines(name)
    past, end, added = verified.sha256(there[-1]) if there else "", sum(len(line) + 1 for line in there), b""
    for change in changes:
        written = json.dumps(change.model_dump(mode="json") | {"past": past}).encode()
        past, added = verified.sha256(written), added + written + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        stream.truncate(end)
        try:
            _write(descriptor, added, end)
            os.fsync(descriptor)
        except OSError:
            stream.truncate(end)
            raise
    atomic.sync(path.parent)
    return past


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """All of it: of a disk that is nearly full the system takes a part, and says only at the next call why."""
    while content:
        written = os.pwrite(descriptor, content, offset)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content, offset = content[written:], offset + written


def verify(name: str) -> bytes:
    """Check every line, and that none is missing after it was acknowledged; return them all.

    Raises:
        DataError: one is missing or is not as gradmill wrote it.
    """
    read(name)
    noted, lines = reading.history(name).journal, _lines(name)  # in this order: somebody may append meanwhile
    if noted and noted not in map(verified.sha256, lines):
        found = f"{artifact_paths.journal(name)} lacks the line with SHA-256 {noted}"
        raise DataError(found, f"every line that {artifact_paths.history(name).name} knows of", ACTION)
    return b"".join(line + b"\n" for line in lines)


def _lines(name: str) -> list[bytes]:
    path = artifact_paths.journal(name)
    return verified.content(path, ACTION).split(b"\n")[:-1] if os.path.lexists(path) else []
