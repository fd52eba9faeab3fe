"""What old versions, runs and predictions leave behind is removed; what somebody may still need stays.

Nothing is removed that somebody holds, nothing behind a link, and nothing that cannot be judged: that is said.

Prepared splits and row digests go when no version, run, unfinished job or ``look.json`` names them. Each
is named by its content, so that a name in a document is enough to keep it. Whoever takes up an old one touches it
first, or the record of the stage that wrote it: files are moved out of sight, and removed if none of that has happened
by then.
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
from tasks.machine.run_messages import tell
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
from tasks.store.run_folder import RunNotes
from tasks.store.state import NameState

# A younger run may still be going, and somebody may be reading a younger prediction, or loading a version that was the
# champion until a moment ago.
GRACE = timedelta(days=1)
UNUSED = timedelta(days=90)  # so long is kept what a stage or a search has learned and nobody has used
PREPARED = re.compile(artifact_paths.PREPARED)
HIDDEN = re.compile(rf"\.pruned-({artifact_paths.PREPARED})-[0-9a-f]{{8}}")


def maintain(keep: int) -> tuple[dict[str, list[str]], DataError | None]:
    """Remove what old runs, predictions and versions of scheduled names have left; ``keep`` runs and predictions stay.

    Returns the names of what was removed, by its kind, and why something could not be judged: then all of that kind
    stays, and the others are done.
    """
    steps: dict[str, Callable[[], list[str]]] = {
        "predictions": lambda: prune_predictions(keep),
        "versions": prune_scheduled,
        "runs": lambda: prune_runs(keep),  # after the versions that they explain
        "datasets": prune_datasets,  # after all that names files of them
    }
    removed, failure = dict[str, list[str]](), None
    for kind, step in steps.items():
        removed[kind] = []
        try:
            removed[kind] = step()
        except DataError as error:
            failure = failure or error
    for fault in state.read(only=("champion", "history", "run")).faults:  # of others all steps have told
        tell(f"left alone: {fault.found}", file=sys.stderr)
    return removed, failure


# Versions


def prune_scheduled() -> list[str]:
    """Prune the versions of every name that is retrained by a schedule; return the pruned ones as ``name/number``.

    What cannot be pruned, or read, is said, and stops no other.
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
    """Delete all but the newest ``keep`` versions; return the pruned ones, and why older ones were kept.

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
    """Delete a name: its versions and their history, what was kept of its data, what a search found, and its runs.

    Predictions and copies elsewhere stay, and a run that goes on. Returns the names of the run folders that are gone.

    Raises:
        UsageError: nothing is known of it, or a schedule needs it.
        DataError: a document of another name is damaged, which may need one of these runs: they stay.
    """
    facts, places = require_known(name), (artifact_paths.model(name), artifact_paths.dataset(name))
    with schedules.hold_lock():
        if using := [each.deployment for each in schedules.read().schedules.values() if each.name == name]:
            expected, action = "a name that no schedule needs", f"end it first, as with gradmill unschedule {name}"
            raise UsageError(f"{using[0]} runs for {name} by a schedule", expected, action)
        preparing = "another process prepares its data; waiting for it"
        with locks.hold_lock(artifact_paths.dataset_lock(name), preparing), locks.hold_model(name):
            for place in filter(Path.exists, places):
                folders.remove(place.rename(artifact_paths.condemned_path(place)))
            artifact_paths.tuned(name).unlink(missing_ok=True)
    needed = list_evidence()  # runs of another name may have reused files of these
    ours = (each for each in facts.run_folders if each.name not in needed and _is_of(each, name))
    return _remove(ours, RUN, artifact_paths.lock, timedelta())


def require_known(name: str) -> NameState:
    """What is known of a name, of which there are versions, runs or data.

    Raises:
        UsageError: there is nothing.
    """
    facts = state.read_name(name) if is_name(name) else None  # or it might lead out of the store
    places = artifact_paths.model(name), artifact_paths.dataset(name)
    if facts is None or not (facts.is_known or any(place.exists() for place in places)):
        raise UsageError(f"no model {name}", f"one of {', '.join(model_folder.list_names()) or 'none'}", "name another")
    return facts


def _is_of(folder: Path, name: str) -> bool:
    """Whether a run is of this name; one whose notes are damaged may be of another, and stays."""
    with suppress(DataError):
        return run_folder.read_folder(folder)[0] == name
    return False


def find_protected(name: str) -> dict[int, str]:
    """The versions that pruning must not take, and the reason."""
    reasons, kept = dict[int, str](), model_folder.list_versions(name)
    for number in kept[::-1]:  # older ones than that which tells, which may be damaged, say nothing that counts
        try:
            best = model_folder.find_manifest(name, number).best_version
        except DataError:
            damaged = f"may be the best in the last comparison, of which version {number} tells, and it is damaged"
            reasons = dict.fromkeys(kept, damaged)
            break
        if best:
            reasons[best] = "the best in the last comparison: without it many small losses could add up"
            break
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
            reasons[current.previous] = "the version that a rollback goes to"
        reasons[current.version] = "the champion"
    return reasons


# Runs, predictions and what stages returned


def prune_runs(keep: int) -> list[str]:
    """Remove all run folders but the newest ``keep`` of each model, those of kept versions, and those under a day old.

    Those whose files a run that goes on has reused stay too. What stages returned and nobody can use, or has used for
    long, goes with them. Returns the names of the removed folders.

    Raises:
        DataError: it cannot be told which runs kept versions name.
    """
    folders.sweep(artifact_paths.CONDEMNED, artifact_paths.runs())
    atomic.sweep(artifact_paths.root())
    needed, old = list_evidence(), list[Path]()
    for of_model in run_folder.list_folders().values():
        in_place = [folder for folder in of_model if is_in_place(folder)]
        old += in_place[keep:]
        for folder in of_model:
            with skip_unreadable(folder):  # one whose notes are damaged cannot go on
                if folder not in in_place or not is_old(folder / RUN) or locks.is_held(artifact_paths.lock(folder)):
                    needed.update(_list_reused_runs(folder / RUN))  # it may still be going
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
        found = (manifest.parameters.model_extra or {}).get("found")  # by a search, whose run has every trial
        needed |= {manifest.run} | ({Found.model_validate(found).run} if found else set())
    notes = (artifact_paths.runs() / run / RUN for run in needed)
    return needed.union(*(_list_reused_runs(path) for path in notes if path.is_file()))


def _list_manifests() -> Iterator[tuple[Path, Manifest]]:
    """Those of all kept versions and where they are; it raises a DataError where one cannot be read."""
    for name in model_folder.list_names():
        for number in model_folder.list_versions(name):
            yield artifact_paths.version(name, number) / MANIFEST, model_folder.find_manifest(name, number)


def _list_reused_runs(notes: Path) -> list[str]:
    """The run folders that lie on any path in a run's notes; artifacts/ may have had another name then."""
    return re.findall(rf'(?<={artifact_paths.runs().name}/)[^/"\\]+', RunNotes.read(notes).model_dump_json())


