"""Remove what old versions, runs and predictions leave behind, but nothing that somebody may still need.

Nothing is removed that a process holds, that is behind a link, or that cannot be judged; the latter is reported.

Prepared splits and row digests are removed when no version, run, unfinished job or ``look.json`` names them. Each is
named by its content, so that a name in a document is enough to keep it. A process that reuses an old file first touches
it: files are moved out of sight, and deleted if that has not happened by then.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.parameters import is_name
from tasks.parameters.training import BOOK_DATASETS
from tasks.store import (
    artifact_paths,
    atomic,
    folders,
    history,
    locks,
    model_folder,
    pointer,
    predictions,
    run_folder,
    state,
    tuning_result,
    verified_files,
)
from tasks.store.artifact_paths import JOB, MANIFEST, RUN
from tasks.store.documents import RootDocument
from tasks.store.folders import skip_unreadable
from tasks.store.state import NameState

# A younger run may still be going, and somebody may be reading a younger prediction, or loading a version that was the
# champion until recently.
GRACE = timedelta(days=1)
UNUSED = timedelta(days=90)  # how long unused searches are kept
PREPARED = re.compile(artifact_paths.PREPARED)
NAMES = re.compile(rf"{artifact_paths.PREPARED}|{artifact_paths.RUN_NAME.pattern}(?![a-z0-9-])".encode())
HIDDEN = re.compile(rf"\.pruned-({artifact_paths.PREPARED})-[0-9a-f]{{8}}")


def maintain(keep: int) -> tuple[dict[str, list[str]], DataError | None]:
    """Remove what old runs, predictions and versions of scheduled names left; keep ``keep`` runs and predictions.

    Returns the names of what was removed, by kind, and the error if something could not be judged: that kind is then
    kept whole, and the others are still pruned.
    """
    steps: dict[str, Callable[[], list[str]]] = {
        "predictions": lambda: prune_predictions(keep),
        "versions": prune_scheduled,
        "runs": lambda: prune_runs(keep),  # after the versions that they explain
        "datasets": prune_datasets,  # after everything that names dataset files
    }
    removed, failure = dict[str, list[str]](), None
    for kind, step in steps.items():
        removed[kind] = []
        try:
            removed[kind] = step()
        except DataError as error:
            failure = failure or error
    for fault in state.read(only=("champion", "history", "run")).faults:  # the steps have reported all other faults
        print_message(f"left alone: {fault.found}", file=sys.stderr)
    return removed, failure


# Versions


class Retention(RootDocument):
    """``retention.json``: how many of the newest versions of a scheduled name maintenance keeps in any case."""

    keep: int = Field(30, ge=1)


def prune_scheduled() -> list[str]:
    """Prune the versions of every name with a retention; return the pruned ones as ``name/number``.

    A name that cannot be pruned or read is reported and stops no other.
    """
    pruned = list[str]()
    folders.sweep(artifact_paths.CONDEMNED, artifact_paths.models())
    for name in filter(model_folder.list_versions, model_folder.list_names()):
        with skip_unreadable(artifact_paths.model(name)):
            if retention := Retention.find(artifact_paths.retention(name)):
                numbers, _ = prune(name, retention.keep, f"gradmill schedule --keep {retention.keep}")
                pruned += [f"{name}/{number}" for number in numbers]
    return pruned


def prune(name: str, keep: int, reason: str | None = None) -> tuple[list[int], dict[int, str]]:
    """Delete all but the newest ``keep`` versions; return the pruned ones, and why each other older one was kept.

    Raises:
        UsageError: there is no such model, or ``keep`` is below 1.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}", "at least 1", "see gradmill prune --help")
    with history.lock_to_change(name, "pruned", reason) as cause:
        pointer.sweep(name)
        kept = model_folder.list_versions(name)
        needed = find_protected(name)
        pruned = [number for number in kept[:-keep] if number not in needed]
        if pruned:
            history.append_change(name, cause, pruned, model_folder.read_pointer(name))
        for number in pruned:
            version = artifact_paths.version(name, number)
            folders.remove(version.rename(artifact_paths.condemned_path(version)))
        return pruned, {number: needed[number] for number in kept[:-keep] if number in needed}


