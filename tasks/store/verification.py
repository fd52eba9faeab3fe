"""Checks that a stored version is what was published: every checksum, the signature, the stored sample."""

from tasks.errors import DataError
from tasks.serving import contract
from tasks.store import artifact_paths, atomic, history, model_folder, verified_files
from tasks.store.artifact_paths import ATTESTATION, CHECKSUMS, MANIFEST, METADATA, ONNX, SAMPLE
from tasks.store.model_folder import ChampionPointer
from tasks.store.record_base import FileRef

RESTORE_ROWS = "restore it from a copy, or remove it: which rows are new at the next retrain is then not known"
RESTORE = "restore the folder from a copy, or promote another version and delete this one"


def verify(name: str, number: int) -> tuple[list[str], list[str]]:
    """Check one version thoroughly, and its model's pointer, configuration and history.

    Returns what was checked, and what is not here: the history may be begun anew, and a store that only serves has no
    datasets beside its models.

    Raises:
        DataError: something is not as it was published; the message names the file.
    """
    has_rows = verify_thoroughly(name, number)
    checked, missing = ["checksums", "manifest", "champion pointer", "config.pbtxt"], list[str]()
    (checked if verify_name(name) else missing).append("history")
    checked += ["signature", "stored sample"]
    if has_rows is not None:
        (checked if has_rows else missing).append("row digests")
    return checked, missing


def verify_thoroughly(name: str, number: int, needs_rows: bool = False) -> bool | None:
    """Check a version's files, and its answers and row digests; it raises as these checks do, and returns the last."""
    verify_version(name, number)
    verify_by_running(name, number)
    return verify_rows(name, number, needs_rows)


def verify_name(name: str) -> bool:
    """Check a model's pointer, configuration and history; return whether there is a history.

    Raises:
        DataError: one of them is missing, damaged or does not fit.
    """
    pointer = model_folder.find_champion(name)
    if pointer is None:
        raise model_folder.lost_pointer_error(name)
    verify_pointer(name, pointer)
    verify_previous(name, pointer)
    config = model_folder.find_manifest(name, pointer.version).triton_config
    if not holds_config(name, config):
        found = f"{artifact_paths.triton_config(name)} is not the champion's"
        raise DataError(found, config.splitlines()[-1], f"gradmill promote {name} {pointer.version}")
    return bool(history.verify(name))


def verify_rows(name: str, number: int, needs_rows: bool = False) -> bool | None:
    """Check the row digests of a version's data; return whether they are here (None: the book's data have none).

    Raises:
        DataError: they have changed; or they are missing and needed, and the store has datasets, so does not only
            serve.
    """
    rows = model_folder.find_manifest(name, number).dataset.rows
    if rows is None:
        return None
    if rows.path.exists():
        verified_files.check(rows, RESTORE_ROWS)
        return True
    if needs_rows and artifact_paths.datasets().is_dir():
        action = "restore it from a copy; gradmill retrain on the same data writes it again, too"
        raise DataError(f"{rows.path} is missing", f"the row digests of {name} version {number}", action)
    return False


def verify_version(name: str, number: int) -> dict[str, bytes]:
    """Check every file of a version against its checksums and its manifest; return the files' contents by name.

    ``SHA256SUMS`` is compared byte for byte with a regenerated one, because ``sha256sum -c`` also accepts upper-case
    digits.

    Raises:
        DataError: a file is missing, surplus or changed, or the metadata do not fit the recipe.
    """
    folder = artifact_paths.version(name, number)
    document = model_folder.read_manifest(folder)
    found = {path.name for path in folder.glob("*")}
    for filename in sorted((found ^ {*document.files, MANIFEST, CHECKSUMS}) - {ATTESTATION}):
        state = "is not listed in manifest.json" if filename in found else "is missing"
        raise _describe_damage(name, number, f"{folder / filename} {state}")
    contents = {
        filename: verified_files.read(FileRef(path=folder / filename, sha256=digest), RESTORE)
        for filename, digest in document.files.items()
    }
    contents |= {filename: verified_files.read_content(folder / filename) for filename in found - {*document.files}}
    if contents[CHECKSUMS] != verified_files.checksums(
        document.files | {MANIFEST: verified_files.sha256(contents[MANIFEST])}
    ):
        raise _describe_damage(name, number, f"{folder / CHECKSUMS} has changed")
    if (document.name, document.version) != (name, number):
        raise _describe_damage(name, number, f"{folder / MANIFEST} is of {document.name} {document.version}")
    if contract.ModelMetadata.parse(contents[METADATA], folder / METADATA) != document.metadata:
        raise _describe_damage(name, number, f"{folder / METADATA} does not fit recipe, task and classes in {MANIFEST}")
    return contents


def _describe_damage(name: str, number: int, found: str) -> DataError:
    return DataError(found, f"{name} version {number} as it was published", RESTORE)


def verify_pointer(name: str, pointer: ChampionPointer) -> None:
    """Check that a pointer fits the version that it names.

    Raises:
        DataError: it does not fit.
    """
    folder = artifact_paths.version(name, pointer.version)
    for path, digest in ((folder / ONNX, pointer.model_sha256), (folder / MANIFEST, pointer.manifest_sha256)):
        if not path.is_file() or atomic.file_digest(path) != digest:
            raise model_folder.mismatch_error(name, path, digest)


def verify_previous(name: str, pointer: ChampionPointer) -> None:
    """Check that a rollback has a target, if the pointer names one, and that the champion is not held.

    Raises:
        DataError: the target is missing, or the champion is held.
    """
    number, previous, held = pointer.version, pointer.previous, list(pointer.held)
    others = [each for each in model_folder.list_versions(name) if each != number]
    if previous not in (None, *others) or number in held:
        found = f"{artifact_paths.champion(name)} has version {number}, previous {previous} and held {held}"
        raise DataError(found, "another kept version, and a champion not held", f"gradmill promote {name} {number}")


def holds_config(name: str, config: str) -> bool:
    """Whether ``config.pbtxt`` fits the champion."""
    path = artifact_paths.triton_config(name)
    return path.is_file() and path.read_bytes() == config.encode()


def verify_by_running(name: str, number: int) -> None:
    """Check that a version's ONNX file has the published signature and gives the stored sample's outputs.

    Raises:
        DataError: it does not.
    """
    from tasks.parameters import Device  # no other command of the store needs onnxruntime and numpy
    from tasks.serving import runtime

    folder, manifest = artifact_paths.version(name, number), model_folder.find_manifest(name, number)
    session = runtime.open_session(model_folder.read_file(folder, ONNX), Device.CPU, folder / ONNX)
    served = contract.read_signature(session), contract.read_columns(session)
    if contract.open_inference_metadata(name, number, *served) != manifest.metadata:
        raise _describe_damage(name, number, f"{folder / METADATA} does not describe {ONNX}")
    sample = model_folder.read_file(folder, SAMPLE)
    if wrong := runtime.find_contradiction(session, manifest.recipe, sample, folder / SAMPLE):
        raise _describe_damage(name, number, f"{folder / ONNX} does not agree with the {wrong} of {folder / SAMPLE}")
