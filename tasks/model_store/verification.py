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
    document = reading.read_json(folder / MANIFEST)
    expected: dict[str, str] = document.get("files", {})
    found = {path.name for path in folder.iterdir()}
    for filename in sorted(found ^ {*expected, MANIFEST, CHECKSUMS} - {ATTESTATION}):
        if filename != ATTESTATION:
            state = "is not listed in manifest.json" if filename in found else "is missing"
            raise _broken(name, number, f"{folder / filename} {state}")
    stored, regenerated = (folder / CHECKSUMS).read_bytes(), publishing.checksums(folder).encode()
    for filename, digest in expected.items():
        actual = atomic.file_digest(folder / filename)
        if actual != digest:
            listed = f"{actual}  {filename}\n".encode() in stored  # two against one
            raise _broken(name, number, f"{folder / (MANIFEST if listed else filename)} has changed")
    if stored != regenerated:
        lines = zip(stored.split(b"\n"), regenerated.split(b"\n"), strict=False)
        changed = [new for old, new in lines if old != new]
        # The manifest vouches for every other file, so a difference is in the manifest's own line or in the list.
        manifest_differs = changed == [line for line in regenerated.split(b"\n") if line.endswith(MANIFEST.encode())]
        raise _broken(
            name, number, f"{folder / CHECKSUMS} " + ("or manifest.json " if manifest_differs else "") + "has changed"
        )
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
        DataError: there is none, it lacks something, or it does not fit.
    """
    path = artifact_paths.champion(name)
    if pointer is None:
        raise DataError(f"{path} is missing", "a pointer to a version", f"gradmill promote {name} VERSION")
    action = f"gradmill promote {name} VERSION"
    try:
        folder = artifact_paths.version(name, int(pointer["version"]))
        digests = {ONNX: pointer["model_sha256"], MANIFEST: pointer["manifest_sha256"]}
        previous, held = pointer["previous"], pointer["held"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} lacks {error}", "a pointer as gradmill writes it", action) from error
    for filename, digest in digests.items():
        if not (folder / filename).is_file() or atomic.file_digest(folder / filename) != digest:
            raise DataError(f"{path} does not fit {folder / filename}", f"SHA-256 {digest}", action)
    if not isinstance(held, list) or not (previous is None or isinstance(previous, int)):
        raise DataError(f"{path} has previous {previous!r} and held {held!r}", "a number and a list", action)


def _verify_config(name: str) -> None:
    config = artifact_paths.triton_config(name)
    if not config.is_file() or config.read_text() != triton.config(name):
        expected = triton.config(name).splitlines()[-1]
        raise DataError(f"{config} is not the champion's", expected, f"gradmill promote {name} VERSION")


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
