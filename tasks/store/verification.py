"""Proof that a stored version is what was published: every checksum, the signature, the stored sample."""

from collections.abc import Mapping

from tasks.errors import DataError
from tasks.serving import contract
from tasks.store import artifact_paths, atomic, publishing, reading, triton, verified
from tasks.store.artifact_paths import ATTESTATION, CHECKSUMS, MANIFEST, METADATA, ONNX, SAMPLE
from tasks.store.record import FileRef
from tasks.store.versions import ChampionPointer

RESTORE = "restore the folder from a copy, or promote another version and delete this one"


def verify(name: str, number: int) -> list[str]:
    """Check one version thoroughly, and the pointer and Triton's configuration of its model; return what was checked.

    Raises:
        DataError: something is not as it was published; the message names the file.
    """
    verify_version(name, number)
    verify_pointer(name, reading.champion(name))
    verify_previous(name)
    _verify_config(name)
    _verify_by_running(name, number)
    return ["checksums", "manifest", "champion pointer", "config.pbtxt", "signature", "stored sample"]


def verify_version(name: str, number: int) -> dict[str, bytes]:
    """Check every file of a version against its checksums and its manifest; return what was checked, by filename.

    ``SHA256SUMS`` is compared with a regenerated one, byte for byte: ``sha256sum -c`` alone accepts upper-case digits.

    Raises:
        DataError: a file is missing, surplus or changed.
    """
    folder = artifact_paths.version(name, number)
    document = reading.read_manifest(folder)
    found = {path.name for path in folder.glob("*")}
    for filename in sorted((found ^ {*document.files, MANIFEST, CHECKSUMS}) - {ATTESTATION}):
        state = "is not listed in manifest.json" if filename in found else "is missing"
        raise _broken(name, number, f"{folder / filename} {state}")
    contents = {
        filename: verified.read(FileRef(path=folder / filename, sha256=digest), RESTORE)
        for filename, digest in document.files.items()
    }
    contents |= {filename: verified.content(folder / filename) for filename in found - {*document.files}}
    if contents[CHECKSUMS] != publishing.checksums(document.files | {MANIFEST: verified.sha256(contents[MANIFEST])}):
        raise _broken(name, number, f"{folder / CHECKSUMS} has changed")
    if (document.name, document.version) != (name, number):
        raise _broken(name, number, f"{folder / MANIFEST} is of {document.name} {document.version}")
    return contents


def _broken(name: str, number: int, found: str) -> DataError:
    return DataError(found, f"{name} version {number} as it was published", RESTORE)


def verify_pointer(name: str, pointer: ChampionPointer | None) -> None:
    """Check that a pointer, as it was read, fits the version that it names.

    Raises:
        DataError: there is none, or it does not fit.
    """
    if pointer is None:
        found = f"{artifact_paths.champion(name)} is missing"
        raise DataError(found, "a pointer to a version", f"gradmill promote {name} VERSION")
    folder = artifact_paths.version(name, pointer.version)
    files = [path for path in (folder / ONNX, folder / MANIFEST) if path.is_file()]
    verify_fit(name, pointer, {path.name: atomic.file_digest(path) for path in files})


def verify_fit(name: str, pointer: ChampionPointer, digests: Mapping[str, str]) -> None:
    """Check the digests of a version's files, by filename, against those of the pointer.

    Raises:
        DataError: they are others.
    """
    folder = artifact_paths.version(name, pointer.version)
    for filename, digest in ((ONNX, pointer.model_sha256), (MANIFEST, pointer.manifest_sha256)):
        if digests.get(filename) != digest:
            raise reading.unfit(name, folder / filename, digest)


def verify_previous(name: str) -> None:
    """Check that a rollback has where to go, if the pointer says so, and that the champion is not held.

    Raises:
        DataError: it has not, or it is.
    """
    path, pointer = artifact_paths.champion(name), reading.champion(name)
    if pointer is None:
        return
    number, previous, held = pointer.version, pointer.previous, list(pointer.held)
    others = [each for each in reading.versions(name) if each != number]
    if previous not in (None, *others) or number in held:
        found = f"{path} has version {number}, previous {previous} and held {held}"
        raise DataError(found, "another kept version, and a champion not held", f"gradmill promote {name} {number}")


def _verify_config(name: str) -> None:
    if not triton.is_derived(name):
        found = f"{artifact_paths.triton_config(name)} is not the champion's"
        raise DataError(found, triton.config(name).splitlines()[-1], f"gradmill promote {name} VERSION")


def _verify_by_running(name: str, number: int) -> None:
    from tasks.parameters import Device  # here: no other command of the store needs onnxruntime and numpy
    from tasks.serving import sample, sessions

    folder = artifact_paths.version(name, number)
    session = sessions.open_session(reading.read_file(folder, ONNX), Device.CPU)
    metadata = contract.ModelMetadata.parse(reading.read_file(folder, METADATA), folder / METADATA)
    columns = contract.columns_of_session(session)
    if contract.open_inference_metadata(name, number, contract.of_session(session), columns) != metadata:
        raise _broken(name, number, f"{folder / METADATA} does not describe {ONNX}")
    output = sample.contradicted(session, reading.read_file(folder, SAMPLE))
    if output is not None:
        raise _broken(name, number, f"{folder / ONNX} does not give the {output} of {SAMPLE}")
