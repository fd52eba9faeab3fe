"""The champion, copied to where consumers on other hosts read it: ``URL/NAME`` looks as ``models/NAME`` does here.

The order keeps the copy valid at every moment: the version's files, each read back; then the pointer; then Triton's
configuration, which is derived from it, and the history. Versions that were mirrored before are kept there, as is a
history that ours does not continue.
"""

import os
import shlex
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from pydantic import Field

from tasks.errors import DataError, GradmillError
from tasks.machine.run_messages import print_message
from tasks.machine.settings import Settings
from tasks.records import MirroredModel
from tasks.store import (
    artifact_paths,
    atomic,
    folders,
    history,
    locks,
    model_folder,
    remote,
    verification,
    verified_files,
)
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST, ONNX
from tasks.store.documents import RootDocument
from tasks.store.model_folder import ChampionPointer
from tasks.store.record_base import PersistedRecord, Sha256

NONE = "none"  # a value of GRADMILL_MIRROR: this store has no mirror any more
NAME_ANEW = (
    "set GRADMILL_MIRROR=URL (the mirror of this store) or GRADMILL_MIRROR=none (it has none) for the next "
    "gradmill promote, freeze or retrain"
)


class OfAnotherStore(DataError):
    """``mirror.json`` was written by another store: this one is a copy of it, or has been moved."""


class CopiedChampion(PersistedRecord):
    """The champion that was copied last."""

    version: int
    pointer_sha256: Sha256
    at: str


