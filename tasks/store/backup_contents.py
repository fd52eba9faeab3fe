"""What a backup has in it: what cannot be made again from the data, and what explains it.

The rest is left out: raw files, training splits, predictions, other runs and what stages returned can be made again;
locks and credentials belong to this host.
"""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tasks.store import artifact_paths, atomic, housekeeping, journal, names, reading, verification, verified


def of_model(name: str) -> Iterator[Path]:
    """The files of a name: every version, verified, with its row digests; pointer and history; the source of its data.

    The champion's test rows are there too, if they are here, which predict labels unless told otherwise. The caller
    holds the lock.

    Raises:
        DataError: something is not as it was published, or row digests are missing, which nothing can make again.
    """
    current = reading.champion(name)
    for number in reading.versions(name):
        verification.verify_version(name, number)
        yield from _regular(artifact_paths.version(name, number))
        data = reading.manifest(name, number).dataset
        is_champion = current is not None and current.version == number
        for file in (data.rows, data.test if is_champion and data.test.path.exists() else None):
            if file:
                verified.check(file, f"restore it from an older backup, or gradmill prune {name} if that takes it")
                yield file.path
    journal.verify(name)
    for place in (
        artifact_paths.history,
        artifact_paths.journal,
        artifact_paths.champion,
        artifact_paths.triton_config,
    ):
        yield place(name)
    yield artifact_paths.source(name)


def shared() -> Iterator[Path]:
    """What does not belong to one version: runs that kept versions or found settings name, settings, schedules.

    Raises:
        DataError: it cannot be told which runs these are.
    """
    for run in sorted(housekeeping.evidence()):
        yield from _regular(artifact_paths.runs() / run)
    for folder in (artifact_paths.all_tuned(), artifact_paths.schedules().parent):
        yield from _regular(folder)


def is_anything() -> bool:
    """Whether there is anything here to back up; it raises as ``shared`` does."""
    paths = itertools.chain(shared(), [artifact_paths.database()])
    return any(map(reading.versions, reading.names())) or any(path.is_file() for path in paths)


def _regular(folder: Path) -> Iterator[Path]:
    """The files of ours below a folder, behind no link, save locks and what is half written."""
    for path in sorted(folder.rglob("*")):
        is_ours = path.name != artifact_paths.lock(folder).name and not names.TEMPORARY.fullmatch(path.name)
        if is_ours and path.is_file() and not path.is_symlink():
            yield path


@contextmanager
def database() -> Iterator[Path | None]:
    """A consistent copy of the database of ``gradmill up``, which may go on writing; None where there is none."""
    path = artifact_paths.database()
    if not path.is_file():
        yield None
        return
    with atomic.temporary_in(path.parent) as copy:
        copy.chmod(0o600)  # before anything is in it
        with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(copy)) as written:
            written.execute("PRAGMA journal_mode=OFF")
            live.backup(written)
        yield copy
