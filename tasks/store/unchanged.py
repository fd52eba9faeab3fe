"""Own data that need no training: a kept version was made of the same rows, or too few rows are new (design 4.2)."""

from pydantic import ValidationError

from tasks.data import row_hash
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.parameters import RetrainParameters
from tasks.records import PreparedDataset, PublishedModel, RawDataset
from tasks.store import artifact_paths, locks, looks, own_data, publishing, reading, verification
from tasks.store.artifact_paths import ONNX
from tasks.store.looks import Look
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder
from tasks.store.versions import Manifest


def is_none(parameters: RetrainParameters) -> bool:
    """Whether nothing can be reused, as far as can be told before the data have been looked at."""
    return parameters.force or not reading.versions(parameters.name)


def by_look(run: RunFolder, parameters: RetrainParameters, raw: RawDataset) -> PublishedModel | None:
    """The version that was made of these files, by all that can be told without reading them.

    Raises:
        DataError: that version is damaged.
    """
    last = looks.known(parameters, raw) if _may_be(parameters) and not parameters.data.new_recipe else None
    return _found(run, parameters, last, "whose data look untouched since they were read") if last else None


def by_rows(run: RunFolder, parameters: RetrainParameters, prepared: PreparedDataset) -> PublishedModel | None:
    """The version that was made of these rows, in any order, files and format; or, of too few new ones, the champion.

    Raises:
        DataError: that version is damaged.
    """
    if not _may_be(parameters):
        return None
    return _found(run, parameters, prepared, "which was made of these very rows with these options")


def _may_be(parameters: RetrainParameters) -> bool:
    return parameters.data.is_own and not parameters.force and bool(reading.versions(parameters.name))


def _found(
    run: RunFolder, parameters: RetrainParameters, data: PreparedDataset | Look, detail: str
) -> PublishedModel | None:
    """Say what was found, and keep it as evidence where a stage would have left its record."""
    found = _made_of(parameters, data.digest, detail) or _waiting(parameters, data.rows)
    if found:
        tell(f"{found.name} version {found.version}, {found.detail}: unchanged, nothing is trained", short="")
        run.note(stages={"unchanged": found.model_dump(mode="json")})
    return found


def _made_of(parameters: RetrainParameters, digest: str, detail: str) -> PublishedModel | None:
    """The champion if it was made so, else the newest version that was the champion once: it is not brought back."""
    name = parameters.name
    with locks.model(name):
        current = reading.champion(name)
        champion = current.version if current else None
        for number in sorted(reading.versions(name), key=lambda each: (each == champion, each), reverse=True):
            kept = reading.manifest(name, number)
            is_same = kept.dataset.digest == digest and _is_asked_alike(kept, parameters)
            if is_same and publishing.was_champion(name, number):
                return _unchanged(kept, detail)
    return None


def _waiting(parameters: RetrainParameters, rows: FileRef | None) -> PublishedModel | None:
    """The champion, where fewer rows than ``--min-new-rows`` are not among its own."""
    name, least = parameters.name, parameters.data.min_new_rows
    with locks.model(name):
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
        return _unchanged(kept, f"to which {counted(fresh, 'new row')} came, fewer than --min-new-rows {least:,}")


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


def _unchanged(kept: Manifest, detail: str) -> PublishedModel:
    """A version that is whole; the caller holds the lock."""
    publishing.sweep(kept.name)
    verification.verify_version(kept.name, kept.version)
    model = FileRef(path=artifact_paths.version(kept.name, kept.version) / ONNX, sha256=kept.files[ONNX])
    return PublishedModel(outcome="unchanged", name=kept.name, version=kept.version, model=model, detail=detail)
