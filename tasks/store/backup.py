"""A copy of the store in a folder or an object store, from which ``gradmill restore`` makes it anew elsewhere.

What files hold lies in ``content/<SHA-256>``; ``backup.json`` names it by paths below artifacts/. It is replaced last:
whenever a backup is killed, the one before is whole, and the next takes up what is there.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, atomic, backup_contents, folders, locks, reading, remote, verified
from tasks.store.documents import Document
from tasks.store.record import Sha256

MANIFEST = "backup.json"
CONTENT = "content"
SMALL = 2**20  # bytes; so many are read once, since somebody may replace such a file meanwhile
PLACES = (*artifact_paths.FOLDERS, "tuned", "schedules", ".prefect")


def _below_artifacts(path: str) -> str:
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or parts[0] not in PLACES or ".." in parts:
        raise ValueError("a path that is not one of artifacts/")
    return path


class Content(Document):
    """What a file holds."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Backup(Document):
    """``backup.json``: every file by its path below artifacts/, and which version each name's champion was."""

    schema_version: Literal[1] = 1
    at: str
    champions: dict[str, int | None]
    files: dict[Annotated[str, AfterValidator(_below_artifacts)], Content]


class Made(NamedTuple):
    """What a backup has in it, and what of that was not there yet."""

    backup: Backup
    copied: list[str]  # paths

    def bytes(self, paths: Iterable[str] | None = None) -> int:
        """How large these files are, or all."""
        return sum(self.backup.files[path].bytes for path in (self.backup.files if paths is None else paths))


def make(url: str, with_database: bool = True) -> Made:
    """Write a backup, or bring one up to date, while runs go on: each name is locked while its files are copied.

    Raises:
        UsageError: nothing can be written to this URL.
        DataError: something here is damaged, or the place gives back other bytes; the backup there is as it was.
        EnvironmentProblem: the place does not answer, or refuses.
    """
    folder = remote.Folder(url)
    if folder.local and (place := folders.holding(folder.local)):
        found = f"{url} is in the artifacts folder itself, in {place}"
        raise UsageError(found, "a folder outside of it", "choose one on another disk or host")
    with locks.locked(artifact_paths.backup_lock(), "another backup is being made; waiting for it"):
        if folder.local:  # others must not read the secrets of a server's blocks
            folder.local.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.sweep("")
        copying = _Copying(folder)
        champions = {}
        for name in filter(reading.versions, reading.names()):
            with locks.model(name):
                current = reading.champion(name)
                champions[name] = current.version if current else None
                copying.all(backup_contents.of_model(name))
        copying.all(backup_contents.shared())
        if with_database:
            with backup_contents.database() as copy:
                if copy:
                    copying.one(copy, artifact_paths.database())
        now = datetime.now(UTC).isoformat(timespec="seconds")
        backup = Backup(at=now, champions=champions, files=copying.files)
        folder.write(MANIFEST, atomic.as_json(backup.model_dump(mode="json")))
        needed = {each.sha256 for each in backup.files.values()}
        for sha256 in folder.sizes(CONTENT).keys() - needed:
            folder.remove(f"{CONTENT}/{sha256}")
    return Made(backup, copying.copied)


class _Copying:
    """Files on their way to a folder, where content that is there already is not written again."""

    def __init__(self, folder: remote.Folder) -> None:
        self._folder, self._there = folder, folder.sizes(CONTENT)
        self.files: dict[str, Content] = {}
        self.copied: list[str] = []

    def all(self, paths: Iterable[Path]) -> None:
        """Copy those that are there."""
        for path in paths:
            if path.is_file():
                self.one(path, path)

    def one(self, file: Path, path: Path) -> None:
        """Copy a file that is to be restored to ``path``.

        Raises:
            DataError: it cannot be read, or is not there as it was written.
        """
        size = verified.size(file)
        content = verified.content(file) if size <= SMALL else None
        sha256 = atomic.file_digest(file) if content is None else verified.sha256(content)
        kept = Content(sha256=sha256, bytes=size if content is None else len(content))
        name = f"{CONTENT}/{sha256}"
        if self._there.get(sha256) != kept.bytes:
            if content is None:
                self._folder.put(name, file)
            else:
                self._folder.write(name, content)
            self._there[sha256] = kept.bytes
            self.copied.append(artifact_paths.relative(path))
            if self._folder.digest(name) != sha256:
                found, action = f"{self._folder.url}/{name} is not what was written there", "see what else writes there"
                raise DataError(found, f"SHA-256 {sha256}", f"{action}, then make the backup again")
        self.files[artifact_paths.relative(path)] = kept
