"""What the store holds. Readers take no lock: versions never change and the pointer is replaced atomically."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tasks.errors import DataError, UsageError
from tasks.machine.words import nearest
from tasks.parameters import is_name
from tasks.store import artifact_paths, folders, verified
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST, ONNX
from tasks.store.names import VERSION
from tasks.store.record import FileRef
from tasks.store.versions import ChampionPointer, Manifest

R = TypeVar("R")


def names() -> list[str]:
    """Every model that has a folder."""
    folder = artifact_paths.models()
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def versions(name: str) -> list[int]:
    """The numbers of the kept versions, ascending."""
    return sorted(int(path.name) for path in folders.named(VERSION, artifact_paths.model(name)))


def pointer(name: str) -> ChampionPointer | None:
    """The content of ``champion.json``, or None before the first publication.

    Raises:
        DataError: it is not a pointer as gradmill writes it.
    """
    path = artifact_paths.champion(name)
    return ChampionPointer.read(path, f"gradmill promote {name} VERSION") if os.path.lexists(path) else None


def champion(name: str) -> ChampionPointer | None:
    """The pointer to a version that is there, or None before the first publication.

    Raises:
        DataError: it is not a pointer as gradmill writes it, or it names a version that is not kept.
    """
    found = pointer(name)
    if found and found.version not in versions(name):
        found = pointer(name)  # somebody may have moved it on, and deleted the version that it named
    if found is None or found.version in versions(name):
        return found
    raise DataError(
        f"{artifact_paths.champion(name)} names version {found.version}, and there is no "
        f"{artifact_paths.version(name, found.version)}",
        f"one of: {', '.join(map(str, versions(name))) or 'none is kept'}",
        f"gradmill promote {name} VERSION, or restore the folder from a copy",
    )


def manifest(name: str, number: int) -> Manifest:
    """The manifest of one version; it raises as ``read_manifest`` does."""
    return read_manifest(artifact_paths.version(name, number))


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a version's folder, compared with its line in ``SHA256SUMS``.

    Raises:
        DataError: it is missing, or has changed since it was published.
    """
    path, action = folder / MANIFEST, advise(folder)
    content, sums = verified.content(path, action), verified.content(folder / CHECKSUMS, action)
    if verified.checksums({MANIFEST: verified.sha256(content)}) not in sums:
        raise DataError(f"{path}, or its line in {CHECKSUMS}, has changed", "both as they were published", action)
    return Manifest.parse(content, path, action)


def read_file(folder: Path, filename: str) -> bytes:
    """A file of the version in a folder, compared with its digest in the manifest: what is returned is what to use.

    Raises:
        DataError: it or the manifest is missing, or has changed since it was published.
    """
    listed = read_manifest(folder).files
    if filename not in listed:
        raise DataError(f"{folder / MANIFEST} lists no {filename}", "every file of the version", advise(folder))
    return verified.read(FileRef(path=folder / filename, sha256=listed[filename]), advise(folder))


def advise(folder: Path) -> str:
    """What to do about a damaged version."""
    name, number = folder.parts[-2:]
    return f"see gradmill verify {name} {number}; restore the folder from a copy, or promote another version"


def require_versions(name: str) -> list[int]:
    """The numbers of the kept versions of a model, of which there is one at least.

    Raises:
        UsageError: there is no such model.
    """
    if kept := versions(name) if is_name(name) else []:
        return kept
    every, found = [*filter(versions, names())], f"no model named {name} in {artifact_paths.models()}"
    to_do = nearest(name, every, "name one, another --artifacts, or train it: gradmill retrain")
    raise UsageError(found, f"one of: {', '.join(every)}" if every else "a model; there is none yet", to_do)


def resolve(name: str, number: int | None) -> int:
    """The version asked for, or the champion.

    Raises:
        UsageError: there is no such model or version.
    """
    kept = require_versions(name)
    if number is None:
        current = champion(name)
        if current is None:
            raise UsageError(f"{name} has no champion", "a published version", f"run gradmill retrain --name {name}")
        return current.version
    if number not in kept:
        known = ", ".join(map(str, kept))
        raise UsageError(f"{name} has no version {number}", f"one of: {known}", f"see gradmill models {name}")
    return number


def with_version(name: str, number: int | None, use: Callable[[int], R]) -> R:
    """What ``use`` makes of the version asked for, or of the champion.

    A champion that is pruned between reading the pointer and opening its files is looked up once more.

    Raises:
        UsageError: there is no such model or version.
    """
    found = resolve(name, number)
    try:
        return use(found)
    except (DataError, FileNotFoundError):
        if artifact_paths.version(name, found).is_dir():
            raise
        return use(resolve(name, number))


def load(name: str, number: int | None) -> tuple[int, bytes]:
    """The number and the ONNX file of the version asked for, or of the champion; the bytes are those published.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged, or the pointer does not fit its champion.
    """
    return with_version(name, number, lambda found: (found, model(name, found)))


def model(name: str, number: int) -> bytes:
    """The ONNX file of a version: these bytes, and no file opened later, are what was published.

    Raises:
        DataError: it is damaged, or the pointer does not fit its champion.
    """
    path = artifact_paths.version(name, number) / ONNX
    content, current = read_file(path.parent, ONNX), pointer(name)
    if current and current.version == number and verified.sha256(content) != current.model_sha256:
        raise unfit(name, path, current.model_sha256)
    return content


def unfit(name: str, path: Path, sha256: str) -> DataError:
    """What is wrong where the pointer has another digest than the champion's file at ``path``."""
    found = f"{artifact_paths.champion(name)} does not fit {path}"
    return DataError(found, f"SHA-256 {sha256}", f"see gradmill verify {name}; gradmill promote {name} VERSION")
