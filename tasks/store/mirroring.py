"""The champion, copied to where consumers on other hosts read it: ``URL/NAME`` looks as ``models/NAME`` does here.

The order is what keeps the copy whole at every moment: the version's files, each read back; then the pointer; then
Triton's configuration, which is derived from it, and the history. Versions that were mirrored before stay there, and a
history there that ours does not go on from.
"""

import os
import shlex
import sys
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from tasks.errors import DataError, GradmillError, UsageError
from tasks.machine.settings import Settings
from tasks.machine.telling import tell
from tasks.records import MirroredModel
from tasks.store import artifact_paths, atomic, folders, history, locks, reading, remote, triton, verification, verified
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST, ONNX
from tasks.store.documents import Document
from tasks.store.record import Lasting, Sha256
from tasks.store.versions import ChampionPointer

NONE = "none"  # of GRADMILL_MIRROR: no mirror any more
NAME_ANEW = (
    "give GRADMILL_MIRROR=URL (the mirror of this store) or GRADMILL_MIRROR=none (it has none) to the next "
    "gradmill promote, freeze or retrain"
)


class OfAnotherStore(DataError):
    """``mirror.json`` was written elsewhere: this store is a copy of that one, or has been moved."""


class Copied(Lasting):
    """Which champion was copied last."""

    version: int
    pointer_sha256: Sha256
    at: str


class Mirror(Document):
    """``mirror.json``: where the champions of this store go, and what has been copied there.

    A store that was copied, restored or moved elsewhere is not this one: its copy of the document is ignored.
    """

    schema_version: Literal[1] = 1
    url: str
    store: str  # the path of artifacts/, without links
    inode: int  # of the file there, and when that was changed last, in nanoseconds
    ctime_ns: int = 0
    champions: dict[str, Copied] = Field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether the document has stayed where it was written."""
        with suppress(OSError):
            return folders.identify_store() == (self.store, self.inode, self.ctime_ns)
        return False


class Behind(NamedTuple):
    """A name whose champion is not the mirror's."""

    name: str
    url: str
    here: int
    there: int | None  # None: it was never copied

    @property
    def sentence(self) -> str:
        """How far it is behind."""
        if self.there is None:
            return f"the mirror is behind: it has no version of {self.name}"
        if self.there == self.here:
            return f"the mirror is behind: what is said of {self.name} version {self.here} has changed since"
        return f"the mirror is behind: it has version {self.there} of {self.name}, and {self.here} is the champion"

    @property
    def action(self) -> str:
        """The command that makes up for it."""
        return shlex.join(["gradmill", "mirror", self.name, self.url])


def destination(is_kept: bool = True) -> str | None:
    """The URL of ``GRADMILL_MIRROR``, which ``is_kept`` with the store; without it the one that is; None of none.

    The word ``none`` ends it. Where ``mirror.json`` is damaged this is its path, of which ``mirror`` says what is wrong
    with it: nobody waits with a rollback until it is mended.

    Raises:
        UsageError: nothing can be mirrored there.
    """
    given, path = Settings().mirror, artifact_paths.mirror()
    if given is None:
        try:
            kept = read()
        except OfAnotherStore as error:
            tell(f"nothing is mirrored: {error.found}; {error.action}", file=sys.stderr)
            return None
        except DataError:
            return str(path)
        return kept.url if kept else None
    url = None if given == NONE else spell(given)
    if is_kept and (url or os.path.lexists(path)):
        with _locked():
            _keep(url)
    return url


def spell(url: str) -> str:
    """A URL as it is kept and compared: that of a folder is its absolute path.

    Raises:
        UsageError: nothing can be mirrored there.
    """
    remote.check(url)
    protocol, _, path = url.rpartition("://")
    is_folder = protocol in ("", *remote.LOCAL)
    return os.path.abspath(Path(path).expanduser()) if is_folder else url.rstrip("/")  # noqa: PTH100  (without "..")


def _keep(url: str | None) -> None:
    """Write ``mirror.json``, whatever is there, unless it names this URL for this store already; remove it for None."""
    path = artifact_paths.mirror()
    if url is None:
        path.unlink(missing_ok=True)
        return
    with suppress(DataError):
        if (kept := read()) and kept.url == url:
            return
    store, inode, ctime_ns = folders.identify_store(make=True)
    Mirror(url=url, store=store, inode=inode, ctime_ns=ctime_ns).write(path)


def read() -> Mirror | None:
    """Where the champions of this store are copied to; None of a store that has no mirror.

    Raises:
        OfAnotherStore: the document has come here with a copy, or the store was moved.
        DataError: it is damaged.
    """
    path = artifact_paths.mirror()
    if not os.path.lexists(path):
        return None
    if not (kept := Mirror.read(path, NAME_ANEW)).is_ours:
        found = f"{path} names {kept.url}, the mirror of another store: this one is a copy of it, or has been moved"
        raise OfAnotherStore(found, "the mirror of this store", NAME_ANEW)
    return kept


def list_behind() -> list[Behind]:
    """The names whose champion has not reached the mirror, as far as this store knows: nobody asks the mirror.

    It raises as ``read`` does.
    """
    if (kept := read()) is None:
        return []
    found = []
    for name in reading.names():
        with suppress(DataError):  # a damaged pointer is told elsewhere
            pointer, copied = reading.champion(name), kept.champions.get(name)
            digest = atomic.file_digest(artifact_paths.champion(name)) if pointer else ""
            if pointer and (copied is None or copied.pointer_sha256 != digest):
                found.append(Behind(name, kept.url, pointer.version, copied.version if copied else None))
    return found


