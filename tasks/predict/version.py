"""What labelling needs to know of a version, from its folder alone: a worker elsewhere has no other settings."""

from pathlib import Path
from typing import Any, NamedTuple

from tasks import contract
from tasks.artifact_paths import LABELS, MANIFEST
from tasks.drift import Profile
from tasks.model_store import reading
from tasks.predict.inputs.formats import Wanted
from tasks.records import Histogram


class Version(NamedTuple):
    """Class names, the test split's profile, and the manifest's preprocessing recipe."""

    labels: list[str]
    reference: Profile
    recipe: dict[str, Any]

    def wanted(self, signature: contract.Signature, columns: tuple[str, ...]) -> Wanted:
        """The rows that the model takes; ``columns`` replace those of the recipe."""
        named = columns or tuple(self.recipe.get("columns", ()))
        classified = any(tensor.name == contract.LABEL for tensor in signature.outputs)
        return Wanted(signature.inputs[0], named, resize="resize" in self.recipe, classified=classified)


def read_version(folder: Path) -> Version:
    """Read a version's folder.

    Raises:
        DataError: its manifest is missing or broken.
    """
    manifest = reading.read_json(folder / MANIFEST)
    labels = (folder / LABELS).read_text().splitlines() if (folder / LABELS).is_file() else []
    profile = {name: Histogram.model_validate(each) for name, each in manifest.get("profile", {}).items()}
    return Version(labels, profile, manifest["preprocessing"])
