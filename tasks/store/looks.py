"""What is in own files that look as they did when they were last read: ``look.json`` beside the data set's files."""

import hashlib
import json
from typing import Literal

from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.records import PreparedDataset, RawDataset
from tasks.store import artifact_paths, fingerprints
from tasks.store.documents import Document
from tasks.store.record import FileRef, Sha256


class Look(Document):
    """How own files looked when they were last read, the digest of their data, and what was prepared of them."""

    schema_version: Literal[1] = 1
    look: str
    digest: Sha256
    files: tuple[FileRef, ...]
    prepared: str  # how these look


def remember(raw: RawDataset, prepared: PreparedDataset) -> None:
    """Let later runs know what is in files that still look so; of the book's data nothing is kept."""
    if prepared.is_own:
        every = (prepared.train, prepared.test, prepared.raw_test, prepared.validation, prepared.rows)
        files = tuple(file for file in every if file)
        known = Look(look=raw.look, digest=prepared.digest, files=files, prepared=_look_of(files))
        known.write(artifact_paths.look(raw.name))


def digest_of(raw: RawDataset) -> str | None:
    """The digest of the data in these files, if they were the last ones read and nothing was touched since."""
    path = artifact_paths.look(raw.name)
    if not path.is_file():
        return None
    try:
        known = Look.read(path)
        is_same = known.look == raw.look and known.prepared == _look_of(known.files)
        return known.digest if is_same else None
    except DataError as fault:
        tell(f"read anew: {fault.found}")
        return None


def _look_of(files: tuple[FileRef, ...]) -> str:
    prints = [(each.bytes, each.mtime_ns, each.digest) for each in fingerprints.of([file.path for file in files])]
    return hashlib.sha256(json.dumps(prints).encode()).hexdigest()
