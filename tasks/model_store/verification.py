"""Proof that a stored version is what was published: every checksum, the signature, the stored sample."""

from typing import Any

from tasks import artifact_paths, atomic, contract
from tasks.artifact_paths import ATTESTATION, CHECKSUMS, MANIFEST, METADATA, ONNX, SAMPLE
from tasks.errors import DataError
from tasks.model_store import publishing, reading, triton


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


def verify_version(name: str, number: int) -> None:
    """Check every file of a version against its checksums and its manifest.

    ``SHA256SUMS`` is compared with a regenerated one, byte for byte: ``sha256sum -c`` alone accepts upper-case digits.

    Raises:
        DataError: a file is missing, surplus or changed.
    """
    folder = artifact_paths.version(name, number)
    found = {path.name for path in folder.glob("*")}
    for filename in (MANIFEST, CHECKSUMS):
        if filename not in found:
            raise _broken(name, number, f"{folder / filename} is missing")
    stored = (folder / CHECKSUMS).read_bytes()
    if f"{atomic.file_digest(folder / MANIFEST)}  {MANIFEST}\n".encode() not in stored:
        raise _broken(name, number, f"{folder / MANIFEST}, or its line in {CHECKSUMS}, has changed")
    document = reading.read_json(folder / MANIFEST)
    expected: dict[str, str] = document.get("files", {})
    for filename in sorted((found ^ {*expected, MANIFEST, CHECKSUMS}) - {ATTESTATION}):
        state = "is not listed in manifest.json" if filename in found else "is missing"
        raise _broken(name, number, f"{folder / filename} {state}")
    for filename, digest in expected.items():
        if atomic.file_digest(folder / filename) != digest:
            raise _broken(name, number, f"{folder / filename} has changed")
    if stored != publishing.checksums(folder).encode():
        raise _broken(name, number, f"{folder / CHECKSUMS} has changed")
    if document.get("name") != name or document.get("version") != number:
        raise _broken(name, number, f"{folder / MANIFEST} is of {document.get('name')} {document.get('version')}")


def _broken(name: str, number: int, found: str) -> DataError:
    return DataError(
        found,
        f"{name} version {number} as it was published",
        "restore the folder from a copy, or promote another version and delete this one",
    )


def verify_pointer(name: str, pointer: dict[str, Any] | None) -> None:
    """Check that a pointer, as it was read, fits the version that it names.

    Raises:
        DataError: there is none, or it does not fit.
    """
    path, action = artifact_paths.champion(name), f"gradmill promote {name} VERSION"
    if pointer is None:
        raise DataError(f"{path} is missing", "a pointer to a version", action)
    folder = artifact_paths.version(name, pointer["version"])
    for filename, digest in ((ONNX, pointer["model_sha256"]), (MANIFEST, pointer["manifest_sha256"])):
        if not (folder / filename).is_file() or atomic.file_digest(folder / filename) != digest:
            raise DataError(f"{path} does not fit {folder / filename}", f"SHA-256 {digest}", action)


def verify_previous(name: str) -> None:
    """Check that a rollback has where to go, if the pointer says so, and that the champion is not held.

    Raises:
        DataError: it has not, or it is.
    """
    path, pointer = artifact_paths.champion(name), reading.champion(name)
    if pointer is None:
        return
    number, previous, held = pointer["version"], pointer["previous"], pointer["held"]
    others = [each for each in reading.versions(name) if each != number]
    if previous not in (None, *others) or number in held:
        found = f"{path} has version {number}, previous {previous} and held {held}"
        raise DataError(found, "another kept version, and a champion not held", f"gradmill promote {name} {number}")


def _verify_config(name: str) -> None:
    if not triton.is_derived(name):
        found = f"{artifact_paths.triton_config(name)} is not the champion's"
        raise DataError(found, triton.config(name).splitlines()[-1], f"gradmill promote {name} VERSION")


def _verify_by_running(name: str, number: int) -> None:
    import numpy as np  # here: no other command of the store needs it, and they should answer at once

    from tasks import onnx_session
    from tasks.parameters import Device

    folder = artifact_paths.version(name, number)
    session = onnx_session.open_session(folder / ONNX, Device.CPU)
    metadata = reading.read_json(folder / METADATA)
    signature = contract.of_session(session)
    if contract.open_inference_metadata(name, number, signature) != metadata:
        raise _broken(name, number, f"{folder / METADATA} does not describe {ONNX}")
    with np.load(folder / SAMPLE, allow_pickle=False) as sample:
        arrays: dict[str, Any] = dict(sample)
    (source,) = signature.inputs
    outputs = [tensor.name for tensor in signature.outputs]
    for output, found in zip(outputs, session.run(outputs, {source.name: arrays[source.name]}), strict=True):
        if not np.allclose(found, arrays[output], rtol=0, atol=contract.SAMPLE_TOLERANCE):
            raise _broken(name, number, f"{folder / ONNX} does not give the {output} of {SAMPLE}")
