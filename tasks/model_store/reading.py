"""What the store holds. Readers take no lock: versions never change and the pointer is replaced atomically."""

import json
from pathlib import Path
from typing import Any

from tasks import artifact_paths
from tasks.artifact_paths import MANIFEST, ONNX
from tasks.errors import DataError, UsageError
from tasks.parameters import is_name


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
    return read_json(path) if path.is_file() else None


def history(name: str) -> dict[str, Any]:
    """What ``champion.json`` cannot tell, ``{"highest": N, "demoted": {"1": time, …}}``.

    When each version was last demoted, and the highest number that pruning must not let come back.
    """
    path = artifact_paths.history(name)
    return read_json(path) if path.is_file() else {"highest": 0, "demoted": {}}


def was_champion(name: str, number: int) -> bool:
    """Whether a version is or ever was the champion."""
    pointer = champion(name)
    return (pointer is not None and pointer["version"] == number) or str(number) in history(name)["demoted"]


def manifest(name: str, number: int) -> dict[str, Any]:
    """The manifest of one version."""
    return read_json(artifact_paths.version(name, number) / MANIFEST)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        DataError: it is missing or not JSON.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "the file as it was published", "restore it") from error
    return document


def resolve(name: str, number: int | None) -> int:
    """The version asked for, or the champion.

    Raises:
        UsageError: there is no such model or version.
    """
    kept = versions(name) if is_name(name) else []
    if not kept:
        known = ", ".join(each for each in names() if versions(each)) or "none yet"
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


def load(name: str, number: int | None) -> tuple[int, bytes]:
    """The number and the ONNX file of the version asked for, or of the champion.

    A champion that is pruned between reading the pointer and opening the file is looked up once more.

    Raises:
        UsageError: there is no such model or version.
    """
    found = resolve(name, number)
    try:
        return found, (artifact_paths.version(name, found) / ONNX).read_bytes()
    except FileNotFoundError:
        found = resolve(name, number)
        return found, (artifact_paths.version(name, found) / ONNX).read_bytes()


def find(name: str, onnx_sha256: str) -> int | None:
    """The kept version with these very model bytes, if there is one."""
    for number in versions(name):
        if manifest(name, number)["files"][ONNX] == onnx_sha256:
            return number
    return None


def table(name: str) -> list[dict[str, Any]]:
    """One row a version, ascending: its figures, and whether it is the champion or held."""
    pointer = champion(name) or {"version": None, "held": []}
    rows = []
    for number in versions(name):
        document = manifest(name, number)
        path = artifact_paths.version(name, number) / ONNX
        gates = {gate["name"]: gate["value"] for gate in document["gates"]}
        rows.append(
            {
                "version": number,
                "champion": number == pointer["version"],
                "held": number in pointer["held"],
                "test_accuracy": document["metrics"].get("test_accuracy"),
                "test_loss": document["metrics"]["test_loss"],
                "parity": gates.get("parity"),
                "bytes": path.stat().st_size,
                "created_at": document["created_at"],
                "dataset": document["dataset"]["name"],
                "dataset_digest": document["dataset"]["digest"],
                "implementation": document["parameters"]["training"]["implementation"],
                "model_sha256": document["files"][ONNX],
                "path": str(path),
            }
        )
    return rows
