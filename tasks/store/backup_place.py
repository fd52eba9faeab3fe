"""Where a backup lies, whose it is, and what describes it there."""

import sys
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.errors import UsageError
from tasks.machine.telling import tell
from tasks.store import artifact_paths, names, reading, remote
from tasks.store.documents import Document
from tasks.store.record import Sha256

MANIFEST = "backup.json"
CONTENT = "content"
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
    store: str = ""  # whose it is
    at: str
    champions: dict[str, int | None]
    files: dict[Annotated[str, AfterValidator(_below_artifacts)], Content]


class StoreId(Document):
    """``.store.json``: what tells this store from others."""

    id: str


def refuse_another(folder: remote.Folder, replace: bool) -> str:
    """Leave alone what is no backup of this store, and return the store's id, which is empty before its first backup.

    Raises:
        UsageError: there is something else, or the store here is not whole.
        DataError: the backup there is damaged.
    """
    root, marker, own = artifact_paths.root(), artifact_paths.restoring(), artifact_paths.store_id()
    if marker.exists():
        found = f"a restore of {root} was begun and not finished"
        raise UsageError(found, "a whole store", "gradmill restore URL again, then make the backup")
    forget = f"remove {own}, then gradmill backup --replace"
    store = StoreId.read(own, forget).id if own.exists() else ""
    written = folder.read(MANIFEST)
    if written is None and folder.local and (strange := _strange(folder.local)):
        found = f"{folder.url} has {strange!r} in it, and no {MANIFEST}"
        raise UsageError(found, "an empty folder, or one with a backup", "name a new folder, as one below it")
    if written is None or replace:
        return store
    action = f"name the right folder with --artifacts; if {root} is, --replace puts it in the place of that backup"
    there = Backup.parse(written, f"{folder.url}/{MANIFEST}", action)
    gone = [name for name in there.champions if not reading.versions(name)]
    if gone or there.store not in ("", store):
        what = f"has {gone[0]!r}, of which {root} has no version" if gone else f"is of another store than {root}"
        raise UsageError(f"the backup in {folder.url} {what}", "a backup of this store", action)
    return store


def _strange(folder: Path) -> str | None:
    """What somebody else has put into a folder."""
    found = (path.name for path in sorted(folder.iterdir())) if folder.is_dir() else ()
    return next((name for name in found if name != CONTENT and not names.TEMPORARY.fullmatch(name)), None)


def make_ready(folder: remote.Folder) -> None:
    """Nobody else may read a local folder's content: the database has the secrets of a server's blocks."""
    if folder.local:
        content = folder.local / CONTENT
        for place in (folder.local, content):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            content.chmod(0o700)
        except OSError as error:  # as on a share
            tell(f"others may be able to read {content}: {error}", file=sys.stderr)
    folder.sweep("")
