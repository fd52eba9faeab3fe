"""Raw files on disk: from the first source that can be reached, verified, and never half there."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.data.io import arrays
from tasks.data.sources.places import Directory, RawFile, Source, SourceUnreachable
from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.parameters import FASHION_MNIST
from tasks.records import RawDataset
from tasks.store import artifact_paths, atomic, folders, locks, names
from tasks.store.record import FileRef

SPACE_NEEDED = 200 * 2**20  # bytes: the archives (31 MB), the same unpacked, the payloads (55 MB) and apt's lists


def fetch(files: Sequence[RawFile], sources: Sequence[Source]) -> RawDataset:
    """Fetch what is missing of ``files``; a filled cache touches no network.

    Raises:
        SourceUnreachable: no source answers.
        DataError: what a source has fails its checksum, or a user's folder lacks a file.
    """
    with _exclusive() as folder:
        missing = [file for file in files if not is_whole(file)]
        if isinstance(sources[0], Directory):  # the user named it, so a fault in it must not hide behind the cache
            missing = list(files)
        source = _first_reachable(sources, missing, folder) if missing else "cache"
    references = {file.name: _reference(file) for file in files}
    files_of = f"{counted(len(references), 'file')} from {source}, verified by SHA-256"
    tell(f"{FASHION_MNIST}: {files_of}", short=files_of)
    return RawDataset(name=FASHION_MNIST, source=source, files=references)


def _first_reachable(sources: Sequence[Source], missing: Sequence[RawFile], folder: Path) -> str:
    reasons = []
    for source in sources:
        try:
            _fill(source, missing, folder)
        except SourceUnreachable as unreachable:
            reasons.append(f"{source}: {unreachable.found}")
        else:
            return str(source)
    raise SourceUnreachable(
        "Fashion-MNIST is not in the cache and no source could be reached: " + "; ".join(reasons),
        "a network, or a folder with the four IDX files",
        "set GRADMILL_FASHION_MNIST_DIR to such a folder, or try again with a network",
    )


@contextmanager
def _exclusive() -> Iterator[Path]:
    """Hold the data set's folder alone, swept of what a killed download left in it."""
    folder = artifact_paths.dataset(FASHION_MNIST)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(
        artifact_paths.dataset_lock(FASHION_MNIST), f"another process is filling {folder}; waiting for it"
    ):
        folders.sweep(names.DOWNLOAD, folder)
        yield folder


def _reference(file: RawFile) -> FileRef:
    """Where the payload of ``file`` belongs."""
    return FileRef(path=artifact_paths.raw_file(FASHION_MNIST, file.name, file.sha256), sha256=file.sha256)


def is_whole(file: RawFile) -> bool:
    """Whether the payload is there, bit for bit."""
    path = _reference(file).path
    return path.is_file() and atomic.file_digest(path) == file.sha256


def _fill(source: Source, missing: Sequence[RawFile], folder: Path) -> None:
    """Fetch, unpack, verify and keep ``missing``; what fails its checksum is fetched once again.

    Raises:
        DataError: a file failed twice (a user's own folder: once).
        OSError: the disk is too full; found out first, since apt would report it as a fault of the network.
    """
    if shutil.disk_usage(folder).free < SPACE_NEEDED:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    failed = _fill_once(source, missing, folder)
    if failed and not isinstance(source, Directory):
        failed = _fill_once(source, list(failed), folder)
    for file, found in failed.items():
        raise DataError(
            f"{file.name} from {source} has SHA-256 {found}",
            f"SHA-256 {file.sha256} ({file.size} bytes, decompressed)",
            "the source is damaged or is not Fashion-MNIST: use another, e.g. GRADMILL_FASHION_MNIST_DIR",
        )


def _fill_once(source: Source, wanted: Sequence[RawFile], folder: Path) -> dict[RawFile, str]:
    """Keep what verifies; return what does not, with the digest (or the fault) that was found."""
    failed = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix=names.DOWNLOAD_PREFIX) as scratch:
        archives = source.fetch(wanted, Path(scratch))
        for file in wanted:
            found = _keep(file, archives[file.name])
            if found != file.sha256:
                failed[file] = found
    return failed


def _keep(file: RawFile, archive: Path) -> str:
    try:
        payload = arrays.read_payload(archive, file.size + 1)  # bounded: a bomb is read no further than this
    except DataError as damaged:
        return f"none ({damaged.found})"
    digest = hashlib.sha256(payload).hexdigest()
    if digest == file.sha256:
        atomic.write_bytes(_reference(file).path, payload)
    return digest
