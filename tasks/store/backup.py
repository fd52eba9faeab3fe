"""Dated snapshots of the store in a folder or an object store, from which ``gradmill restore`` recreates it elsewhere.

The contents of files are at ``content/<SHA-256>``; ``snapshots/<time>-<digest>.json`` maps paths below artifacts/ to
them and is written last. Neither is ever overwritten with anything else: a killed backup leaves older snapshots intact,
and the next backup reuses the content that is there. So several stores may share a destination.

A snapshot holds what cannot be recreated from the data, and what explains it. Raw files, training splits, predictions,
other runs and stage results can be recreated; locks, credentials and the mirror belong to this host.
"""

import re
import sqlite3
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.parameters import addresses
from tasks.store import (
    artifact_paths,
    atomic,
    folders,
    history,
    housekeeping,
    locks,
    model_folder,
    own_data,
    remote,
    verification,
    verified_files,
)
from tasks.store.documents import Document, RootDocument
from tasks.store.record_base import Sha256

CONTENT, SNAPSHOTS = "content", "snapshots"
UNDATED = "backup.json"  # the only snapshot in backups made by c692a25; it has the same fields
SNAPSHOT = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ-([0-9a-f]{8})\.json")
# The files of a store that a backup takes; nothing else is ever restored.
NAME, FILE = "[a-z0-9][a-z0-9-]{0,62}", "[A-Za-z0-9_][A-Za-z0-9._-]*"
PATH = re.compile(
    rf"models/{NAME}/({artifact_paths.VERSION.pattern}/{FILE}|champion\.json|config\.pbtxt|history\.jsonl|\.history\.json)"
    rf"|datasets/{FILE}/{FILE}|runs/{FILE}(/{FILE})+|tuned/{NAME}\.json|schedules(/{FILE})+|\.prefect/prefect\.db"
)
WAIT = "another backup or restore is going on; waiting for it"


def _of_a_store(path: str) -> str:
    if not PATH.fullmatch(path):
        raise ValueError(f"{path!r} is not a file that a backup has")
    return path


class Content(Document):
    """The content of a file."""

    sha256: Sha256
    bytes: int = Field(ge=0)


class Snapshot(RootDocument):
    """Every file by its path below artifacts/."""

    store: str = ""  # tells the store from its copies
    at: str
    files: dict[Annotated[str, AfterValidator(_of_a_store)], Content]


class BackupResult(NamedTuple):
    """A finished backup: its snapshot by name, the files whose content was new, and the snapshots that were removed."""

    name: str
    snapshot: Snapshot
    copied_files: list[str]
    removed_snapshots: list[str]


def make(url: str, keep: int | None = None, with_database: bool = True) -> BackupResult:
    """Add a snapshot while runs may go on: each name is locked while its files are copied.

    Only the newest ``keep`` snapshots of this store are kept, and only the content that some snapshot names.

    Raises:
        UsageError: nothing can be written to this URL, or there is nothing to back up.
        DataError: a file of the store is damaged, or the destination returns other bytes; no snapshot is added then. Or
            the snapshot was added, but another one there is damaged, so that nothing can be removed.
        EnvironmentProblem: the destination does not answer or refuses, or this store is only half restored.
    """
    folder = _open(url)
    folder.require_outside()
    locks.refuse_half_restored()
    if folder.local:
        for private in (folder.local, folder.local / CONTENT, folder.local / SNAPSHOTS):
            private.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:  # also for existing folders: the database has the secrets of a server's blocks
            folders.set_mode(folder.local / CONTENT, 0o700)
        except OSError as error:  # such as on a share
            print_message(f"others may be able to read {folder.local / CONTENT}: {error}", file=sys.stderr)
    with locks.hold_lock(folder.local / ".lock" if folder.local else artifact_paths.backup_lock(), WAIT):
        folder.sweep("")
        sizes, files, copied = folder.sizes(CONTENT), {}, []
        with closing(_list_files(with_database)) as listed:  # the generator holds a lock when copying fails
            for path, file in listed:
                files[path], is_new = _copy(folder, sizes, file)
                copied += [path] if is_new else []
        if not files:
            found = f"{artifact_paths.root()} has nothing to back up"
            raise UsageError(found, "versions, runs or settings", "name another folder with --artifacts")
        now, store = datetime.now(UTC), verified_files.sha256(repr(folders.identify_store(make=True)).encode())[:16]
        snapshot = Snapshot(store=store, at=now.isoformat(timespec="seconds"), files=files)
        document = atomic.as_json(snapshot.model_dump(mode="json"))
        name = f"{now:%Y-%m-%dT%H-%M-%SZ}-{verified_files.sha256(document)[:8]}.json"
        folder.write(f"{SNAPSHOTS}/{name}", document)
        return BackupResult(name, snapshot, copied, _remove_old(folder, name, keep) if keep else [])