def catch_up() -> list[str]:
    """Copy the champions that are behind; return a sentence of each that could not be copied, or why none can be."""
    failed = []
    try:
        for each in list_behind():
            try:
                mirror(each.name, each.url)
            except (GradmillError, OSError) as error:
                reason = error.found if isinstance(error, GradmillError) else str(error)
                failed.append(f"{each.name}: the mirror {each.url} has not followed: {reason}; to do: {each.action}")
    except (DataError, OSError) as error:
        failed.append(f"{error.found}; to do: {error.action}" if isinstance(error, DataError) else str(error))
    return failed


def _note(name: str, url: str, version: int, pointer: bytes) -> None:
    """Note what has been copied, if it went to the mirror of this store, of which nothing may be known."""
    with suppress(DataError), _locked():
        kept = read()
        if kept and kept.url == spell(url):
            copied = Copied(version=version, pointer_sha256=verified.sha256(pointer), at=datetime.now(UTC).isoformat())
            if (before := kept.champions.get(name)) is None or before.pointer_sha256 != copied.pointer_sha256:
                kept.model_copy(update={"champions": kept.champions | {name: copied}}).write(artifact_paths.mirror())


def _locked() -> AbstractContextManager[None]:
    return locks.locked(artifact_paths.locks() / "mirror", "another process notes what was mirrored; waiting for it")


def mirror(name: str, url: str) -> MirroredModel:
    """Copy the champion of a model to ``URL/NAME``, or what is missing or damaged there.

    One mirror of a model runs at a time: a slow one must not put an older pointer over a newer. The store's own lock is
    not needed, since versions never change.

    The path of ``mirror.json``, for a URL, means the mirror that it names.

    Raises:
        UsageError: there is no such model, or nothing can be mirrored to this URL.
        DataError: the champion is damaged here, another version has its number there, or the store gives back other
            bytes than it was given.
        EnvironmentProblem: the model's folder is a link, or the remote store does not answer, or refuses.
    """
    if url == str(artifact_paths.mirror()) and (kept := read()):
        url = kept.url
    folder = remote.Folder(url)
    if folder.local and (place := folders.holding(folder.local)):
        found = f"{url} is in the artifacts folder itself, in {place}"
        raise UsageError(found, "a folder outside of it", "choose one that other hosts read")
    reading.resolve(name, None)
    with locks.model(name, mirroring=True):
        number, pieces = reading.with_version(name, None, lambda _: _read(name))
        folder.sweep(name)
        _refuse_another_version(folder, name, number, pieces)
        _leave_another_history(folder, name, pieces)
        pointer = artifact_paths.champion(name).name
        current = folder.read(f"{name}/{pointer}") == pieces[pointer]
        written = tuple(path for path, content in pieces.items() if _bring(folder, f"{name}/{path}", content))
        _note(name, url, number, pieces[pointer])
    return MirroredModel(
        outcome=("repaired" if current else "copied") if written else "unchanged",
        name=name,
        version=number,
        url=folder.url,
        written=written,
    )


def _read(name: str) -> tuple[int, dict[str, bytes]]:
    """The champion, verified: its number, and what to copy by paths below the model's folder, in that order."""
    path, action = artifact_paths.champion(name), f"gradmill promote {name} VERSION"
    as_it_stands = verified.content(path, action)
    pointer = ChampionPointer.parse(as_it_stands, path, action)
    number = pointer.version
    contents = verification.verify_version(name, number)
    verification.verify_pointer(name, pointer)
    in_order = sorted(contents, key=lambda filename: (filename not in (CHECKSUMS, MANIFEST), filename))
    pieces = {f"{number}/{filename}": contents[filename] for filename in in_order}
    config = triton.config(name, number).encode()
    pieces |= {path.name: as_it_stands, artifact_paths.triton_config(name).name: config}
    if lines := history.verify(name):
        pieces[artifact_paths.history(name).name] = lines
    return number, pieces


def _refuse_another_version(folder: remote.Folder, name: str, number: int, pieces: dict[str, bytes]) -> None:
    """A version's number belongs to whoever came first: ours is known by its list of checksums or its manifest.

    Both come first in the order of copying, and one of them is enough to repair the other.
    """
    sums, manifest, model = (f"{number}/{filename}" for filename in (CHECKSUMS, MANIFEST, ONNX))
    if any(folder.read(f"{name}/{path}") == pieces[path] for path in (sums, manifest)):
        return
    for path in (sums, manifest, model):
        if folder.read(f"{name}/{path}") not in (None, pieces[path]):
            raise DataError(
                f"{folder.url}/{name}/{path} is not of {name} version {number} as it is here",
                "no other model under the same name and number; nothing there was changed",
                "mirror to another URL, or remove that folder if no consumer needs it",
            )


def _leave_another_history(folder: remote.Folder, name: str, pieces: dict[str, bytes]) -> None:
    """Take ours out of what is copied unless every line there is in it: one begun anew here is the shorter one."""
    filename = artifact_paths.history(name).name
    there = (folder.read(f"{name}/{filename}") or b"").rpartition(b"\n")
    if filename in pieces and not pieces[filename].startswith(b"".join(there[:2])):
        why = f"it has lines that are not in {artifact_paths.history(name)}"
        tell(f"left: {folder.url}/{name}/{filename}: {why}; move it away there, and ours is copied", file=sys.stderr)
        del pieces[filename]


def _bring(folder: remote.Folder, path: str, content: bytes) -> bool:
    """Write a file unless it is there already, and check what the store gives back; whether it was written."""
    if folder.read(path) == content:
        return False
    folder.write(path, content)
    if folder.read(path) != content:
        raise DataError(
            f"{folder.url}/{path} is not what was written there",
            f"SHA-256 {verified.sha256(content)}",
            "see what else writes there, then gradmill mirror again; a new pointer was not written",
        )
    return True
