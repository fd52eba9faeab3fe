"""What old runs and predictions leave behind is removed; what still explains a kept version stays."""

import itertools
import json
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tasks import artifact_paths
from tasks.artifact_paths import JOB, MANIFEST, RUN
from tasks.model_store import reading

GRACE = timedelta(days=1)  # a younger run may still be going, and somebody may be reading a younger prediction
CONDEMNED_PREFIX = ".pruned-"


def prune_runs(keep: int) -> list[str]:
    """Remove all run folders but the newest ``keep`` of each model, those of kept versions, and those under a day old.

    Returns the names of the removed folders.
    """
    _sweep(artifact_paths.runs())
    needed = evidence()
    of_model: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted(artifact_paths.runs().glob(f"*/{RUN}")):
        of_model[folder.parent.name.partition("-")[2].rpartition("-")[0]].append(folder.parent)  # time-model-id
    old = [folder for folders in of_model.values() for folder in folders[:-keep]]
    return _remove(folder for folder in old if folder.name not in needed and _is_old(folder / RUN))


def prune_predictions(keep: int) -> list[str]:
    """Remove all finished jobs but the newest ``keep`` of each model and those under a day old.

    Unfinished jobs stay: the same command resumes them. Returns the names of the removed folders.
    """
    _sweep(artifact_paths.all_predictions())
    of_model: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for path in artifact_paths.all_predictions().glob(f"*/{JOB}"):
        try:
            job = json.loads(path.read_text())
            if job["status"] == "done":
                of_model[job["model"]["name"]].append((job["finished_at"], path.parent))
        except (OSError, ValueError, KeyError):
            continue  # being replaced, or not ours to judge
    old = [folder for jobs in of_model.values() for _, folder in sorted(jobs)[:-keep]]
    return _remove(folder for folder in old if _is_old(folder / JOB))


def evidence() -> set[str]:
    """The run folders that kept versions name, and those whose files these runs have reused.

    Raises:
        DataError: a manifest or a run's notes cannot be read; what they name must not be guessed.
    """
    needed: set[str] = set()
    for path in artifact_paths.models().glob(f"*/*/{MANIFEST}"):
        run = reading.read_json(path)["run"]
        needed.add(run)
        noted = artifact_paths.runs() / run / RUN
        if noted.is_file():
            needed |= set(_runs_named_in(reading.read_json(noted)))
    return needed


def _runs_named_in(document: Any) -> Iterable[str]:
    """The run folders of every path in a JSON document."""
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        for value in document:
            yield from _runs_named_in(value)
    elif isinstance(document, str):
        parts = Path(document).parts  # artifacts/ may have had another name then: on the host, in a container
        yield from (name for folder, name in itertools.pairwise(parts) if folder == artifact_paths.runs().name)


def _is_old(path: Path) -> bool:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) < datetime.now(UTC) - GRACE


def _remove(folders: Iterable[Path]) -> list[str]:
    """Rename each folder out of sight first, so that none is ever seen half removed; one in use is left alone."""
    removed = []
    for folder in folders:
        lock = FileLock(folder / ".lock")
        try:
            with lock.acquire(timeout=0):
                condemned = folder.rename(folder.with_name(f"{CONDEMNED_PREFIX}{folder.name}-{secrets.token_hex(4)}"))
        except Timeout:
            continue
        shutil.rmtree(condemned)
        removed.append(folder.name)
    return removed


def _sweep(parent: Path) -> None:
    for leftover in parent.glob(f"{CONDEMNED_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