def remove_name(name: str) -> list[str]:
    """Delete a name: its versions and their history, its data, the settings that a search found, and its runs.

    Predictions, copies elsewhere and runs in progress are kept. Returns the names of the deleted run folders.

    Raises:
        UsageError: the name is unknown.
        DataError: a document of another name, which may need one of these runs, is damaged: the runs are kept.
    """
    facts, places = require_known(name), _list_own_folders(name)
    preparing = "another process is preparing its data; waiting for it"
    with locks.hold_lock(artifact_paths.dataset_lock(name), preparing), locks.hold_model(name):
        for place in filter(Path.exists, places):
            folders.remove(place.rename(artifact_paths.condemned_path(place)))
        artifact_paths.tuned(name).unlink(missing_ok=True)
    needed = References.collect().runs
    ours = (each for each in facts.run_folders if each.name not in needed and _is_of(each, name))
    return _remove(ours, RUN, artifact_paths.lock, timedelta())


def require_known(name: str) -> NameState:
    """The state of a name that has versions, runs or data.

    Raises:
        UsageError: the name has none of these.
    """
    facts = state.read_name(name) if is_name(name) else None  # any other text might lead out of the store
    if facts is None or not (facts.is_known or any(place.exists() for place in _list_own_folders(name))):
        raise model_folder.unknown_model_error(name)
    return facts


def _list_own_folders(name: str) -> list[Path]:
    """The folders that only this name needs. A name may have been that of a dataset, which all names share."""
    is_shared = name in BOOK_DATASETS.values()
    return [artifact_paths.model(name), *([] if is_shared else [artifact_paths.dataset(name)])]


def _is_of(folder: Path, name: str) -> bool:
    """Whether a run belongs to this name; a run with damaged notes may belong to another, and is kept."""
    with suppress(DataError):
        return run_folder.read_folder(folder)[0] == name
    return False


def find_protected(name: str) -> dict[int, str]:
    """The versions that must not be pruned, each with the reason."""
    reasons, kept = dict[int, str](), model_folder.list_versions(name)
    try:
        if best := model_folder.find_best_version(name):
            reasons[best] = "the best in the last comparison: without it many small losses could add up"
    except DataError as error:
        reasons = dict.fromkeys(kept, f"may be the best in the last comparison: {error.found}")
    oldest = datetime.now(UTC) - GRACE
    for number, moment in history.list_demotions(name).items():
        if datetime.fromisoformat(moment) > oldest:
            reasons[number] = "demoted less than a day ago"
    for folder, job in predictions.list_jobs(everywhere=True):
        if job is None:
            damaged = f"may be that of the unfinished job in {folder}, whose document cannot be read"
            reasons = dict.fromkeys(kept, damaged) | reasons
        elif job.status != "done" and job.model.name == name:
            reasons[job.model.version] = f"named by the unfinished job in {folder}"
    if current := model_folder.find_champion(name):
        held = "held: without it the same data would publish the same model again"
        reasons |= dict.fromkeys(current.held, held)
        if current.previous is not None:
            reasons[current.previous] = "the version that a rollback would return to"
        reasons[current.version] = "the champion"
    return reasons


# What documents name


class References(NamedTuple):
    """What documents name: the runs that explain versions and settings, and the prepared files that somebody needs."""

    runs: set[str]
    files: set[str]

    @classmethod
    def collect(cls) -> "References":
        """Read every document that names a run's folder or a prepared file.

        Raises:
            DataError: the document of a kept version, of found settings or of an unfinished job is damaged: it may name
                anything.
        """
        lasting = set[str]()
        for name in model_folder.list_names():
            for number in model_folder.list_versions(name):
                data = model_folder.find_manifest(name, number).dataset
                lasting.add(artifact_paths.trained_files(data.name, data.digest).name)
                lasting |= _list_names(artifact_paths.version(name, number) / MANIFEST)
        for path in artifact_paths.all_tuned().glob("*.json"):
            tuning_result.read(path.stem)
            lasting |= _list_names(path)
        named = set(lasting)
        looks = artifact_paths.datasets().glob(f"*/{artifact_paths.look('').name}")
        for path in (*artifact_paths.runs().glob(f"*/{RUN}"), *looks):
            named |= _list_names(path)
        for folder, job in predictions.list_jobs(everywhere=True):
            if job is None:
                action = "restore it, or remove the folder"
                raise DataError(f"what the unfinished job in {folder} reads is unknown", "its document", action)
            named |= set() if job.status == "done" else _list_names(folder / JOB)
        return cls(runs=lasting, files=named)


def _list_names(document: Path) -> set[str]:
    """The runs and prepared files that a document names; none if it cannot be read, or has been removed meanwhile."""
    with skip_unreadable(document):
        return {name.decode() for name in NAMES.findall(verified_files.read_content(document))}
    return set()


