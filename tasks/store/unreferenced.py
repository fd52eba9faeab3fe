"""Prepared splits and row digests go when no version, no run, no unfinished job and no look at the data names them.

Each is named by its content, so that a name in a document is enough to keep it. Whoever takes up an old one touches it
first, or the record of the stage that wrote it: files are moved out of sight, and removed if none of that has happened
by then.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import DataError
from tasks.store import artifact_paths, locks, names, predictions, reading, verified
from tasks.store.artifact_paths import MANIFEST, RUN
from tasks.store.housekeeping import UNUSED, is_in_place, is_old
from tasks.store.predictions import left_alone

PREPARED = re.compile(names.PREPARED)
HIDDEN = re.compile(rf"\.pruned-({names.PREPARED})-[0-9a-f]{{8}}")


def prune_datasets() -> list[str]:
    """Remove files of data sets that nothing has named, written or touched for a day; return what they were called.

    A data set that somebody is preparing is left for the next time.

    Raises:
        DataError: the document of a kept version or of an unfinished job is damaged: it may name any of them.
    """
    needed, removed = _named(), []
    datasets = artifact_paths.datasets()
    for folder in sorted(datasets.iterdir()) if datasets.is_dir() else ():
        try:
            if folder.is_dir() and is_in_place(folder):
                with locks.locked_if_free(artifact_paths.lock(folder)) as ours:
                    removed += _prune(folder, needed) if ours else []
                removed += _prune_studies(folder)
        except OSError as error:
            left_alone(folder, error)
    return removed


def _prune(folder: Path, needed: set[str]) -> list[str]:
    """What a kill has left out of sight comes back where it is needed, too."""
    removed = []
    for path in _files(folder, PREPARED):
        if path.name not in needed and is_old(path):
            path.rename(names.condemned(path))
    if hidden := _files(folder, HIDDEN):
        needed = _named()
    for path in hidden:
        target = folder / HIDDEN.sub(r"\1", path.name)
        if (target.name in needed or not is_old(path)) and not target.exists():
            path.rename(target)
        else:
            path.unlink()
            removed.append(f"{folder.name}/{target.name}")
    return removed


def _prune_studies(folder: Path) -> list[str]:
    """What searches have learned goes when none has gone on with it for long."""
    removed = []
    for path in sorted(folder.glob(artifact_paths.study(folder.name, "*").name)):
        if is_old(path, UNUSED):
            lock = artifact_paths.lock_of_study(path)
            lock.parent.mkdir(exist_ok=True)
            with locks.locked_if_free(lock) as ours:
                if ours and is_old(path, UNUSED):  # meanwhile somebody may have gone on with it
                    path.unlink()
                    lock.unlink(missing_ok=True)
                    removed.append(f"{folder.name}/{path.name}")
    return removed


def _files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _named() -> set[str]:
    """Every name of such a file in any document that counts."""
    found = set()
    for path in _documents():
        try:
            found |= {*re.findall(names.PREPARED.encode(), verified.content(path))}
        except DataError as error:  # gone meanwhile, or none of ours
            left_alone(path, error)
    return {name.decode() for name in found}


def _documents() -> Iterator[Path]:
    for name in reading.names():
        for number in reading.versions(name):
            reading.manifest(name, number)  # what a damaged one names must not be guessed
            yield artifact_paths.version(name, number) / MANIFEST
    yield from artifact_paths.runs().glob(f"*/{RUN}")
    looks = (artifact_paths.look(folder.name) for folder in artifact_paths.datasets().glob("*"))
    yield from (path for path in looks if path.is_file())
    yield from filter(_is_in_use, artifact_paths.stage_records().glob("*.json"))
    for folder, document, job in itertools.chain(predictions.below_artifacts(), predictions.elsewhere()):
        if job is None:
            action = "restore it, or remove the folder"
            raise DataError(f"nobody can tell what the unfinished job in {folder} reads", "its document", action)
        if job.status != "done":
            yield document


def _is_in_use(record: Path) -> bool:
    """Whether a stage's record is young or was touched; one that another process has removed meanwhile is not."""
    with contextlib.suppress(FileNotFoundError):
        return not is_old(record)
    return False
