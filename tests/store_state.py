"""What a model's pointer says, and what harm can come to its files."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.store import artifact_paths, reading

NAME = "linear-regression"


def champion() -> tuple[int, int | None, list[int]]:
    document = reading.champion(NAME)
    assert document is not None
    return document.version, document.previous, list(document.held)


def damage(path: Path, position: int, bit: int = 1) -> bytes:
    """Flip one bit of a read-only file; return what it was."""
    before = path.read_bytes()
    after = bytearray(before)
    after[position % len(after)] ^= bit
    path.chmod(0o644)
    path.write_bytes(after)
    return before


def age_demotions(name: str = NAME) -> None:
    """Let every demotion be two days old."""
    path, old = artifact_paths.history(name), (datetime.now(UTC) - timedelta(days=2)).isoformat()
    aged = [json.dumps(json.loads(line) | {"at": old}) for line in path.read_text().splitlines()]
    path.write_text("".join(f"{line}\n" for line in aged))


def forget_changes(number: int, name: str = NAME) -> None:
    """Leave only so many lines in the history, as if a kill had come before the next one."""
    path = artifact_paths.history(name)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:number]))
