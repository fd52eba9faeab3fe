"""The documents of a model's folder, typed: the pointer, what it cannot tell, and each version's manifest."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from tasks.data import recipe as recipes
from tasks.data.recipe import Recipe
from tasks.records import GateVerdict, Histogram
from tasks.store.artifact_paths import METADATA, ONNX, SAMPLE
from tasks.store.documents import Document
from tasks.store.record import FileRef


def _with_a_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Number = Annotated[int, Field(ge=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
Moment = Annotated[str, AfterValidator(_with_a_zone)]


class Rewritten(Document):
    """A document that is replaced again and again: what a newer version of Gradmill has noted there is kept."""

    model_config = ConfigDict(extra="allow")


class ChampionPointer(Rewritten):
    """``champion.json``: the version that consumers should use, and those that it should not go to by itself."""

    schema_version: Literal[1] = 1
    version: Number
    model_sha256: Sha256
    manifest_sha256: Sha256
    promoted_at: Moment
    previous: Number | None
    held: tuple[Number, ...]
    frozen: bool = False

    @model_validator(mode="after")
    def _goes_back_to_another(self) -> Self:
        if self.previous == self.version:  # a rollback would hold the champion
            raise ValueError("previous is the champion itself")
        return self

    @property
    def named(self) -> set[int]:
        """Every version that it names: each of them was the champion once."""
        return {self.version, *self.held} | ({self.previous} if self.previous else set())


class History(Rewritten):
    """``.history.json``: the highest number that was ever given, and when each version was last demoted."""

    highest: int = Field(ge=0)
    demoted: dict[int, Moment]


class SplitFile(FileRef, Document):
    """A prepared split."""


class Dataset(Document):
    """What a version was trained and judged on."""

    name: str
    digest: Sha256
    test: SplitFile
    class_names: tuple[str, ...] = ()


class Training(Document):
    """Which of the book's systems made a version."""

    model: str
    implementation: str


class Parameters(Document):
    """What the run was asked for."""

    training: Training


class Metrics(Document):
    """The figures of a listing."""

    test_loss: float
    test_accuracy: float | None = None


class Verdict(GateVerdict, Document):
    """What a gate found of a version."""


class Bins(Histogram, Document):
    """How a version's answers on its test split are distributed."""


class Manifest(Document):
    """``manifest.json``: of a version's lineage what its readers need. A published manifest never changes."""

    schema_version: Literal[1] = 1
    name: str
    version: Number
    created_at: Moment
    run: FileName
    dataset: Dataset
    parameters: Parameters
    metrics: Metrics
    gates: tuple[Verdict, ...]
    profile: dict[str, Bins] = Field(default_factory=dict)
    recipe: Recipe
    files: dict[FileName, Sha256]

    @model_validator(mode="before")
    @classmethod
    def _from_before_recipes(cls, manifest: Any) -> Any:
        if isinstance(manifest, dict) and "recipe" not in manifest and isinstance(manifest.get("preprocessing"), dict):
            return manifest | {"recipe": recipes.of_old_manifest(manifest)}
        return manifest

    @model_validator(mode="after")
    def _of_a_whole_version(self) -> Self:
        for filename in (ONNX, METADATA, SAMPLE):
            if filename not in self.files:
                raise ValueError(f"files: {filename} is not listed")
        if len(set(self.dataset.class_names)) != len(self.dataset.class_names):
            raise ValueError("dataset.class_names: two of them are equal")
        return self
