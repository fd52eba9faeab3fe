"""The documents of a model's folder, typed: the pointer, what it cannot tell, and each version's manifest."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tasks.data.recipe import Recipe
from tasks.parameters import Hyperparameters
from tasks.records import GateVerdict, Splits
from tasks.serving.contract import ModelMetadata, open_inference_metadata
from tasks.serving.drift import Histogram
from tasks.serving.task import TASKS
from tasks.store.artifact_paths import METADATA, ONNX, SAMPLE
from tasks.store.documents import Document
from tasks.store.record import Sha256


def _with_a_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Moment = Annotated[str, AfterValidator(_with_a_zone)]
Number = Annotated[int, Field(ge=1, lt=10**9)]  # of a version; the bound is that of ``names.VERSION``
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class Extensible(Document):
    """A document that keeps what is not declared here: other kinds of model, and newer versions, note more."""

    model_config = ConfigDict(extra="allow")


class ChampionPointer(Extensible):
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


class Training(Extensible):
    """Which of the book's systems made a version, and with which settings."""

    model: str
    implementation: str


class Parameters(Extensible):
    """What the run was asked for."""

    training: Training


class Trained(Document):
    """What training really did: examples, those held out to watch, and the epoch whose weights were kept."""

    num_examples: int
    num_validation: int = 0
    num_epochs: int | None = None  # of training that goes by epochs
    kept_epoch: int | None = None
    steps: Hyperparameters | None = None  # of own data: what became of settings that they decide
    collinear: tuple[str, ...] = ()  # columns that others determine


class Metrics(Extensible):
    """The figures: those of every listing, and more that differ from task to task."""

    test_loss: float
    test_accuracy: float | None = None

    @model_serializer(mode="wrap")
    def _only_what_was_measured(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialized(self).items() if name in self.model_fields_set}


class Tolerances(Document):
    """What another runtime may differ by from the stored sample, and ONNX from torch."""

    sample: float | None = None
    parity: float | None = None


class Lineage(Document):
    """What a version was made of, by what, and how it was judged. What has a default was not noted at first."""

    schema_version: Literal[1] = 1
    name: str
    created_at: Moment
    run: FileName
    dataset: Splits
    recipe: Recipe
    parameters: Parameters
    device: str = ""
    trained: Trained | None = None
    platform: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    code: str = ""
    metrics: Metrics
    gates: tuple[GateVerdict, ...]
    best_version: Number | None = None  # that did best beside this one when it was compared with all that were kept
    profile: dict[str, Histogram] = Field(default_factory=dict)
    tolerances: Tolerances | None = None

    @model_validator(mode="after")
    def _whose_classes_differ(self) -> Self:
        if len(set(self.dataset.class_names)) != len(self.dataset.class_names):
            raise ValueError("dataset.class_names: two of them are equal")
        return self


class Manifest(Lineage):
    """``manifest.json``: a version's lineage and its files. A published manifest never changes."""

    version: Number
    files: dict[FileName, Sha256]

    @model_validator(mode="after")
    def _of_a_whole_version(self) -> Self:
        for filename in (ONNX, METADATA, SAMPLE):
            if filename not in self.files:
                raise ValueError(f"files: {filename} is not listed")
        return self

    @property
    def metadata(self) -> ModelMetadata:
        """What ``metadata.json`` must say, by recipe, task and classes."""
        signature = TASKS[self.dataset.task].signature(self.recipe, self.dataset.class_names)
        return open_inference_metadata(self.name, self.version, signature, self.recipe.describe_columns())
