"""The champion, copied to where consumers on other hosts read it: ``URL/NAME`` looks as ``models/NAME`` does here.

The order is what keeps the copy whole at every moment: the version's files, each read back; then the pointer; then
Triton's configuration, which is derived from it. Versions that were mirrored before stay there.
"""

from typing import NamedTuple

from tasks.errors import DataError, UsageError
from tasks.machine.settings import Settings
from tasks.records import MirroredModel
from tasks.serving.contract import ModelMetadata
from tasks.store import artifact_paths, folders, locks, reading, remote, triton, verification, verified
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST, METADATA, ONNX
from tasks.store.verified import sha256
from tasks.store.versions import ChampionPointer


class Piece(NamedTuple):
    """A file to copy, and the SHA-256 (hex) that its copy must have."""

    content: bytes
    sha256: str


class Champion(NamedTuple):
    """What a mirror must hold: pieces by their paths below the model's folder, in the order of their copying."""

    version: int
    pieces: dict[str, Piece]


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
    with locks.mirror(name):
        champion = reading.with_version(name, None, lambda _: _read(name))
        folder.sweep(name)
        _refuse_another_version(folder, name, champion)
        pointer = artifact_paths.champion(name).name
        current = _holds(folder, f"{name}/{pointer}", champion.pieces[pointer])
        written = tuple(path for path, piece in champion.pieces.items() if _bring(folder, f"{name}/{path}", piece))
    return MirroredModel(
        outcome=("repaired" if current else "copied") if written else "unchanged",
        name=name,
        version=champion.version,
        url=folder.url,
        written=written,
    )


def _read(name: str) -> Champion:
    """The champion, verified."""
    path = artifact_paths.champion(name)
    as_it_stands = verified.content(path, f"gradmill promote {name} VERSION")
    pointer = ChampionPointer.parse(as_it_stands, path, f"gradmill promote {name} VERSION")
    number = pointer.version
    contents = verification.verify_version(name, number)
    digests = {filename: sha256(content) for filename, content in contents.items()}
    verification.verify_fit(name, pointer, digests)
    in_order = sorted(contents, key=lambda filename: (filename not in (CHECKSUMS, MANIFEST), filename))
    pieces = {f"{number}/{filename}": Piece(contents[filename], digests[filename]) for filename in in_order}
    metadata = ModelMetadata.parse(contents[METADATA], artifact_paths.version(name, number) / METADATA)
    config = triton.describe(name, number, metadata).encode()
    pieces[artifact_paths.champion(name).name] = Piece(as_it_stands, sha256(as_it_stands))
    pieces[artifact_paths.triton_config(name).name] = Piece(config, sha256(config))
    return Champion(number, pieces)


def _refuse_another_version(folder: remote.Folder, name: str, champion: Champion) -> None:
    """A version's number belongs to whoever came first: ours is known by its list of checksums or its manifest.

    Both come first in the order of copying, and one of them is enough to repair the other.
    """
    sums, manifest, model = (f"{champion.version}/{filename}" for filename in (CHECKSUMS, MANIFEST, ONNX))
    if any(_holds(folder, f"{name}/{path}", champion.pieces[path]) for path in (sums, manifest)):
        return
    for path in (sums, manifest, model):
        content = folder.read(f"{name}/{path}")
        if content is not None and sha256(content) != champion.pieces[path].sha256:
            raise DataError(
                f"{folder.url}/{name}/{path} is not of {name} version {champion.version} as it is here",
                "no other model under the same name and number; nothing there was changed",
                "mirror to another URL, or remove that folder if no consumer needs it",
            )


def _bring(folder: remote.Folder, path: str, piece: Piece) -> bool:
    """Write a file unless it is there already, and check what the store gives back; whether it was written."""
    if _holds(folder, path, piece):
        return False
    folder.write(path, piece.content)
    if not _holds(folder, path, piece):
        raise DataError(
            f"{folder.url}/{path} is not what was written there",
            f"SHA-256 {piece.sha256}",
            "see what else writes there, then gradmill mirror again; a new pointer was not written",
        )
    return True


def _holds(folder: remote.Folder, path: str, piece: Piece) -> bool:
    content = folder.read(path)
    return content is not None and sha256(content) == piece.sha256