def _copy(folder: remote.RemoteFolder, sizes: dict[str, int], file: Path) -> tuple[Content, bool]:
    """Copy a file's content unless ``sizes`` lists it; also return whether it was copied.

    Corrupted content is replaced: a file in a local folder is read to detect it, in an object store only its size
    counts.

    Raises:
        DataError: the copy differs from what was written, or the file was replaced during the copy.
    """
    content = Content(sha256=atomic.file_digest(file), bytes=file.stat().st_size)
    name = f"{CONTENT}/{content.sha256}"
    is_there = sizes.get(content.sha256) == content.bytes
    if is_there and (not folder.local or folder.digest(name) == content.sha256):
        return content, False
    folder.put(name, file)
    if folder.digest(name) != content.sha256:
        folder.remove(name)
        found = f"{folder.url}/{name} is not what was written there, or {file} was replaced meanwhile"
        raise DataError(found, f"SHA-256 {content.sha256}", "make the backup again")
    sizes[content.sha256] = content.bytes
    return content, True


def _open(url: str) -> remote.RemoteFolder:
    folder = remote.RemoteFolder(url)
    for name in (CONTENT, SNAPSHOTS):
        if folder.local and (folder.local / name).is_symlink():
            raise UsageError(f"{folder.local / name} is a link", "a folder of the backup itself", "move it elsewhere")
    return folder


def _remove_old(folder: remote.RemoteFolder, newest: str, keep: int) -> list[str]:
    snapshots = {name: _read(folder, name) for name in _list(folder)}
    store = snapshots[newest].store
    older = [name for name, snapshot in snapshots.items() if snapshot.store == store and name != newest]
    removed = older[: max(0, len(older) + 1 - keep)]
    for name in removed:
        folder.remove(f"{SNAPSHOTS}/{name}")
    kept = [snapshot for name, snapshot in snapshots.items() if name not in removed]
    needed = {content.sha256 for snapshot in kept for content in snapshot.files.values()}
    for sha256 in filter(artifact_paths.BACKUP_CONTENT.fullmatch, folder.sizes(CONTENT).keys() - needed):
        folder.remove(f"{CONTENT}/{sha256}")
    return removed


def _list(folder: remote.RemoteFolder) -> list[str]:
    """The names of all snapshots, the oldest first."""
    undated = [UNDATED] if UNDATED in folder.sizes("") else []
    return undated + sorted(filter(SNAPSHOT.fullmatch, folder.sizes(SNAPSHOTS)))


def _read(folder: remote.RemoteFolder, name: str) -> Snapshot:
    path = UNDATED if name == UNDATED else f"{SNAPSHOTS}/{name}"
    action = "restore another one with --snapshot, or remove this one: nothing else depends on it"
    content, dated = folder.read(path) or b"", SNAPSHOT.fullmatch(name)
    if dated and verified_files.sha256(content)[:8] != dated[1]:
        raise DataError(f"{folder.url}/{path} has changed", f"SHA-256 {dated[1]}…", action)
    return Snapshot.parse(content, f"{folder.url}/{path}", action)


