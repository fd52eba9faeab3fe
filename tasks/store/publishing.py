"""A version folder appears by one rename, whole, and never changes. The caller holds the lock."""

import sys
from collections.abc import Callable
from pathlib import Path

from tasks.store import artifact_paths, atomic, attestation, folders, reading, triton
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST
from tasks.store.versions import Lineage, Manifest


def sweep(name: str) -> None:
    """Remove what a killed publication or pruning left, and repair ``config.pbtxt``."""
    folder = artifact_paths.model(name)
    folders.tell_of_strangers(folder)
    for leftover in folders.leftovers(folder):
        remove_folder(leftover)
    for number in reading.versions(name):  # a kill between the rename and this
        folders.make_read_only(artifact_paths.version(name, number))
    if reading.champion(name) is not None:
        triton.write_config(name)


def next_number(name: str) -> int:
    """One more than the highest that was ever given: the number of a version that is gone never comes back.

    Where something else has that name, the next one.
    """
    pointer = reading.champion(name)
    named = pointer.named if pointer else set()
    highest = max(reading.history(name).highest, *named, *reading.versions(name), 0)
    return folders.free_number(artifact_paths.model(name), highest + 1)


def publish(lineage: Lineage, fill: Callable[[Path, int], None], sign_key: Path | None = None) -> int:
    """Make the next version by one rename; return its number.

    ``fill`` gets the staging folder and the number, and puts the files there; manifest and checksums are added here.
    With ``sign_key`` the folder also gets an attestation.
    """
    name = lineage.name
    number = next_number(name)
    staging = folders.staging(artifact_paths.model(name))
    staging.mkdir()
    fill(staging, number)
    files = {path.name: atomic.file_digest(path) for path in sorted(staging.iterdir())}
    Manifest(**dict(lineage), version=number, files=files).write(staging / MANIFEST)
    atomic.write_bytes(staging / CHECKSUMS, checksums(staging).encode())
    if sign_key is not None:
        attestation.sign(staging, sign_key)
    for path in staging.iterdir():
        path.chmod(0o444)
        atomic.sync(path)
    atomic.sync(staging)
    final = artifact_paths.version(name, number)
    staging.rename(final)  # before the folder is read-only: macOS refuses to rename a read-only folder
    folders.make_read_only(final)
    atomic.sync(final.parent)
    reading.history(name).model_copy(update={"highest": number}).write(artifact_paths.history(name))
    return number


def checksums(folder: Path) -> str:
    """``SHA256SUMS`` of a version folder, as ``sha256sum`` writes it, sorted by name."""
    files = sorted(path for path in folder.iterdir() if path.name not in (CHECKSUMS, artifact_paths.ATTESTATION))
    return "".join(f"{atomic.file_digest(path)}  {path.name}\n" for path in files)


def remove_folder(condemned: Path) -> None:
    """Delete a folder that was renamed out of sight; what cannot be deleted is left for the next time, with a word."""
    try:
        folders.remove(condemned)
    except OSError as error:
        print(f"left: {condemned} cannot be removed: {error}", file=sys.stderr)
