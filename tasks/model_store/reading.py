"""What the store holds. Readers take no lock: versions never change and the pointer is replaced atomically."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks import artifact_paths
from tasks.artifact_paths import MANIFEST, ONNX
from tasks.errors import DataError, UsageError
from tasks.model_store import folders
from tasks.parameters import is_name


def names() -> list[str]:
    """Every model that has a folder."""
    folder = artifact_paths.models()
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def versions(name: str) -> list[int]:
    """The numbers of the kept versions, ascending."""
    return folders.versions(artifact_paths.model(name))


def champion(name: str) -> dict[str, Any] | None:
    """The content of ``champion.json``, or None before the first publication.

    Raises:
        DataError: it is not a pointer as gradmill writes it.
    """
    path = artifact_paths.champion(name)
    if not path.is_file():
        return None
    action = f"gradmill promote {name} VERSION"
    pointer = read_json(path, action)
    if not _is_pointer(pointer):
        raise DataError(f"{path} is not a pointer: {pointer}", "version, digests, previous and held", action)
    return pointer


def _is_pointer(document: Any) -> bool:
    try:
        numbers = [document["version"], *document["held"], *([document["previous"]] if document["previous"] else [])]
        texts = [document["model_sha256"], document["manifest_sha256"], document["promoted_at"]]
    except (KeyError, TypeError):
        return False
    typed = all(type(each) is int for each in numbers) and all(isinstance(each, str) for each in texts)
    return typed and isinstance(document["held"], list)


def history(name: str) -> dict[str, Any]:
    """What ``champion.json`` cannot tell, ``{"highest": N, "demoted": {"1": time, …}}``.

    When each version was last demoted, and the highest number that was ever given.

    Raises:
        DataError: the file is not as gradmill writes it.
    """
    path = artifact_paths.history(name)
    if not path.is_file():
        return {"highest": 0, "demoted": {}}
    action = "restore it, or delete it: then it is forgotten which versions were replaced, and when"
    past = read_json(path, action)
    if not _is_history(past):
        raise DataError(f"{path} is not a history: {past}", "highest and demoted", action)
    return past


def _is_history(document: Any) -> bool:
    try:
        demoted = {int(number): datetime.fromisoformat(moment) for number, moment in document["demoted"].items()}
        return type(document["highest"]) is int and all(moment.tzinfo for moment in demoted.values())
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def was_champion(name: str, number: int) -> bool:
    """Whether a version is or ever was the champion; the pointer tells it even where the history is lost."""
    pointer = champion(name) or {"version": None, "previous": None, "held": []}
    named = {pointer["version"], pointer["previous"], *pointer["held"]}
    return number in named or str(number) in history(name)["demoted"]


def manifest(name: str, number: int) -> dict[str, Any]:
    """The manifest of one version."""
    return read_json(artifact_paths.version(name, number) / MANIFEST)


def read_json(path: Path, action: str = "restore it") -> dict[str, Any]:
    """A JSON object from a file; ``action`` is what to do where it cannot be read.

    Raises:
        DataError: it is missing or not JSON.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "the file as it was written", action) from error
    return document


@contextmanager
def nothing_lacking(path: Path) -> Iterator[None]:
    """While a document is looked into, let what it lacks be an error that names its file.

    Raises:
        DataError: a field is not there, or is not of its kind.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} lacks {error}", "the file as it was written", "restore it") from error


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
        with nothing_lacking(artifact_paths.version(name, number) / MANIFEST):
            if manifest(name, number)["files"][ONNX] == onnx_sha256:
                return number
    return None


def table(name: str) -> list[dict[str, Any]]:
    """One row a version, ascending: its figures, and whether it is the champion or held."""
    pointer = champion(name) or {"version": None, "held": []}
    rows = []
    for number in versions(name):
        with nothing_lacking(artifact_paths.version(name, number) / MANIFEST):
            marks = {"champion": number == pointer["version"], "held": number in pointer["held"]}
            rows.append({"version": number, **marks, **_figures(name, number)})
    return rows


def _figures(name: str, number: int) -> dict[str, Any]:
    document = manifest(name, number)
    path = artifact_paths.version(name, number) / ONNX
    return {
        "test_accuracy": document["metrics"].get("test_accuracy"),
        "test_loss": document["metrics"]["test_loss"],
        "parity": {gate["name"]: gate["value"] for gate in document["gates"]}.get("parity"),
        "bytes": path.stat().st_size,
        "created_at": document["created_at"],
        "dataset": document["dataset"]["name"],
        "dataset_digest": document["dataset"]["digest"],
        "implementation": document["parameters"]["training"]["implementation"],
        "model_sha256": document["files"][ONNX],
        "path": str(path),
    }