# What is in a snapshot


def _list_files(with_database: bool) -> Generator[tuple[str, Path]]:
    """List every file to copy, with its path below artifacts/. A name stays locked until the next one is asked for.

    Raises:
        DataError: a file is not as it was published, or the runs that explain it cannot be determined.
    """
    for name in filter(model_folder.list_versions, model_folder.list_names()):
        with locks.hold_model(name):
            yield from _choose(_list_model(name), may_be_links=False)
    places = [artifact_paths.runs() / run for run in sorted(housekeeping.list_evidence())]
    for folder in (*places, artifact_paths.all_tuned(), artifact_paths.schedules().parent):
        yield from _choose(folder.rglob("*"))
    database = artifact_paths.database()
    if with_database and database.is_file():
        with _copy_of_database(database) as copy:
            yield artifact_paths.relative(database), copy


def _list_model(name: str) -> Iterator[Path]:
    """The files of a name: every version, verified, with its row digests; pointer and history; the source of its data.

    They include the champion's test rows, if these are here, because predict labels them by default.

    Raises:
        DataError: a file is not as it was published, the pointer is missing, or row digests, which cannot be recreated.
    """
    current, numbers = model_folder.find_champion(name), model_folder.list_versions(name)
    if current:  # restore would refuse a pointer that does not fit
        verification.verify_pointer(name, current)
    elif numbers:
        raise model_folder.lost_pointer_error(name)
    for number in numbers:
        verification.verify_version(name, number)
        yield from artifact_paths.version(name, number).iterdir()
        data = model_folder.find_manifest(name, number).dataset
        is_champion = current is not None and current.version == number
        for file in (data.rows, data.test if is_champion and data.test.path.exists() else None):
            if file:
                verified_files.check(
                    file,
                    f"restore it from an older snapshot, or delete the version with gradmill prune {name}, "
                    "if that does so",
                )
                yield file.path
    history.verify(name)
    for place in (artifact_paths.history, artifact_paths.champion, artifact_paths.triton_config, artifact_paths.source):
        yield place(name)
    for pattern in ("*.sources.json", "frame-*.parquet"):  # the latter are rows that were passed from Python
        yield from artifact_paths.dataset(name).glob(pattern)


def _choose(paths: Iterable[Path], may_be_links: bool = True) -> Iterator[tuple[str, Path]]:
    """Yield the files that exist and belong to the store; a link is left out or is an error.

    Raises:
        DataError: a path is a link, and not ``may_be_links``.
    """
    for path in sorted(paths):
        relative = artifact_paths.relative(path)
        if path.is_symlink() and not may_be_links:
            raise DataError(f"{path} is a link", "a file of the store itself", "replace it by what it points to")
        if PATH.fullmatch(relative) and path.is_file() and not path.is_symlink():
            yield relative, path


@contextmanager
def _copy_of_database(path: Path) -> Iterator[Path]:
    """A consistent copy of the database of ``gradmill up``, which may keep writing to it."""
    with atomic.temporary_in(path.parent) as copy:
        copy.chmod(0o600)  # before any content is written
        try:
            with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(copy)) as written:
                written.execute("PRAGMA journal_mode=OFF")
                live.backup(written)
        except sqlite3.DatabaseError as error:
            action = "restore it from an older snapshot, or move it away: gradmill up begins another"
            raise DataError(f"{path} cannot be read: {error}", "the database of gradmill up", action) from error
        yield copy


# Restoring


