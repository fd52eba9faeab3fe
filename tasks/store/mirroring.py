"""The champion, copied to where consumers on other hosts read it: ``URL/NAME`` looks as ``models/NAME`` does here.

The order is what keeps the copy whole at every moment: the version's files, each read back; then the pointer; then
Triton's configuration, which is derived from it, and the history. Versions that were mirrored before stay there, and a
history there that ours does not go on from.
"""

import sys

from tasks.errors import DataError, UsageError
from tasks.machine.settings import Settings
from tasks.machine.telling import tell
from tasks.records import MirroredModel
from tasks.store import artifact_paths, folders, journal, locks, reading, remote, triton, verification, verified
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST, ONNX
from tasks.store.versions import ChampionPointer


def destination() -> str | None:
    """The URL of ``GRADMILL_MIRROR``, None where retrains mirror nothing.

    Raises:
        UsageError: nothing can be mirrored there.
    """
    url = Settings().mirror
    if url is not None:
        remote.check(url)
    return url


def mirror(name: str, url: str) -> MirroredModel:
    """Copy the champion of a model to ``URL/NAME``, or what is missing or damaged there.

    One mirror of a model runs at a time: a slow one must not put an older pointer over a newer. The store's own lock is
    not needed, since versions never change.

    Raises:
        UsageError: there is no such model, or nothing can be mirrored to this URL.
        DataError: the champion is damaged here, another version has its number there, or the store gives back other
            bytes than it was given.
        EnvironmentProblem: the model's folder is a link, or the remote store does not answer, or refuses.
    """
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
    if lines := journal.verify(name):
        pieces[artifact_paths.journal(name).name] = lines
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
    filename = artifact_paths.journal(name).name
    there = (folder.read(f"{name}/{filename}") or b"").rpartition(b"\n")
    if filename in pieces and not pieces[filename].startswith(b"".join(there[:2])):
        why = f"it has lines that are not in {artifact_paths.journal(name)}"
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