# Runs and predictions


def prune_runs(keep: int) -> list[str]:
    """Remove all run folders but the newest ``keep`` of each model, those of kept versions, and those under a day old.

    Returns the names of the removed folders.

    Raises:
        DataError: the runs that kept versions name cannot be determined.
    """
    folders.sweep(artifact_paths.CONDEMNED, artifact_paths.runs())
    atomic.sweep(artifact_paths.root())
    needed, old = References.collect().runs, list[Path]()
    for of_model in run_folder.list_folders().values():
        old += [folder for folder in of_model if is_in_place(folder)][keep:]
    return _remove((folder for folder in sorted(old) if folder.name not in needed), RUN, artifact_paths.lock)


def prune_predictions(keep: int) -> list[str]:
    """Remove all finished jobs but the newest ``keep`` of each model and those under a day old.

    Unfinished jobs stay: the same command resumes them. Returns the names of the removed folders.
    """
    folders.sweep(artifact_paths.CONDEMNED, artifact_paths.all_predictions())
    of_model: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for folder, job in predictions.list_jobs():
        if job and job.status == "done" and is_in_place(folder):
            of_model[job.model.name].append((job.finished_at or "", folder))
    return _remove((folder for jobs in of_model.values() for _, folder in sorted(jobs)[:-keep]), JOB, locks.of_job)


def is_in_place(folder: Path) -> bool:
    """Whether a folder is really here, not behind a link or a mount."""
    if folder.is_symlink() or os.path.ismount(folder):
        folders.tell_skipped(folder, "it leads to another place")
        return False
    return True


def is_old(path: Path, grace: timedelta = GRACE) -> bool:
    """Whether a file was last written or touched more than ``grace`` ago."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) < datetime.now(UTC) - grace


def _remove(
    paths: Iterable[Path], document: str, lock_of: Callable[[Path], Path], grace: timedelta = GRACE
) -> list[str]:
    """Remove folders whose ``document`` is old (or old files, if it is empty) unless a process holds them.

    A folder is first renamed out of sight, so that nobody sees it half removed.
    """
    removed = []
    for path in paths:
        lock = lock_of(path)
        with skip_unreadable(path):
            if not is_old(path / document, grace):
                continue
            if lock.parent != path:  # another process may have removed the folder of the lock
                lock.parent.mkdir(exist_ok=True)
            with locks.locked_if_free(lock) as ours:
                if ours and is_old(path / document, grace):  # it may have been reused meanwhile
                    if document:
                        folders.remove(path.rename(artifact_paths.condemned_path(path)))
                    else:
                        path.unlink()
                    removed.append(path.name)
                    lock.unlink(missing_ok=True)  # if it is elsewhere; a process that waits for it opens a new one
    return removed


# Files of datasets


def prune_datasets() -> list[str]:
    """Remove dataset files that nothing has named, written or touched for a day; return their names.

    Journals of searches are removed when they have been unused for long. A dataset that is being prepared is skipped.

    Raises:
        DataError: the document of a kept version or of an unfinished job is damaged: it may name any of them.
    """
    needed, removed = References.collect().files, list[str]()
    datasets = artifact_paths.datasets()
    for folder in sorted(datasets.iterdir()) if datasets.is_dir() else ():
        with skip_unreadable(folder):
            if folder.is_dir() and is_in_place(folder):
                with locks.locked_if_free(artifact_paths.lock(folder)) as ours:
                    gone = _prune_files(folder, needed) if ours else []
                studies = sorted(folder.glob(artifact_paths.study(folder.name, "*").name))
                gone += _remove(studies, "", artifact_paths.lock_of_study, UNUSED)
                removed += [f"{folder.name}/{name}" for name in gone]
    return removed


def _prune_files(folder: Path, needed: set[str]) -> list[str]:
    """Prune a dataset's folder; files that a killed pruning hid are restored if they are needed."""
    removed, files = [], [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    hidden = [path for path in files if HIDDEN.fullmatch(path.name)]
    hidden += [
        path.rename(artifact_paths.condemned_path(path))
        for path in files
        if PREPARED.fullmatch(path.name) and path.name not in needed and is_old(path)
    ]
    needed = References.collect().files if hidden else needed
    for path in hidden:
        target = folder / HIDDEN.sub(r"\1", path.name)
        if (target.name in needed or not is_old(path)) and not target.exists():
            path.rename(target)
        else:
            path.unlink()
            removed.append(target.name)
    return removed
