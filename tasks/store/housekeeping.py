"""Remove what old versions, runs and predictions leave behind, but nothing that somebody may still need.

Nothing is removed that a process holds, that is behind a link, or that cannot be judged; the latter is reported.

Prepared splits and row digests are removed when no version, run, unfinished job or ``look.json`` names them. Each is
named by its content, so that a name in a document is enough to keep it. A process that reuses an old file first touches
it or its stage's record: files are moved out of sight, and deleted if none of that has happened by then.
"""

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.parameters import Found, is_name
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
    schedules,
    state,
    tuning_result,
    verified_files,
)
from tasks.store.artifact_paths import JOB, MANIFEST, RUN
from tasks.store.folders import skip_unreadable
from tasks.store.model_folder import Manifest
from tasks.store.record_base import files_in
from tasks.store.run_folder import RunRecord
from tasks.store.state import NameState

# A younger run may still be going, and somebody may be reading a younger prediction, or loading a version that was the
# champion until recently.
GRACE = timedelta(days=1)
UNUSED = timedelta(days=90)  # how long unused results of stages and searches are kept
PREPARED = re.compile(artifact_paths.PREPARED)
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


def prune_scheduled() -> list[str]:
    """Prune the versions of every name with a scheduled retrain; return the pruned ones as ``name/number``.

    A name that cannot be pruned or read is reported and stops no other.
    """
    pruned = list[str]()
    folders.sweep(artifact_paths.CONDEMNED, artifact_paths.models())
    with skip_unreadable(artifact_paths.schedules()):
        for name, schedule in schedules.read().of_flow("retrain").items():
            with skip_unreadable(artifact_paths.model(name)):
                if model_folder.list_versions(name):
                    numbers, _ = prune(name, schedule.keep, f"gradmill schedule --keep {schedule.keep}")
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
        UsageError: the name is unknown, or a schedule needs it.
        DataError: a document of another name, which may need one of these runs, is damaged: the runs are kept.
    """
    facts, places = require_known(name), (artifact_paths.model(name), artifact_paths.dataset(name))
    with schedules.hold_lock():
        require_unscheduled(name)
        preparing = "another process is preparing its data; waiting for it"
        with locks.hold_lock(artifact_paths.dataset_lock(name), preparing), locks.hold_model(name):
            for place in filter(Path.exists, places):
                folders.remove(place.rename(artifact_paths.condemned_path(place)))
            artifact_paths.tuned(name).unlink(missing_ok=True)
    needed = list_evidence()  # runs of another name may have reused files of these
    ours = (each for each in facts.run_folders if each.name not in needed and _is_of(each, name))
    return _remove(ours, RUN, artifact_paths.lock, timedelta())


def require_unscheduled(name: str) -> None:
    """Check that no schedule of ``gradmill schedule`` needs a name.

    Raises:
        UsageError: one does.
    """
    if using := [deployment for deployment, each in schedules.read().schedules.items() if each.name == name]:
        action = f"gradmill unschedule {' '.join(using)}, then remove the name"
        raise UsageError(f"{name} is scheduled by {' and '.join(using)}", "a name that no schedule needs", action)


def require_known(name: str) -> NameState:
    """The state of a name that has versions, runs or data.

    Raises:
        UsageError: the name has none of these.
    """
    facts = state.read_name(name) if is_name(name) else None  # any other text might lead out of the store
    places = artifact_paths.model(name), artifact_paths.dataset(name)
    if facts is None or not (facts.is_known or any(place.exists() for place in places)):
        raise UsageError(f"no model {name}", f"one of {', '.join(model_folder.list_names()) or 'none'}", "name another")
    return facts


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
        if current.previous is not None:
            reasons[current.previous] = "the version that a rollback would return to"
        reasons[current.version] = "the champion"
    return reasons


# Runs, predictions and stage results


def prune_runs(keep: int) -> list[str]:
    """Remove all run folders but the newest ``keep`` of each model, those of kept versions, and those under a day old.

    Folders whose files a run in progress has reused are kept too. Stage results that are unusable, or long unused, are
    removed as well. Returns the names of the removed folders.

    Raises:
        DataError: the runs that kept versions name cannot be determined.
    """
    folders.sweep(artifact_paths.CONDEMNED, artifact_paths.runs())
    atomic.sweep(artifact_paths.root())
    needed, old = list_evidence(), list[Path]()
    for of_model in run_folder.list_folders().values():
        in_place = [folder for folder in of_model if is_in_place(folder)]
        old += in_place[keep:]
        for folder in of_model:
            with skip_unreadable(folder):  # a run with damaged notes cannot continue
                if folder not in in_place or not is_old(folder / RUN) or locks.is_held(artifact_paths.lock(folder)):
                    needed.update(_list_reused_runs(folder / RUN))  # the run may still be going
    removed = _remove((folder for folder in sorted(old) if folder.name not in needed), RUN, artifact_paths.lock)
    records = artifact_paths.stage_records()
    for path in sorted(records.glob("*")) if is_in_place(records) else ():
        with skip_unreadable(path):
            if artifact_paths.STAGE_RECORD.fullmatch(path.name):
                files = files_in(json.loads(verified_files.read_content(path)))
                if is_old(path, UNUSED) or not all(file.path.exists() for file in files):
                    path.unlink()
    return removed


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


def list_evidence() -> set[str]:
    """The run folders that kept versions and found settings name, and those whose files these runs have reused.

    Raises:
        DataError: a manifest, settings or a run's notes cannot be read; what they name must not be guessed.
    """
    needed = {tuning_result.read(path.stem).run for path in artifact_paths.all_tuned().glob("*.json")}
    for _, manifest in _list_manifests():
        found = (manifest.parameters.model_extra or {}).get("found")  # the search's run has every trial
        needed |= {manifest.run} | ({Found.model_validate(found).run} if found else set())
    notes = (artifact_paths.runs() / run / RUN for run in needed)
    return needed.union(*(_list_reused_runs(path) for path in notes if path.is_file()))


def _list_manifests() -> Iterator[tuple[Path, Manifest]]:
    """The manifests of all kept versions with their paths; it raises a DataError if one cannot be read."""
    for name in model_folder.list_names():
        for number in model_folder.list_versions(name):
            yield artifact_paths.version(name, number) / MANIFEST, model_folder.find_manifest(name, number)


def _list_reused_runs(notes: Path) -> list[str]:
    """The run folders in any path in a run's notes; artifacts/ may have had another name when they were written."""
    return re.findall(rf'(?<={artifact_paths.runs().name}/)[^/"\\]+', RunRecord.read(notes).model_dump_json())


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
    needed, removed = _list_named_files(), list[str]()
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
    needed = _list_named_files() if hidden else needed
    for path in hidden:
        target = folder / HIDDEN.sub(r"\1", path.name)
        if (target.name in needed or not is_old(path)) and not target.exists():
            path.rename(target)
        else:
            path.unlink()
            removed.append(target.name)
    return removed


def _list_named_files() -> set[str]:
    """The names of prepared files in all documents that count.

    Raises:
        DataError: the document of a kept version or of an unfinished job is damaged.
    """
    documents = [*artifact_paths.runs().glob(f"*/{RUN}")]
    documents += artifact_paths.datasets().glob(f"*/{artifact_paths.look('').name}")
    found = set[str]()
    for path, manifest in _list_manifests():
        found.add(artifact_paths.trained_files(manifest.dataset.name, manifest.dataset.digest).name)
        documents.append(path)
    for record in artifact_paths.stage_records().glob("*.json"):
        with suppress(FileNotFoundError):  # another process may remove records too
            documents += [] if is_old(record) else [record]
    for folder, job in predictions.list_jobs(everywhere=True):
        if job is None:
            action = "restore it, or remove the folder"
            raise DataError(f"what the unfinished job in {folder} reads is unknown", "its document", action)
        documents += [] if job.status == "done" else [folder / JOB]
    for path in documents:
        with skip_unreadable(path):  # removed meanwhile, or not ours
            found |= {
                each.decode()
                for each in re.findall(artifact_paths.PREPARED.encode(), verified_files.read_content(path))
            }
    return found
