"""A version folder appears by one rename, whole, and never changes. The caller holds the lock."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tasks.errors import DataError
from tasks.store import (
    artifact_paths,
    atomic,
    attestation,
    folders,
    history,
    locks,
    names,
    pointer,
    reading,
    triton,
    verified,
)
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST, ONNX
from tasks.store.versions import Lineage, Manifest


@contextmanager
def turn(name: str, to_publish: bool) -> Iterator[bool]:
    """Hold the lock while a candidate is judged; yield whether it may be published: not under a frozen name.

    Where nothing is ``to_publish``, a folder that is not there is not made, and nothing in it is mended; and where
    nothing was published, one that was made for the lock goes.
    """
    with locks.model(name) if to_publish or reading.versions(name) else nullcontext():
        try:
            if to_publish:
                sweep(name)
            yield to_publish and not pointer.is_frozen(name)
        finally:
            if to_publish:
                folders.sweep_model(artifact_paths.model(name))


def sweep(name: str) -> None:
    """Remove what a killed publication or pruning left, and repair ``config.pbtxt``."""
    folders.sweep(names.LEFTOVER, artifact_paths.model(name))
    for number in reading.versions(name):  # a kill between the rename and this
        folders.make_read_only(artifact_paths.version(name, number))
    if current := reading.champion(name):
        triton.write_config(name, current.version)


def find(name: str, onnx_sha256: str) -> int | None:
    """The kept version with these very model bytes, if there is one."""
    kept = reading.versions(name)
    return next((each for each in kept if reading.manifest(name, each).files[ONNX] == onnx_sha256), None)


def was_champion(name: str, number: int) -> bool:
    """Whether a version is or ever was the champion; the pointer tells it even where the history is lost."""
    current = reading.champion(name)
    return number in (current.named if current else ()) or number in history.list_demotions(name)


def next_number(name: str) -> int:
    """One more than the highest that was ever given; where something else has that name, the next one.

    Raises:
        DataError: the history is damaged, or none is left.
    """
    number = history.highest_number(name) + 1
    while os.path.lexists(artifact_paths.version(name, number)):
        number += 1
    if not names.VERSION.fullmatch(str(number)):
        found = f"{artifact_paths.model(name)}, or its history, has a version {number - 1}"
        raise DataError(found, "numbers of at most nine digits", "restore it from a copy, or take another --name")
    return number


def publish(lineage: Lineage, fill: Callable[[Path, int], None], sign_key: Path | None = None) -> int:
    """Make the next version by one rename; return its number.

    ``fill`` gets the staging folder and the number, and puts the files there; manifest and checksums are added here.
    With ``sign_key`` the folder also gets an attestation.
    """
    name = lineage.name
    number = next_number(name)
    staging = names.staging(artifact_paths.model(name))
    staging.mkdir()
    fill(staging, number)
    files = {path.name: atomic.file_digest(path) for path in sorted(staging.iterdir())}
    manifest = Manifest(**dict(lineage), version=number, files=files).write(staging / MANIFEST)
    atomic.write_bytes(staging / CHECKSUMS, verified.checksums(files | {MANIFEST: manifest.sha256}))
    if sign_key is not None:
        attestation.sign(staging, sign_key)
    for path in staging.iterdir():
        path.chmod(0o444)
        atomic.sync(path)
    if rows := lineage.dataset.rows:  # which the manifest names
        atomic.sync(rows.path)
        atomic.sync(rows.path.parent)
    atomic.sync(staging)
    final = artifact_paths.version(name, number)
    staging.rename(final)  # before the folder is read-only: macOS refuses to rename a read-only folder
    folders.make_read_only(final)
    atomic.sync(final.parent)
    return number
