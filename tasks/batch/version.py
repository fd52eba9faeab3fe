"""What labelling needs to know of a version, from its folder alone: a worker elsewhere has no other settings."""

from pathlib import Path
from typing import NamedTuple

from tasks.data.readers.formats import Wanted
from tasks.data.recipe import Columns, Recipe
from tasks.data.report import ColumnProfile
from tasks.errors import DataError
from tasks.serving.contract import ModelMetadata
from tasks.serving.drift import Profile
from tasks.serving.task import TASKS, Task
from tasks.store import reading
from tasks.store.artifact_paths import LABELS, MANIFEST, METADATA
from tasks.store.predictions import Job
from tasks.store.versions import Manifest


class Version(NamedTuple):
    """Task, class names, the test split's profile, the recipe, and of own tables what columns were like."""

    task: Task
    labels: list[str]
    reference: Profile
    recipe: Recipe
    columns: tuple[ColumnProfile, ...] = ()

    def wanted(self, job: Job) -> Wanted:
        """The rows that the model takes, for a job."""
        is_own = isinstance(self.recipe, Columns) and self.recipe.target is not None
        truth = self.task.target if self.task.is_counted or is_own else None
        return Wanted(self.recipe, job.columns, truth, tuple(self.labels), job.id_columns, job.unknown)


def read_version(folder: Path) -> Version:
    """Read a version's folder.

    Raises:
        DataError: its manifest, its metadata or its labels are missing, have changed since it was published, or do not
            fit each other.
    """
    manifest = reading.read_manifest(folder)
    labels, path = manifest.dataset.class_names, folder / METADATA
    if ModelMetadata.parse(reading.read_file(folder, METADATA), path) != manifest.metadata:
        found = f"{path} does not fit recipe, task and classes in {MANIFEST}"
        raise DataError(found, "both as they were published", "restore both from a copy")
    if labels and reading.read_file(folder, LABELS) != "".join(f"{label}\n" for label in labels).encode():
        raise DataError(f"{folder / LABELS} is not what {MANIFEST} says", ", ".join(labels), "restore both from a copy")
    return Version(
        TASKS[manifest.dataset.task], list(labels), dict(manifest.profile), manifest.recipe, _columns(manifest)
    )


def _columns(manifest: Manifest) -> tuple[ColumnProfile, ...]:
    """The profiles of the columns that rows come with, in their order; of anything but own tables none."""
    known = {each.name: each for each in manifest.dataset.profiles}
    recipe = manifest.recipe
    columns = [known.get(each.name) for each in recipe.columns] if isinstance(recipe, Columns) and known else []
    return tuple(each for each in columns if each) if all(columns) else ()
