"""Own data that need no training: a kept version was made of the same rows, or too few rows are new (design 4.2).

What is in files that look as they did when they were last read stands in ``look.json`` beside the data set's files.
"""

import hashlib
import json
from typing import Any, Literal

from pydantic import ValidationError

from tasks.data import row_hash
from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.parameters import RetrainParameters
from tasks.records import PreparedDataset, PublishedModel, RawDataset
from tasks.store import artifact_paths, locks, own_data, pointer, reading, verification, verified
from tasks.store.artifact_paths import ONNX
from tasks.store.documents import Document
from tasks.store.reading import Manifest
from tasks.store.record import FileRef, Sha256
from tasks.store.run_folder import RunFolder


class SourceFingerprint(Document):
    """How own files looked when they were last read, and by which options; the digest of their data, and the files."""

    schema_version: Literal[1] = 1
    look: str
    options: dict[str, Any]
    digest: Sha256
    rows: FileRef | None
    files: tuple[FileRef, ...]
    prepared: str  # how these look


def must_train(parameters: RetrainParameters) -> bool:
    """Whether nothing can be reused, as far as can be told before the data have been looked at."""
    return parameters.force or not reading.versions(parameters.name)


def remember_files(parameters: RetrainParameters, raw: RawDataset, prepared: PreparedDataset) -> None:
    """Let later runs know what is in files that still look so; of the book's data nothing is kept."""
    if raw.look:
        every = (prepared.train, prepared.test, prepared.raw_test, prepared.validation, prepared.rows)
        files = tuple(file for file in every if file)
        facts = {"digest": prepared.digest, "rows": prepared.rows, "files": files, "prepared": _digest_looks(files)}
        asked = {"look": raw.look, "options": _list_options(parameters)}
        SourceFingerprint.model_validate(asked | facts).write(artifact_paths.look(raw.name))
        trained = artifact_paths.trained_files(raw.name, prepared.digest)
        if not trained.exists():  # a version of these rows was trained on the files that had them first
            own_data.TrainedFiles(files=raw.paths or (raw.source,)).write(trained)


def find_by_files(run: RunFolder, parameters: RetrainParameters, raw: RawDataset) -> PublishedModel | None:
    """The version that was made of these files, by all that can be told without reading them.

    Raises:
        DataError: that version is damaged.
    """
    path = artifact_paths.look(raw.name)
    if parameters.data.new_recipe or not path.is_file():
        return None
    try:
        last = SourceFingerprint.read(path)
        is_same = (last.look, last.options) == (raw.look, _list_options(parameters))
        if not is_same or last.prepared != _digest_looks(last.files):
            return None
    except DataError as fault:
        tell(f"read anew: {fault.found}")
        return None
    return _find(run, parameters, last, "whose data look untouched since they were read")


def find_by_rows(run: RunFolder, parameters: RetrainParameters, prepared: PreparedDataset) -> PublishedModel | None:
    """The version that was made of these rows, in any order, files and format; or, of too few new ones, the champion.

    Raises:
        DataError: that version is damaged.
    """
    return _find(run, parameters, prepared, "which was made of these very rows with these options")


def _list_options(parameters: RetrainParameters) -> dict[str, Any]:
    """What makes another model, and the share of the test rows: where the name has fixed another, reading tells."""
    return own_data.options(parameters) | {"test": parameters.data.test}


def _digest_looks(files: tuple[FileRef, ...]) -> str:
    prints = [
        (each.bytes, each.mtime_ns, each.digest) for each in verified.fingerprint_files([file.path for file in files])
    ]
    return hashlib.sha256(json.dumps(prints).encode()).hexdigest()


def _find(
    run: RunFolder, parameters: RetrainParameters, data: PreparedDataset | SourceFingerprint, detail: str
) -> PublishedModel | None:
    """Say what was found, and keep it as evidence where a stage would have left its record."""
    if must_train(parameters) or data.rows is None:  # as of the book's, of which nothing is kept
        return None
    with locks.model(parameters.name):
        found = _find_made_of(parameters, data.digest, detail) or _find_waiting(parameters, data.rows)
    if found:
        tell(f"{found.name} version {found.version}, {found.detail}: unchanged, nothing is trained", short="")
        run.note(stages={"unchanged": found.model_dump(mode="json")})
    return found


def _find_made_of(parameters: RetrainParameters, digest: str, detail: str) -> PublishedModel | None:
    """The champion if it was made so, else the newest version that was the champion once: it is not brought back."""
    name = parameters.name
    current = reading.champion(name)
    champion = current.version if current else None
    for number in sorted(reading.versions(name), key=lambda each: (each == champion, each), reverse=True):
        kept = reading.manifest(name, number)
        is_same = kept.dataset.digest == digest and _is_asked_alike(kept, parameters)
        if is_same and pointer.was_champion(name, number):
            return _leave_unchanged(kept, detail)
    return None


def _find_waiting(parameters: RetrainParameters, rows: FileRef | None) -> PublishedModel | None:
    """The champion, where fewer rows than ``--min-new-rows`` are not among its own."""
    name, least = parameters.name, parameters.data.min_new_rows
    current = reading.champion(name) if least and not parameters.data.new_recipe else None
    kept = reading.manifest(name, current.version) if current else None
    if kept is None or rows is None or not _is_asked_alike(kept, parameters):
        return None
    if kept.dataset.rows is None:
        tell(f"trained though {least:,} new rows may not be there: version {kept.version} keeps no digests of rows")
        return None
    fresh = row_hash.count_new_rows(rows, kept.dataset.rows)
    if fresh >= least:
        return None
    return _leave_unchanged(kept, f"to which {counted(fresh, 'new row')} came, fewer than --min-new-rows {least:,}")


def _is_asked_alike(kept: Manifest, parameters: RetrainParameters) -> bool:
    """Whether a version was asked for with the same options as given, so that ``auto`` is ``auto`` on any date.

    Those of the split must be of the rule that it has, if any is given: without one the name's own rule holds.
    """
    rules = {rule: getattr(parameters.data, option) for rule, option in own_data.SPLITS.items()}
    split = kept.dataset.split
    if not split or any(column and (rule, column) != (split.rule, split.column) for rule, column in rules.items()):
        return False
    then = kept.parameters.model_dump(mode="json")
    document = {
        "name": parameters.name,
        "training": then["training"],
        "data": then.get("data", {}) | {"source": parameters.data.source},
    }
    try:
        return own_data.options(RetrainParameters.model_validate(document)) == own_data.options(parameters)
    except ValidationError:  # of another version of Gradmill
        return False


def _leave_unchanged(kept: Manifest, detail: str) -> PublishedModel:
    """A version that is whole; the caller holds the lock."""
    pointer.sweep(kept.name)
    verification.verify_version(kept.name, kept.version)
    model = FileRef(path=artifact_paths.version(kept.name, kept.version) / ONNX, sha256=kept.files[ONNX])
    return PublishedModel(outcome="unchanged", name=kept.name, version=kept.version, model=model, detail=detail)
