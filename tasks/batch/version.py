"""What labelling needs to know of a version, from its folder alone: a worker elsewhere has no other settings."""

from pathlib import Path
from typing import NamedTuple

from tasks.data.readers.formats import Wanted
from tasks.data.recipe import Recipe
from tasks.errors import DataError
from tasks.serving import contract
from tasks.serving.drift import Profile
from tasks.store import reading
from tasks.store.artifact_paths import LABELS, MANIFEST


class Version(NamedTuple):
    """Class names, the test split's profile, and the manifest's preprocessing recipe."""

    labels: list[str]
    reference: Profile
    recipe: Recipe

    def wanted(self, signature: contract.Signature, columns: tuple[str, ...]) -> Wanted:
        """The rows that the model takes; ``columns`` replace those of the recipe."""
        named = columns or self.recipe.names
        classified = any(tensor.name == contract.LABEL for tensor in signature.outputs)
        return Wanted(signature.inputs[0], named, resize=self.recipe.resize is not None, classified=classified)


def read_version(folder: Path) -> Version:
    """Read a version's folder.

    Raises:
        DataError: its manifest or its labels are missing, or have changed since it was published.
    """
    manifest = reading.read_manifest(folder)
    labels = manifest.dataset.class_names
    if labels and reading.read_file(folder, LABELS) != "".join(f"{label}\n" for label in labels).encode():
        raise DataError(f"{folder / LABELS} is not what {MANIFEST} says", ", ".join(labels), "restore both from a copy")
    return Version(list(labels), dict(manifest.profile), manifest.recipe)
