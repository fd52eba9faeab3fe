"""``artifacts/models/``: versions that never change, and the champion pointer that says which one to use."""

import json
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks import artifact_paths, atomic
from tasks.artifact_paths import CHECKSUMS, MANIFEST, ONNX
from tasks.errors import DataError, UsageError

STAGING_PREFIX = ".staging-"


def names() -> list[str]:
    """Every model that has a folder."""
    folder = artifact_paths.models()
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def versions(name: str) -> list[int]:
    """The numbers of the kept versions, ascending."""
    folder = artifact_paths.model(name)
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []


def champion(name: str) -> dict[str, Any] | None:
    """The content of ``champion.json``, or None before the first publication."""
    path = artifact_paths.champion(name)
    if not path.is_file():
        return None
    return _read_json(path)


def manifest(name: str, number: int) -> dict[str, Any]:
    """The manifest of one version."""
    return _read_json(artifact_paths.version(name, number) / MANIFEST)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}", "the file as it was published", "restore it") from error
    return document


def resolve(name: str, number: int | None) -> int:
    """The version asked for, or the champion.

    Raises:
        UsageError: there is no such model or version.
    """
    kept = versions(name)
    if not kept:
        known = ", ".join(names()) or "none yet"
        raise UsageError(f"no model named {name}", f"one of: {known}", "train one first: gradmill retrain")
    if number is None:
        pointer = champion(name)
        if pointer is None:
            raise UsageError(f"{name} has no champion", "a published version", f"run gradmill retrain --name {name}")
        return int(pointer["version"])
    if number not in kept:
        known = ", ".join(map(str, kept))
        raise UsageError(f"{name} has no version {number}", f"one of: {known}", f"see gradmill models {name}")
    return number


def lock(name: str) -> FileLock:
    """Held over every change of a model's folder; free again when its holder dies."""
    path = artifact_paths.model_lock(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def sweep(name: str) -> None:
    """Remove what a killed publication left; the caller holds the lock."""
    for leftover in artifact_paths.model(name).glob(f"{STAGING_PREFIX}*"):
        leftover.chmod(0o755)
        shutil.rmtree(leftover)
    for leftover in artifact_paths.model(name).glob(".*.partial"):
        leftover.unlink()


def find(name: str, onnx_sha256: str) -> int | None:
    """The kept version with these very model bytes, if there is one."""
    for number in versions(name):
        if manifest(name, number)["files"][ONNX] == onnx_sha256:
            return number
    return None


def publish(name: str, fill: Callable[[Path, int], dict[str, Any]]) -> int:
    """Make the next version by one rename; the caller holds the lock.

    ``fill`` gets the staging folder and the number, puts the files there and returns the manifest without its
    checksums.
    """
    folder = artifact_paths.model(name)
    pointer = champion(name) or {}
    number: int = max([0, *versions(name), pointer.get("version", 0), pointer.get("previous") or 0]) + 1
    staging = folder / f"{STAGING_PREFIX}{secrets.token_hex(8)}"
    staging.mkdir()
    document = fill(staging, number)
    document["files"] = {path.name: atomic.file_digest(path) for path in sorted(staging.iterdir())}
    atomic.write_json(staging / MANIFEST, document)
    sums = [f"{atomic.file_digest(path)}  {path.name}\n" for path in sorted(staging.iterdir())]
    atomic.write_bytes(staging / CHECKSUMS, "".join(sums).encode())
    for path in staging.iterdir():
        path.chmod(0o444)
        atomic.sync(path)
    atomic.sync(staging)
    staging.rename(folder / str(number))
    (folder / str(number)).chmod(0o555)  # after the rename: renaming a folder writes its own ".." entry
    atomic.sync(folder)
    return number


def point_to(name: str, number: int) -> None:
    """Make ``number`` the champion; the caller holds the lock."""
    before = champion(name) or {}
    folder = artifact_paths.version(name, number)
    document = {
        "schema_version": 1,
        "version": number,
        "model_sha256": atomic.file_digest(folder / ONNX),
        "manifest_sha256": atomic.file_digest(folder / MANIFEST),
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "previous": before.get("version"),
        "held": before.get("held", []),
    }
    atomic.write_json(artifact_paths.champion(name), document)
