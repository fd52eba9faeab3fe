"""What runs and jobs of batch prediction tell of names: each is read once, however many names are told of."""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import DataError
from tasks.store import artifact_paths, disk, predictions, tried
from tasks.store.predictions import Job
from tasks.store.tried import Tried

JOBS = 10  # of a name that are told


@dataclass
class OfName:
    """What there is of one name; the newest first."""

    runs: list[Tried] = field(default_factory=list)  # that retrained it
    jobs: list[Job] = field(default_factory=list)  # the last that are done
    run_bytes: int = 0  # of the folders of runs of every kind
    job_bytes: int = 0


@dataclass
class Evidence:
    """What there is of every name, and what cannot be read, with the reason."""

    of: defaultdict[str, OfName] = field(default_factory=lambda: defaultdict(OfName))
    left: list[tuple[Path, str]] = field(default_factory=list)

    def leave(self, path: Path, reason: str | Exception) -> None:
        """Note what cannot be read."""
        self.left.append((path, reason.found if isinstance(reason, DataError) else str(reason)))

    def faults(self, name: str) -> list[str]:
        """What cannot be read and may be of a name: a run's folder has it in its own name, a job's has not."""
        runs, here = artifact_paths.runs(), f"-{name}-"
        return [f"{path}: {why}" for path, why in self.left if runs not in path.parents or here in path.parent.name]


def read(name: str | None = None) -> Evidence:
    """The evidence of a name, or of all. All jobs are looked at: only their documents say whose they are."""
    found = Evidence()
    folders = tried.folders(name)
    for run in tried.every(folders[: tried.NEWEST] if name else folders, found.leave):
        if name in (None, run.name):
            of_name = found.of[run.name]
            of_name.run_bytes += disk.size(run.folder)
            of_name.runs += [run.retrain] if run.retrain else []
    for folder, _, job in predictions.below_artifacts(found.leave):
        if job and name in (None, job.model.name):
            of_name = found.of[job.model.name]
            of_name.job_bytes += disk.size(folder)
            of_name.jobs = newest([*of_name.jobs, job])
    return found


def newest(jobs: Iterable[Job]) -> list[Job]:
    """The last of those that are done, the newest first."""
    return heapq.nlargest(JOBS, (job for job in jobs if job.status == "done"), key=lambda job: job.finished_at or "")
