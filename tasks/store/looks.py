"""What is in own files that look as they did when they were last read: ``look.json`` beside the data set's files."""

import hashlib
import json
from typing import Any, Literal

from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.parameters import RetrainParameters
from tasks.records import PreparedDataset, RawDataset
from tasks.store import artifact_paths, fingerprints, own_data
from tasks.store.documents import Document
from tasks.store.record import FileRef, Sha256


class Look(Document):
    """How own files looked when they were last read, and by which options; the digest of their data, and the files."""

    schema_version: Literal[1] = 1
    look: str
    options: dict[str, Any]
    digest: Sha256
    rows: FileRef | None
    files: tuple[FileRef, ...]
    prepared: str  # how these look


def remember(parameters: RetrainParameters, raw: RawDataset, prepared: PreparedDataset) -> None:
    """Let later runs know what is in files that still look so; of the book's data nothing is kept."""
    if prepared.is_own:
        every = (prepared.train, prepared.test, prepared.raw_test, prepared.validation, prepared.rows)
        files = tuple(file for file in every if file)
        facts = {"digest": prepared.digest, "rows": prepared.rows, "files": files, "prepared": _look_of(files)}
        asked = {"look": raw.look, "options": _options(parameters)}
        Look.model_validate(asked | facts).write(artifact_paths.look(raw.name))


def known(parameters: RetrainParameters, raw: RawDataset) -> Look | None:
    """What is in these files, if they were the last ones read, by the same options, and nothing was touched since."""
    path = artifact_paths.look(raw.name)
    if not path.is_file():
        return None
    try:
        last = Look.read(path)
        is_same = (last.look, last.options) == (raw.look, _options(parameters))
        return last if is_same and last.prepared == _look_of(last.files) else None
    except DataError as fault:
        tell(f"read anew: {fault.found}")
        return None


def _options(parameters: RetrainParameters) -> dict[str, Any]:
    """What makes another model, and the share of the test rows: where the name has fixed another, reading tells."""
    return own_data.options(parameters) | {"test": parameters.data.test}


def _look_of(files: tuple[FileRef, ...]) -> str:
    prints = [(each.bytes, each.mtime_ns, each.digest) for each in fingerprints.of([file.path for file in files])]
    return hashlib.sha256(json.dumps(prints).encode()).hexdigest()