def restore(url: str, name: str | None = None) -> tuple[str, Snapshot]:
    """Restore a snapshot into an artifacts folder that is empty or half restored from it.

    By default this is the snapshot whose restore was begun here, or the newest. Every file is compared with its digest
    before it is moved into place; pointers come last.

    Raises:
        UsageError: there is no such snapshot, the artifacts folder has other files or links in it, or a source in the
            snapshot contains credentials.
        DataError: the snapshot is damaged; the same restore continues once it is repaired.
        EnvironmentProblem: the destination does not answer, or refuses.
    """
    folder = _open(url)
    known, marker = _list(folder), artifact_paths.restoring()
    begun = marker.read_text(encoding="utf-8", errors="replace") if marker.is_file() else ""
    if not known:
        raise UsageError(f"no snapshot in {url}", "what gradmill backup has written", "name another place")
    is_newest = name is None and begun not in known  # the snapshot begun here may no longer be the newest
    if name is None:
        name = known[-1] if is_newest else begun
    if name not in known:
        expected = f"one of: {', '.join(known[-5:])}"
        raise UsageError(f"no snapshot {name} in {url}", expected, "name one with --snapshot, or another place")
    snapshot = _read(folder, name)
    if is_newest:
        _tell_of_others(folder, known, snapshot.store)
    root = artifact_paths.make_root()
    with locks.hold_lock(artifact_paths.backup_lock(), WAIT):
        folders_of_store = {file.partition("/")[0] for file in snapshot.files}
        for path in root.rglob("*"):
            relative = artifact_paths.relative(path)
            is_within = path.parent == root or relative.partition("/")[0] in folders_of_store
            if path.is_symlink() and is_within:  # nothing is written through a link
                raise UsageError(f"{path} is a link", "an empty artifacts folder", "name another with --artifacts")
            if name != begun and PATH.fullmatch(relative):
                others = f", or continue with --snapshot {begun}" if begun in known else ""
                action = f"name another with --artifacts{others}"
                raise UsageError(f"{path} already exists", "an empty artifacts folder", action)
        atomic.write_bytes(marker, name.encode())
        for file in sorted(snapshot.files, key=lambda file: (file.endswith(("/champion.json", ".pbtxt")), file)):
            _bring(folder, root / file, snapshot.files[file].sha256)
        atomic.sweep(root)  # half-written files of the same restore when it was killed
        for each in model_folder.list_names():
            for number in model_folder.list_versions(each):
                verification.verify_version(each, number)
                for path in artifact_paths.version(each, number).iterdir():
                    path.chmod(0o444)
                folders.make_read_only(artifact_paths.version(each, number))
            if pointer := model_folder.find_champion(each):
                verification.verify_pointer(each, pointer)
        marker.unlink()
    return name, snapshot


def _tell_of_others(folder: remote.RemoteFolder, known: list[str], store: str) -> None:
    """Print the newest snapshot of each other store, with its models."""
    newest = dict[str, str]()
    for name in known:
        with suppress(DataError):  # nobody knows whose a damaged one is
            other = _read(folder, name)
            models = sorted({path.split("/")[1] for path in other.files if path.startswith("models/")})
            newest[other.store] = f"{name} ({', '.join(models) or 'no model'})"
    if others := [newest[each] for each in newest if each != store]:
        found = f"{folder.url} has snapshots of other stores; the newest of each: {', '.join(others)}"
        print_message(f"note: {found}; --snapshot NAME takes one of these", file=sys.stderr)


def _bring(folder: remote.RemoteFolder, path: Path, sha256: str) -> None:
    """Put a file into place unless it is there.

    Raises:
        DataError: the backup lacks the content, or has other bytes.
        UsageError: the file names a source that contains credentials.
    """
    if path.is_file() and atomic.file_digest(path) == sha256:
        return
    with atomic.replace_file(path) as temporary:
        if path == artifact_paths.database():  # unreadable for others even when half written
            temporary.chmod(0o600)
        name = f"{CONTENT}/{sha256}"
        if not folder.get(name, temporary) or atomic.file_digest(temporary) != sha256:
            found = f"{folder.url}/{name}, the content of {path}, is missing or has changed"
            raise DataError(found, "the backup as it was made", "restore another snapshot or copy of the backup")
        if path.name == artifact_paths.source("x").name:
            addresses.require_no_credentials(own_data.Source.parse(temporary.read_bytes(), path).source)
