"""Pruning: old versions go as a whole, and only those that nobody may still need."""

from datetime import UTC, datetime, timedelta

from tasks.errors import GradmillError, UsageError
from tasks.store import (
    artifact_paths,
    folders,
    history,
    locks,
    names,
    predictions,
    publishing,
    reading,
    schedules,
    state,
)

GRACE = timedelta(days=1)  # a consumer that read the pointer may still be loading the version it named


def prune_scheduled() -> list[str]:
    """Prune the versions of every name that is retrained by a schedule; return the pruned ones as ``name/number``.

    What cannot be pruned, or read, is said, and stops no other.
    """
    pruned = []
    try:
        told = schedules.read().of_flow("retrain")
    except (GradmillError, OSError) as error:
        predictions.left_alone(artifact_paths.schedules(), error)
        return []
    for name, schedule in told.items():
        try:
            if reading.versions(name):
                numbers, _ = prune(name, schedule.keep, f"gradmill schedule --keep {schedule.keep}")
                pruned += [f"{name}/{number}" for number in numbers]
        except (GradmillError, OSError) as error:
            predictions.left_alone(artifact_paths.model(name), error)
    return pruned


def prune(name: str, keep: int, reason: str | None = None) -> tuple[list[int], dict[int, str]]:
    """Delete all but the newest ``keep`` versions; return the pruned ones, and why older ones were kept.

    Raises:
        UsageError: there is no such model, or ``keep`` is below 1.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}", "at least 1", "see gradmill prune --help")
    cause = history.of_user("pruned", reason)
    reading.resolve(name, None)
    with locks.model(name):
        publishing.sweep(name)
        kept = reading.versions(name)
        needed = protected(name)
        pruned = [number for number in kept[:-keep] if number not in needed]
        if pruned:
            history.note(name, cause, pruned, reading.pointer(name))
        for number in pruned:
            version = artifact_paths.version(name, number)
            folders.remove(version.rename(names.condemned(version)))
        return pruned, {number: needed[number] for number in kept[:-keep] if number in needed}


def protected(name: str) -> dict[int, str]:
    """The versions that pruning must not take, and the reason."""
    reasons: dict[int, str] = {}
    readable = {each.number: each.manifest for each in state.read(name, newest=0).names[name].versions}
    for number in reading.versions(name)[::-1]:  # older ones, which may be damaged, say nothing that counts
        if number not in readable:
            damaged = f"may be the best in the last comparison, of which version {number} tells, and it is damaged"
            reasons = dict.fromkeys(reading.versions(name), damaged)
            break
        if best := readable[number].best_version:
            reasons[best] = "the best in the last comparison: without it many small losses could add up"
            break
    oldest = datetime.now(UTC) - GRACE
    for number, moment in history.list_demotions(name).items():
        if datetime.fromisoformat(moment) > oldest:
            reasons[number] = "demoted less than a day ago"
    for folder, job in predictions.list_jobs(everywhere=True):
        if job is None:
            damaged = f"may be that of the unfinished job in {folder}, whose document cannot be read"
            reasons = dict.fromkeys(reading.versions(name), damaged) | reasons
        elif job.status != "done" and job.model.name == name:
            reasons[job.model.version] = f"named by the unfinished job in {folder}"
    current = reading.champion(name)
    if current is not None:
        if current.previous is not None:
            reasons[current.previous] = "the version that a rollback goes to"
        reasons[current.version] = "the champion"
    return reasons
