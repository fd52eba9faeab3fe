"""Pruning: old versions go as a whole, and only those that nobody may still need."""

import contextlib
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks import artifact_paths, model_store
from tasks.artifact_paths import JOB
from tasks.errors import UsageError
from tasks.model_store import publishing, reading

GRACE = timedelta(days=1)  # a consumer that read the pointer may still be loading the version it named


def prune(name: str, keep: int) -> tuple[list[int], dict[int, str]]:
    """Delete all but the newest ``keep`` versions; return the pruned ones, and why older ones were kept.

    Raises:
        UsageError: there is no such model, or ``keep`` is below 1.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}", "at least 1", "see gradmill prune --help")
    reading.resolve(name, None)
    with model_store.lock(name):
        publishing.sweep(name)
        kept = reading.versions(name)
        needed = protected(name)
        pruned = [number for number in kept[:-keep] if number not in needed]
        for number in pruned:
            condemned = artifact_paths.model(name) / f"{publishing.PRUNED_PREFIX}{number}-{secrets.token_hex(4)}"
            artifact_paths.version(name, number).rename(condemned)
            publishing.remove_folder(condemned)
        return pruned, {number: needed[number] for number in kept[:-keep] if number in needed}


def _jobs_elsewhere() -> Iterator[Path]:
    """``job.json`` of the unfinished jobs whose output is outside artifacts/."""
    for note in artifact_paths.jobs_elsewhere().glob("*"):
        with contextlib.suppress(OSError, ValueError):  # the job has just ended, or the note is none of ours
            yield Path(note.read_text()) / JOB


def protected(name: str) -> dict[int, str]:
    """The versions that pruning must not take, and the reason."""
    reasons: dict[int, str] = {}
    oldest = datetime.now(UTC) - GRACE
    for number, moment in reading.history(name)["demoted"].items():
        if datetime.fromisoformat(moment) > oldest:
            reasons[int(number)] = "demoted less than a day ago"
    for path in (*artifact_paths.all_predictions().glob(f"*/{JOB}"), *_jobs_elsewhere()):
        try:
            job = json.loads(path.read_text())
            if job["status"] != "done" and job["model"]["name"] == name:
                reasons[int(job["model"]["version"])] = f"named by the unfinished job in {path.parent}"
        except (OSError, ValueError, KeyError, TypeError):
            continue  # none of ours, or gone
    current = reading.champion(name)
    if current is not None:
        if current["previous"] is not None:
            reasons[current["previous"]] = "the version that a rollback goes to"
        reasons[current["version"]] = "the champion"
    return reasons