class MirrorState(RootDocument):
    """``mirror.json``: where the champions of this store are copied, and what has been copied.

    A store that was copied, restored or moved is a different one: it ignores its copy of this document.
    """

    url: str
    store: str  # the path of artifacts/, without links
    inode: int  # of the file ``.store``
    ctime_ns: int = 0  # the change time of that file, in nanoseconds
    champions: dict[str, CopiedChampion] = Field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether the document is still in the store that wrote it."""
        with suppress(OSError):
            return folders.identify_store() == (self.store, self.inode, self.ctime_ns)
        return False

    def list_behind(self) -> dict[str, str]:
        """What the mirror lacks, for each name whose champion it does not have, with the command that copies it.

        This is what the store knows: the mirror is not contacted.
        """
        found = dict[str, str]()
        for name in model_folder.list_names():
            with suppress(DataError):  # a damaged pointer is reported elsewhere
                if (pointer := model_folder.find_champion(name)) is None:
                    continue
                copied, told = self.champions.get(name), ""
                if copied is None:
                    told = f"it has no version of {name}"
                elif copied.version != pointer.version:
                    told = f"it has version {copied.version} of {name}, and {pointer.version} is the champion"
                elif copied.pointer_sha256 != atomic.file_digest(artifact_paths.champion(name)):
                    told = f"the pointer to {name} version {pointer.version} has changed since"
                if told:
                    found[name] = f"the mirror is behind: {told}: {_spell_command(name, self.url)}"
        return found


def save_given_url() -> None:
    """Save the URL of ``GRADMILL_MIRROR`` in the store, if one is given; the word ``none`` ends mirroring.

    Raises:
        UsageError: this URL cannot be a mirror.
    """
    given, path, known = Settings().mirror, artifact_paths.mirror(), None
    if given == NONE and os.path.lexists(path):
        with _hold_lock():
            path.unlink(missing_ok=True)
    elif given not in (None, NONE):
        url = normalize_url(given)
        with suppress(DataError):
            known = read()
        if known is None or known.url != url:
            with _hold_lock():
                store, inode, ctime_ns = folders.identify_store(make=True)
                MirrorState(url=url, store=store, inode=inode, ctime_ns=ctime_ns).write(path)


def find_url() -> str | None:
    """Where champions are copied to; None if this store has no mirror.

    Callers ask after the change that is to be copied: a rollback must not wait for the repair of ``mirror.json``.

    Raises:
        DataError: ``mirror.json`` is damaged.
    """
    try:
        state = read()
    except OfAnotherStore as error:
        print_message(f"nothing is mirrored: {error.found}; {error.action}", file=sys.stderr)
        return None
    return state.url if state else None


def normalize_url(url: str) -> str:
    """A URL as it is saved and compared: a folder becomes its absolute path.

    Raises:
        UsageError: this URL cannot be a mirror.
    """
    remote.check(url)
    protocol, path = remote.split(url)
    if protocol in remote.LOCAL:
        return os.path.abspath(Path(path).expanduser())  # noqa: PTH100  (without "..")
    return url.rstrip("/")


def read() -> MirrorState | None:
    """The mirror of this store; None if it has none.

    Raises:
        OfAnotherStore: this store is a copy of the one that wrote the document, or was moved.
        DataError: the document is damaged.
    """
    path = artifact_paths.mirror()
    if (kept := MirrorState.find(path, NAME_ANEW)) and not kept.is_ours:
        found = f"{path} names {kept.url}, the mirror of another store: this one is a copy of it, or has been moved"
        raise OfAnotherStore(found, "the mirror of this store", NAME_ANEW)
    return kept


def catch_up() -> list[str]:
    """Copy the champions that the mirror lacks; return one sentence for each failure, or why none can be copied."""
    failed = list[str]()
    try:
        if (state := read()) is None:
            return failed
        for name in state.list_behind():
            try:
                copy_champion(name, state.url)
            except (GradmillError, OSError) as error:
                reason = error.found if isinstance(error, GradmillError) else str(error)
                to_do = _spell_command(name, state.url)
                failed.append(f"{name}: the mirror {state.url} was not updated: {reason}; to do: {to_do}")
    except (DataError, OSError) as error:
        failed.append(f"{error.found}; to do: {error.action}" if isinstance(error, DataError) else str(error))
    return failed


def _spell_command(name: str, url: str) -> str:
    return shlex.join(["gradmill", "mirror", name, url])


def _hold_lock() -> AbstractContextManager[None]:
    return locks.hold_lock(
        artifact_paths.locks() / "mirror", "another process is recording what was mirrored; waiting for it"
    )


def copy_champion(name: str, url: str) -> MirroredModel:
    """Copy the champion of a model to ``URL/NAME``, or whatever is missing or damaged there.

    Only one copy of a model runs at a time, so that a slow one cannot put an older pointer over a newer. The store's
    own lock is not needed, since versions never change.

    Raises:
        UsageError: there is no such model, or this URL cannot be a mirror.
        DataError: the champion is damaged here, another version has its number there, or the remote store returns other
            bytes than were written.
        EnvironmentProblem: the model's folder is a link, or the remote store does not answer, or refuses.
    """
    folder = remote.RemoteFolder(url)
    model_folder.resolve_version(name, None)
    with locks.hold_model(name, mirroring=True):
        number, pieces = model_folder.with_version(name, None, lambda _: _list_pieces(name))
        folder.sweep(name)
        there = {path: folder.read(f"{name}/{path}") for path in pieces}
        _refuse_another_version(f"{folder.url}/{name}", name, number, pieces, there)
        filename, pointer = artifact_paths.history(name).name, artifact_paths.champion(name).name
        lines = (there.get(filename) or b"").rpartition(b"\n")
        if filename in pieces and not pieces[filename].startswith(b"".join(lines[:2])):  # our history was begun again
            why = f"it has lines that are not in {artifact_paths.history(name)}"
            where = f"{folder.url}/{name}/{filename}: {why}"
            print_message(
                f"not overwritten: {where}; move it away there and the local one will be copied", file=sys.stderr
            )
            del pieces[filename]
        written = tuple(path for path, content in pieces.items() if there[path] != content)
        for path in written:
            folder.write(f"{name}/{path}", pieces[path])
            if folder.read(f"{name}/{path}") != pieces[path]:
                raise DataError(
                    f"{folder.url}/{name}/{path} is not what was written there",
                    f"SHA-256 {verified_files.sha256(pieces[path])}",
                    "see what else writes there, then gradmill mirror again; a new pointer was not written",
                )
        with suppress(DataError), _hold_lock():  # recorded if this is the mirror of this store
            state, digest = read(), verified_files.sha256(pieces[pointer])
            known = state.champions.get(name) if state else None
            if state and state.url == normalize_url(url) and (known is None or known.pointer_sha256 != digest):
                copied = CopiedChampion(version=number, pointer_sha256=digest, at=model_folder.format_now())
                update = {"champions": state.champions | {name: copied}}
                state.model_copy(update=update).write(artifact_paths.mirror())
    return MirroredModel(
        outcome=("repaired" if there[pointer] == pieces[pointer] else "copied") if written else "unchanged",
        name=name,
        version=number,
        url=folder.url,
        written=written,
    )


def _list_pieces(name: str) -> tuple[int, dict[str, bytes]]:
    """The number of the verified champion, and what to copy, in this order, by paths below the model's folder."""
    path, action = artifact_paths.champion(name), f"gradmill promote {name} VERSION"
    as_it_stands = verified_files.read_content(path, action)
    pointer = ChampionPointer.parse(as_it_stands, path, action)
    number = pointer.version
    contents = verification.verify_version(name, number)
    verification.verify_pointer(name, pointer)
    in_order = sorted(contents, key=lambda filename: (filename not in (CHECKSUMS, MANIFEST), filename))
    pieces = {f"{number}/{filename}": contents[filename] for filename in in_order}
    config = model_folder.find_manifest(name, number).triton_config.encode()
    pieces |= {path.name: as_it_stands, artifact_paths.triton_config(name).name: config}
    if lines := history.verify(name):
        pieces[artifact_paths.history(name).name] = lines
    return number, pieces


def _refuse_another_version(
    url: str, name: str, number: int, here: dict[str, bytes], there: dict[str, bytes | None]
) -> None:
    """A version's number belongs to whoever came first: our version is identified by its checksums or its manifest.

    Both are copied first, and one of them is enough to repair the other.
    """
    sums, manifest, model = (f"{number}/{filename}" for filename in (CHECKSUMS, MANIFEST, ONNX))
    others = [path for path in (sums, manifest, model) if there[path] not in (None, here[path])]
    if others and not any(there[path] == here[path] for path in (sums, manifest)):
        raise DataError(
            f"{url}/{others[0]} does not belong to {name} version {number} as it is here",
            "no other model under the same name and number; nothing there was changed",
            "mirror to another URL, or remove that folder if no consumer needs it",
        )
