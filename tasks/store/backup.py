"""A copy of the store in a folder or an object store, from which ``gradmill restore`` makes it anew elsewhere.

What files hold lies in ``content/<SHA-256>``; ``backup.json`` names it by paths below artifacts/. It is replaced last:
whenever a backup is killed, the one before is whole, and the next takes up what is there. What has rotted there is
written anew: of a folder every file is read for that, of an object store only its size is compared.
"""

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tasks.errors import DataError, UsageError
from tasks.store import (
    artifact_paths,
    atomic,
    backup_contents,
    backup_place,
    folders,
    locks,
    names,
    reading,
    remote,
    verified,
)
from tasks.store.backup_place import CONTENT, MANIFEST, Backup, Content, StoreId

SMALL = 2**20  # bytes; so many are read once, since somebody may replace such a file meanwhile


class Made(NamedTuple):
    """What a backup has in it, and what of that was not there yet."""

    backup: Backup
    copied: list[str]  # paths

    def bytes(self, paths: Iterable[str] | None = None) -> int:
        """How large these files are, or all."""
        return sum(self.backup.files[path].bytes for path in (self.backup.files if paths is None else paths))


def make(url: str, with_database: bool = True, replace: bool = False) -> Made:
    """Write a backup, or bring one up to date, while runs go on: each name is locked while its files are copied.

    ``replace`` puts it in the place of one of another store, or with names that are not here.

    Raises:
        UsageError: nothing can be written to this URL, other things lie there, the backup there is not of this store,
            or there is nothing here, or only half a store.
        DataError: something here is damaged, or the place gives back other bytes; the backup there is as it was.
        EnvironmentProblem: the place does not answer, or refuses.
    """
    folder = remote.Folder(url)
    if folder.local and (place := folders.holding(folder.local)):
        found = f"{url} is in the artifacts folder itself, in {place}"
        raise UsageError(found, "a folder outside of it", "choose one on another disk or host")
    if not backup_contents.is_anything():
        found = f"{artifact_paths.root()} has nothing to back up"
        raise UsageError(found, "versions, runs or settings", "name another folder with --artifacts")
    with locks.locked(artifact_paths.backup_lock(), "another backup is being made; waiting for it"):
        store = backup_place.refuse_another(folder, replace) or secrets.token_hex(16)
        backup_place.make_ready(folder)
        copying = _Copying(folder)
        champions = _copy(copying, with_database)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        StoreId(id=store).write(artifact_paths.store_id())
        backup = Backup(at=now, store=store, champions=champions, files=copying.files)
        folder.write(MANIFEST, atomic.as_json(backup.model_dump(mode="json")))
        needed = {each.sha256 for each in backup.files.values()}
        for sha256 in filter(names.CONTENT.fullmatch, folder.sizes(CONTENT).keys() - needed):
            folder.remove(f"{CONTENT}/{sha256}")
    return Made(backup, copying.copied)


def _copy(copying: "_Copying", with_database: bool) -> dict[str, int | None]:
    """Copy all that there is, and return the champions as they are in the copy."""
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
    return champions


class _Copying:
    """Files on their way to a folder, where content that is there already is not written again."""

    def __init__(self, folder: remote.Folder) -> None:
        self._folder, self._there = folder, folder.sizes(CONTENT)
        self._whole: set[str] = set()  # SHA-256 of what is there as it was written
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
        if not self._has(kept):
            if content is None:
                self._folder.put(name, file)
            else:
                self._folder.write(name, content)
            self.copied.append(artifact_paths.relative(path))
            if self._folder.digest(name) != sha256:
                found, action = f"{self._folder.url}/{name} is not what was written there", "see what else writes there"
                raise DataError(found, f"SHA-256 {sha256}", f"{action}, then make the backup again")
        self._whole.add(sha256)
        self.files[artifact_paths.relative(path)] = kept

    def _has(self, kept: Content) -> bool:
        """Whether it is there; of what has rotted in an object store only another size is seen."""
        if kept.sha256 in self._whole or self._there.get(kept.sha256) != kept.bytes:
            return kept.sha256 in self._whole
        return not self._folder.local or self._folder.digest(f"{CONTENT}/{kept.sha256}") == kept.sha256
