"""What a model's pointer says, and what harm can come to its files."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from candidate import seal
from documents import load
from tasks.store import artifact_paths, atomic, model_folder, verification, verified_files
from tasks.store.tuning_result import TunedSettings

NAME = "linear-regression"


def champion() -> tuple[int, int | None, list[int]]:
    document = model_folder.find_champion(NAME)
    assert document is not None
    return document.version, document.previous, list(document.held)


def whole_files(name: str = NAME) -> dict[tuple[int, str], bytes]:
    """Every file of every version; all are whole, and the pointer fits the one that it names."""
    found = dict[tuple[int, str], bytes]()
    for number in model_folder.list_versions(name):
        for filename, content in verification.verify_version(name, number).items():
            found[number, filename] = content
        verification.verify_rows(name, number)
    document = model_folder.find_champion(name)
    assert document is not None
    verification.verify_pointer(name, document)
    return found


def leftovers() -> list[Path]:
    """What killed processes have left in the store, and the next has not swept."""
    kinds = (".staging", ".pruned", ".scratch", ".gradmill-")
    return [path for path in artifact_paths.root().rglob(".*") if path.name.startswith(kinds)]


def damage(path: Path, position: int, bit: int = 1) -> bytes:
    """Flip one bit of a read-only file; return what it was."""
    before = path.read_bytes()
    after = bytearray(before)
    after[position % len(after)] ^= bit
    path.chmod(0o644)
    path.write_bytes(after)
    return before


def age_demotions() -> None:
    """Let every demotion be two days old."""
    path, old = artifact_paths.history(NAME), (datetime.now(UTC) - timedelta(days=2)).isoformat()
    path.write_text(re.sub(r'"at": ?"[^"]+"', f'"at":"{old}"', path.read_text()))


def forget_changes(number: int) -> None:
    """Leave only so many lines in the history, as if a kill had come before the next one."""
    path = artifact_paths.history(NAME)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:number]))


def point(without: str = "", **changes: object) -> None:
    """Write the pointer with ``changes``, as no command does."""
    path = artifact_paths.champion(NAME)
    document = load(path) | changes
    document.pop(without, None)
    path.write_text(json.dumps(document))


def seal_all(folder: Path, **changes: Any) -> None:
    """Write the manifest with ``changes``, and digests that fit whatever lies in the folder; the pointer stays."""
    manifest = load(folder / "manifest.json")
    names = {path.name for path in folder.iterdir()} - {"manifest.json", "SHA256SUMS"}
    manifest["files"] = digests = {name: atomic.file_digest(folder / name) for name in sorted(names)}
    seal(folder, manifest | changes)
    digests["manifest.json"] = atomic.file_digest(folder / "manifest.json")
    (folder / "SHA256SUMS").write_bytes(verified_files.checksums(digests))


def keep_settings(
    name: str = NAME, model: str = NAME, run: str = "a-search", dataset: str = "", **settings: Any
) -> None:
    """As a search leaves what it has found."""
    TunedSettings(
        model=model,
        dataset=dataset,
        dataset_digest="0" * 64,
        settings=settings,
        validation_losses=(0.1,),
        default_settings={},
        default_losses=(0.2,),
        num_trials=1,
        num_validation=100,
        seed=0,
        run=run,
    ).write(artifact_paths.tuned(name))