def is_in_place(folder: Path) -> bool:
    """Whether a folder lies here and not, behind a link or a mount, where others have put it."""
    if folder.is_symlink() or os.path.ismount(folder):
        folders.tell_skipped(folder, "it leads to another place")
        return False
    return True


def is_old(path: Path, grace: timedelta = GRACE) -> bool:
    """Whether it is so long ago that somebody wrote or touched a file."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) < datetime.now(UTC) - grace


def _remove(
    paths: Iterable[Path], document: str, lock_of: Callable[[Path], Path], grace: timedelta = GRACE
) -> list[str]:
    """Remove folders whose ``document`` is old, or, without one, files that are; but not what somebody holds.

    A folder is renamed out of sight first, so that none is ever seen half removed.
    """
    removed = []
    for path in paths:
        lock = lock_of(path)
        with skip_unreadable(path):
            if not is_old(path / document, grace):
                continue
            if lock.parent != path:  # which another process may have removed
                lock.parent.mkdir(exist_ok=True)
            with locks.locked_if_free(lock) as ours:
                if ours and is_old(path / document, grace):  # meanwhile it may have been taken up again
                    if document:
                        folders.remove(path.rename(artifact_paths.condemned_path(path)))
                    else:
                        path.unlink()
                    removed.append(path.name)
                    lock.unlink(missing_ok=True)  # if it lies elsewhere; whoever waits for it takes another
    return removed


# Files of data sets


def prune_datasets() -> list[str]:
    """Remove files of data sets that nothing has named, written or touched for a day; return what they were called.

    What searches have learned goes when none has gone on with it for long. A data set that somebody is preparing is
    left for the next time.

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
    """What a kill has left out of sight comes back where it is needed, too."""
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
    """Every name of such a file in any document that counts.

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
        with suppress(FileNotFoundError):  # another process removes them, too
            documents += [] if is_old(record) else [record]
    for folder, job in predictions.list_jobs(everywhere=True):
        if job is None:
            action = "restore it, or remove the folder"
            raise DataError(f"nobody can tell what the unfinished job in {folder} reads", "its document", action)
        documents += [] if job.status == "done" else [folder / JOB]
    for path in documents:
        with skip_unreadable(path):  # gone meanwhile, or none of ours
            found |= {
                each.decode()
                for each in re.findall(artifact_paths.PREPARED.encode(), verified_files.read_content(path))
            }
    return found
