"""What old runs and predictions leave behind is removed; what still explains a kept version stays.

Nothing is removed that somebody holds, nothing behind a link, and nothing that cannot be judged: that is said.
"""

import itertools
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.errors import DataError
from tasks.parameters import Found
from tasks.store import artifact_paths, atomic, folders, locks, names, predictions, reading, tuned, verified
from tasks.store.artifact_paths import RUN
from tasks.store.predictions import left_alone
from tasks.store.record import everything_in, files_in
from tasks.store.run_folder import RunNotes
from tasks.store.versions import Manifest

GRACE = timedelta(days=1)  # a younger run may still be going, and somebody may be reading a younger prediction
UNUSED = timedelta(days=90)  # so long is kept what a stage returned and nobody has used


def prune_runs(keep: int) -> list[str]:
    """Remove all run folders but the newest ``keep`` of each model, those of kept versions, and those under a day old.

    Those whose files a run that goes on has reused stay too. What stages returned and nobody can use, or has used for
    long, goes with them. Returns the names of the removed folders.

    Raises:
        DataError: it cannot be told which runs kept versions name.
    """
    folders.sweep(names.CONDEMNED, artifact_paths.runs())
    atomic.sweep(artifact_paths.root())
    needed = evidence() | _reused_by_runs_that_go_on()
    of_model: dict[str, list[Path]] = defaultdict(list)
    for note in sorted(artifact_paths.runs().glob(f"*/{RUN}")):
        if is_in_place(note.parent):
            of_model[note.parent.name.partition("-")[2].rpartition("-")[0]].append(note)  # time-model-id
    old = [note for notes in of_model.values() for note in notes[:-keep] if note.parent.name not in needed]
    removed = _remove(old, artifact_paths.lock)
    _prune_stage_records()
    return removed


def prune_predictions(keep: int) -> list[str]:
    """Remove all finished jobs but the newest ``keep`` of each model and those under a day old.

    Unfinished jobs stay: the same command resumes them. Returns the names of the removed folders.
    """
    folders.sweep(names.CONDEMNED, artifact_paths.all_predictions())
    of_model: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for folder, document, job in predictions.below_artifacts():
        if job and job.status == "done" and is_in_place(folder):
            of_model[job.model.name].append((job.finished_at or "", document))
    old = [document for jobs in of_model.values() for _, document in sorted(jobs)[:-keep]]
    return _remove(old, locks.of_job)


def evidence() -> set[str]:
    """The run folders that kept versions and found settings name, and those whose files these runs have reused.

    Raises:
        DataError: a manifest or a run's notes cannot be read; what they name must not be guessed.
    """
    needed: set[str] = set()
    of_versions = (
        _runs_of(reading.manifest(name, each)) for name in reading.names() for each in reading.versions(name)
    )
    for run in itertools.chain(*of_versions, tuned.runs()):
        needed.add(run)
        noted = artifact_paths.runs() / run / RUN
        if noted.is_file():
            needed.update(_runs_named_in(RunNotes.read(noted).stages))
    return needed


def _runs_of(version: Manifest) -> list[str]:
    """The run that made it, and the search that found settings for that one."""
    found = (version.parameters.model_extra or {}).get("found")
    return [version.run] + ([Found.model_validate(found).run] if found else [])


def _reused_by_runs_that_go_on() -> set[str]:
    """The run folders whose files a run uses that is young or held; one whose notes are damaged cannot go on."""
    needed: set[str] = set()
    for noted in artifact_paths.runs().glob(f"*/{RUN}"):
        try:
            if _goes_on(noted):
                needed.update(_runs_named_in(RunNotes.read(noted).stages))
        except (OSError, DataError) as error:
            left_alone(noted.parent, error)
    return needed


def _goes_on(noted: Path) -> bool:
    """Whether the run of these notes may still be going; one behind a link is not asked, since its lock lies there."""
    return noted.parent.is_symlink() or not is_old(noted) or locks.is_held(artifact_paths.lock(noted.parent))


def _runs_named_in(document: Any) -> Iterator[str]:
    """The run folders of every path in a JSON document."""
    for text in everything_in(document):
        if isinstance(text, str):
            parts = itertools.pairwise(Path(text).parts)  # artifacts/ may have had another name then, as in a container
            yield from (name for folder, name in parts if folder == artifact_paths.runs().name)


def is_in_place(folder: Path) -> bool:
    """Whether a folder lies here and not, behind a link or a mount, where others have put it."""
    if folder.is_symlink() or os.path.ismount(folder):
        left_alone(folder, "it leads to another place")
        return False
    return True


def is_old(path: Path, grace: timedelta = GRACE) -> bool:
    """Whether it is so long ago that somebody wrote or touched a file."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) < datetime.now(UTC) - grace


def _remove(notes: Iterable[Path], lock_of: Callable[[Path], Path]) -> list[str]:
    """Remove the folders of these documents, but those under a day old and those that somebody holds.

    Each is renamed out of sight first, so that none is ever seen half removed.
    """
    removed = []
    for note in notes:
        folder = note.parent
        lock = lock_of(folder)
        try:
            if not is_old(note):
                continue
            if lock.parent != folder:  # which another process may have removed
                lock.parent.mkdir(exist_ok=True)
            with locks.locked_if_free(lock) as ours:
                if not ours or not is_old(note):  # meanwhile it may have been taken up again
                    continue
                condemned = folder.rename(names.condemned(folder))
                removed.append(folder.name)
                folders.remove(condemned)
                lock.unlink(missing_ok=True)  # if it lies elsewhere; whoever waits for it takes another
        except OSError as error:
            left_alone(folder, error)
    return removed


def _prune_stage_records() -> None:
    """Remove what stages returned and nobody has used for long, or can use, since a file of it is gone."""
    if not is_in_place(artifact_paths.stage_records()):
        return
    for path in sorted(artifact_paths.stage_records().glob("*")):
        if not names.STAGE_RECORD.fullmatch(path.name):
            continue
        try:
            files = files_in(json.loads(verified.content(path)))
            if is_old(path, UNUSED) or not all(file.path.exists() for file in files):
                path.unlink()
        except (OSError, ValueError, RecursionError, DataError) as error:
            left_alone(path, error)
