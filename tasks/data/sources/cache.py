"""Raw files on disk: unpacked, verified, renamed into place, and never half there."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.data import idx
from tasks.data.sources.places import Directory, RawFile, Source
from tasks.errors import DataError
from tasks.parameters import FASHION_MNIST
from tasks.store import artifact_paths, atomic, locks
from tasks.store.record import FileRef

SPACE_NEEDED = 200 * 2**20  # bytes: the archives (31 MB), the same unpacked, the payloads (55 MB) and apt's lists


@contextmanager
def exclusive() -> Iterator[Path]:
    """Hold the data set's folder alone, swept of what a killed download left in it."""
    folder = artifact_paths.dataset(FASHION_MNIST)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(
        artifact_paths.dataset_lock(FASHION_MNIST), f"another process is filling {folder}; waiting for it"
    ):
        for leftover in folder.iterdir():
            if artifact_paths.is_download(leftover) and leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
        yield folder


def reference(file: RawFile) -> FileRef:
    """Where the payload of ``file`` belongs."""
    return FileRef(path=artifact_paths.raw_file(FASHION_MNIST, file.name, file.sha256), sha256=file.sha256)


def is_whole(file: RawFile) -> bool:
    """Whether the payload is there, bit for bit."""
    path = reference(file).path
    return path.is_file() and atomic.file_digest(path) == file.sha256


def fill(source: Source, missing: Sequence[RawFile], folder: Path) -> None:
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
    with tempfile.TemporaryDirectory(dir=folder, prefix=artifact_paths.DOWNLOAD_PREFIX) as scratch:
        archives = source.fetch(wanted, Path(scratch))
        for file in wanted:
            found = _keep(file, archives[file.name])
            if found != file.sha256:
                failed[file] = found
    return failed


def _keep(file: RawFile, archive: Path) -> str:
    try:
        payload = idx.read_payload(archive, file.size + 1)  # bounded: a bomb is read no further than this
    except DataError as damaged:
        return f"none ({damaged.found})"
    digest = hashlib.sha256(payload).hexdigest()
    if digest == file.sha256:
        atomic.write_bytes(reference(file).path, payload)
    return digest
