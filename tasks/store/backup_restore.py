"""An artifacts folder made anew from a backup: every file is checked before it takes its place, pointers come last."""

import os
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import DataError, UsageError
from tasks.store import artifact_paths, atomic, folders, locks, names, reading, remote, verified
from tasks.store.backup_place import CONTENT, MANIFEST, PLACES, Backup, Content, StoreId

TO_READ = 0o444  # a version's file


def restore(url: str) -> Backup:
    """Restore a backup into an artifacts folder that is empty, or in which the same restore was begun.

    Raises:
        UsageError: there is no backup, or the artifacts folder has other files in it.
        DataError: the backup is damaged; the same restore goes on once that is mended.
        EnvironmentProblem: the place does not answer, or refuses.
    """
    folder = remote.Folder(url)
    written = folder.read(MANIFEST)
    if written is None:
        raise UsageError(f"no {MANIFEST} in {url}", "a backup that was finished", f"gradmill backup {url}")
    backup = Backup.parse(written, f"{folder.url}/{MANIFEST}")
    marker, content = artifact_paths.restoring(), verified.sha256(written).encode()
    artifact_paths.make_root()
    with locks.locked(artifact_paths.backup_lock(), "another restore is going on; waiting for it"):
        if not marker.is_file() or marker.read_bytes() != content:
            if found := next(_occupied(), None):
                hint = "; a restore of another backup was begun here: empty it" if marker.is_file() else ""
                raise UsageError(
                    f"{found} is there", "an empty artifacts folder", f"name another with --artifacts{hint}"
                )
            atomic.write_bytes(marker, content)
        if backup.store:  # the next backup of what is restored goes on with this one
            StoreId(id=backup.store).write(artifact_paths.store_id())
        for path, kept in sorted(backup.files.items(), key=_pointers_last):
            _bring(folder, artifact_paths.root() / path, kept)
        atomic.sweep(artifact_paths.root())  # what the same restore left half-written when it was killed
        for name in reading.names():
            for number in reading.versions(name):
                folders.make_read_only(artifact_paths.version(name, number))
        marker.unlink()
    return backup


def _pointers_last(entry: tuple[str, Content]) -> tuple[bool, str]:
    pointers = (artifact_paths.champion("x").name, artifact_paths.triton_config("x").name)
    return Path(entry[0]).name in pointers, entry[0]


def _bring(folder: remote.Folder, path: Path, kept: Content) -> None:
    """Put a file in its place unless it is there.

    Raises:
        DataError: the backup has not what it should have.
    """
    if path.is_file() and atomic.file_digest(path) == kept.sha256:
        return
    is_database = path == artifact_paths.database()
    if is_database:  # nobody else may read it, half written neither
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
    with atomic.replacing(path) as temporary:
        if is_database:
            temporary.chmod(0o600)
        name = f"{CONTENT}/{kept.sha256}"
        if not folder.get(name, temporary) or atomic.file_digest(temporary) != kept.sha256:
            found = f"{folder.url}/{name}, which is to be {path}, is missing or has changed"
            raise DataError(found, "the backup as it was made", "restore from another copy of the backup")
        if names.VERSION.fullmatch(path.parent.name) and path.is_relative_to(artifact_paths.models()):
            temporary.chmod(TO_READ)


def _occupied() -> Iterator[Path]:
    """What lies where a restore writes, save locks and a home that we made for Prefect."""
    root = artifact_paths.root()
    home = artifact_paths.prefect_home() / "home"
    for path in root.rglob("*"):
        elsewhere = path.relative_to(root).parts[0] not in PLACES or path.is_relative_to(home)
        ours = path.name == ".lock" or names.TEMPORARY.fullmatch(path.name) is not None
        if not (elsewhere or ours) and (path.is_symlink() or not os.path.isdir(path)):  # noqa: PTH112
            yield path
