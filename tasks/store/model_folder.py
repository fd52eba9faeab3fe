"""The documents of a model's folder, typed, and the contents of the store.

Readers take no lock: versions never change, and the pointer is replaced atomically.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, model_validator

from tasks.data.recipe import Recipe
from tasks.errors import DataError, UsageError
from tasks.machine.words import suggest_spelling
from tasks.parameters import Hyperparameters, is_name
from tasks.records import GateVerdict, Refit, Splits, TableFit
from tasks.serving.contract import ModelMetadata, open_inference_metadata
from tasks.serving.drift import Histogram
from tasks.serving.task import TASKS
from tasks.store import artifact_paths, folders, verified_files
from tasks.store.artifact_paths import CHECKSUMS, EVALUATED_ONNX, MANIFEST, METADATA, ONNX, SAMPLE, VERSION
from tasks.store.documents import Document, RootDocument
from tasks.store.record_base import FileRef, Sha256


def _with_a_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a time zone")
    return text


Moment = Annotated[str, AfterValidator(_with_a_zone)]


def format_now(timespec: str = "seconds") -> str:
    """The current time as documents have it, to this unit."""
    return datetime.now(UTC).isoformat(timespec=timespec)


Number = Annotated[int, Field(ge=1, lt=10**9)]  # of a version; the bound is that of ``artifact_paths.VERSION``
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


class ExtensibleDocument(Document):
    """A document that keeps undeclared fields: other kinds of model, and newer versions of Gradmill, write more."""

    model_config = ConfigDict(extra="allow")


class ChampionPointer(RootDocument, extra="allow"):
    """``champion.json``: the version that consumers should use, and the versions that retrains must not bring back."""

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
    def named_versions(self) -> set[int]:
        """Every version that the pointer names: each of them was the champion once."""
        return {self.version, *self.held} | ({self.previous} if self.previous else set())


class RunTraining(ExtensibleDocument):
    """Which of the book's systems made a version, with which settings."""

    model: str
    implementation: str


class RunParameters(ExtensibleDocument):
    """The parameters that the run was given."""

    training: RunTraining
    name: str
    data: dict[str, Any]
    tuned: bool


class TrainingOutcome(Document):
    """What training actually did: examples used and held out, and the epoch whose weights were kept."""

    num_examples: int
    num_validation: int = 0
    num_epochs: int
    kept_epoch: int
    steps: Hyperparameters | None = None  # of own data: the values found for unset settings
    fit: TableFit | None = None  # of a table, from the releases with one solver for tables on
    refit: Refit | None = Field(None, exclude_if=lambda refit: refit is None)

    @property
    def shape(self) -> str:
        """The shape of a table's model; empty for others."""
        return self.fit.shape if self.fit else ""

    @property
    def refit_sentence(self) -> str:
        """What the published weights were fitted to, and what the figures are of; empty without a refit."""
        if self.refit is None:
            return ""
        rows = f"fitted on all {self.refit.num_examples:,} rows"
        return f"{rows}; the figures are those of the model fitted on the {self.num_examples:,} training rows"


class Metrics(ExtensibleDocument):
    """The figures of every listing, and others that depend on the task."""

    test_loss: NonNegativeFloat
    test_accuracy: float | None = Field(None, exclude_if=lambda value: value is None)


class Tolerances(Document):
    """How far another runtime may differ from the stored sample, and ONNX from the weights."""

    sample: float
    parity: float


class Lineage(RootDocument):
    """What a version was made of, by what, and how it was judged."""

    name: str
    created_at: Moment
    run: FileName
    dataset: Splits
    recipe: Recipe
    parameters: RunParameters
    device: str
    trained: TrainingOutcome
    platform: str
    packages: dict[str, str]
    code: str
    metrics: Metrics
    gates: tuple[GateVerdict, ...]
    best_version: Number | None = None  # the best version, by the comparison when it was published
    profile: dict[str, Histogram]
    tolerances: Tolerances

    @property
    def kind(self) -> str:
        """Which model it is: a table's shape, or the book's implementation."""
        return f"shape {self.trained.shape}" if self.trained.fit else self.parameters.training.implementation

    @model_validator(mode="after")
    def _whose_classes_differ(self) -> Self:
        if len(set(self.dataset.class_names)) != len(self.dataset.class_names):
            raise ValueError("dataset.class_names: two of them are equal")
        return self

    @model_validator(mode="after")
    def _whose_figures_are_those_of_its_task(self) -> Self:
        try:
            TASKS[self.dataset.task].summary(dict(self.metrics))
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"metrics: {error}") from error
        return self

    def describe_model(self, version: int) -> ModelMetadata:
        """The expected content of a version's ``metadata.json``, by recipe, task and classes."""
        signature = TASKS[self.dataset.task].signature(self.recipe, self.dataset.class_names)
        return open_inference_metadata(self.name, version, signature, self.recipe.describe_columns())


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
    def evaluated_file(self) -> FileName:
        """The ONNX file that the figures are of, and by which the version is compared: no test row was fitted."""
        return EVALUATED_ONNX if EVALUATED_ONNX in self.files else ONNX

    @property
    def metadata(self) -> ModelMetadata:
        """The expected content of ``metadata.json``."""
        return self.describe_model(self.version)

    @property
    def triton_config(self) -> str:
        """The text of ``config.pbtxt`` with which Triton serves only this version, in the folder as it is.

        The first dimension is part of the shapes (``max_batch_size: 0``), as in the ONNX file. Triton's types are those
        of the Open Inference Protocol with a prefix.
        """
        lines = [f'name: "{self.name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
        for kind, tensors in (("input", self.metadata.inputs), ("output", self.metadata.outputs)):
            for tensor in tensors:
                facts = f"data_type: TYPE_{tensor.datatype} dims: [ {', '.join(map(str, tensor.shape))} ]"
                lines.append(f'{kind} {{ name: "{tensor.name}" {facts} }}')
        return "\n".join([*lines, f"version_policy {{ specific {{ versions: [ {self.version} ] }} }}"]) + "\n"


# The contents of the store

R = TypeVar("R")


def list_names() -> list[str]:
    """Every model that has a folder; a folder whose name no model can have is not ours."""
    folder = artifact_paths.models()
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if is_name(path.name) and path.is_dir())


def list_versions(name: str) -> list[int]:
    """The numbers of the kept versions, ascending; none for an invalid name."""
    found = folders.list_named(VERSION, artifact_paths.model(name)) if is_name(name) else ()
    return sorted(int(path.name) for path in found)


def read_pointer(name: str) -> ChampionPointer | None:
    """The content of ``champion.json``, or None before the first publication.

    Raises:
        DataError: it is not a pointer as gradmill writes it.
    """
    return ChampionPointer.find(artifact_paths.champion(name), f"gradmill promote {name} VERSION")


def find_pointer(name: str) -> ChampionPointer | None:
    """The same as ``read_pointer``, but None also if it cannot be read."""
    with suppress(DataError):
        return read_pointer(name)
    return None


def find_champion(name: str) -> ChampionPointer | None:
    """The pointer to a version that exists, or None before the first publication.

    Raises:
        DataError: it is not a pointer as gradmill writes it, or it names a version that is not kept.
    """
    found = read_pointer(name)
    if found and found.version not in list_versions(name):
        found = read_pointer(name)  # the pointer may have moved on, and the version that it named been deleted
    if found is None or found.version in list_versions(name):
        return found
    kept = list_versions(name)
    promote = f"gradmill promote {name} {found.previous if found.previous in kept else kept[-1]}, or " if kept else ""
    raise DataError(
        f"{artifact_paths.champion(name)} names version {found.version}, and there is no "
        f"{artifact_paths.version(name, found.version)}",
        f"one of: {', '.join(map(str, kept)) or 'none is kept'}",
        f"{promote}restore the folder from a copy",
    )


def lost_pointer_error(name: str) -> DataError:
    """Versions are kept, but no pointer: it was lost, or the first publication was killed just before its end."""
    action = f"gradmill promote {name} {list_versions(name)[-1]}"
    return DataError(f"{artifact_paths.champion(name)} is missing", f"a pointer to a version of {name}", action)


def find_best_version(name: str) -> int | None:
    """The best version by the last comparison, as the newest version names it; None if none is named.

    Versions that were rolled back from neither count nor name one.

    Raises:
        DataError: a manifest that may name it is damaged.
    """
    pointer = find_champion(name)
    numbers = [number for number in list_versions(name) if pointer is None or number not in pointer.held]
    named = (find_manifest(name, number).best_version for number in reversed(numbers))
    return next((best for best in named if best in numbers), None)


def find_manifest(name: str, number: int) -> Manifest:
    """The manifest of one version; it raises as ``read_manifest`` does."""
    return read_manifest(artifact_paths.version(name, number))


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a version's folder, compared with its line in ``SHA256SUMS``.

    Raises:
        DataError: it is missing, or has changed since it was published.
    """
    path, action = folder / MANIFEST, advise_on_damage(folder)
    content, sums = verified_files.read_content(path, action), verified_files.read_content(folder / CHECKSUMS, action)
    if verified_files.checksums({MANIFEST: verified_files.sha256(content)}) not in sums:
        raise DataError(f"{path}, or its line in {CHECKSUMS}, has changed", "both as they were published", action)
    return Manifest.parse(content, path, action)


def read_file(folder: Path, filename: str) -> bytes:
    """A file of the version in a folder, checked against its digest in the manifest; use only the bytes returned.

    Raises:
        DataError: the file or the manifest is missing, or has changed since it was published.
    """
    listed = read_manifest(folder).files
    if filename not in listed:
        raise DataError(
            f"{folder / MANIFEST} lists no {filename}", "every file of the version", advise_on_damage(folder)
        )
    return verified_files.read(FileRef(path=folder / filename, sha256=listed[filename]), advise_on_damage(folder))


def advise_on_damage(folder: Path) -> str:
    """The advice on a damaged version."""
    name, number = folder.parts[-2:]
    return f"see gradmill verify {name} {number}; restore the folder from a copy, or promote another version"


def require_versions(name: str) -> list[int]:
    """The numbers of the kept versions of a model, at least one.

    Raises:
        UsageError: there is no such model.
    """
    if kept := list_versions(name):
        return kept
    raise unknown_model_error(name)


def unknown_model_error(name: str, others: Iterable[str] = ()) -> UsageError:
    """The error when no version of a model is kept; ``others`` are names that are accepted, too."""
    names = sorted({*others, *filter(list_versions, list_names())})
    run = re.compile(rf"\d{{8}}T\d{{6}}-{re.escape(name)}-[0-9a-f]{{8}}")
    has_runs = any(run.fullmatch(path.name) for path in artifact_paths.runs().glob("*"))
    to_do = suggest_spelling(name, names, "name one, another --artifacts, or train it: gradmill retrain")
    return UsageError(
        f"no model named {name} in {artifact_paths.models()}",
        f"one of: {', '.join(names)}" if names else "a model; there is none yet",
        f"see why its runs have published nothing: gradmill models {name} --runs" if has_runs else to_do,
    )


def resolve_version(name: str, number: int | None) -> int:
    """The version that was asked for, or the champion.

    Raises:
        UsageError: there is no such model or version.
        DataError: the pointer to the champion is damaged or lost.
    """
    kept = require_versions(name)
    if number in kept:
        return number
    if number is None and (current := find_champion(name)):
        return current.version
    if number is None:
        raise lost_pointer_error(name)
    known = ", ".join(map(str, kept))
    raise UsageError(f"{name} has no version {number}", f"one of: {known}", f"see gradmill models {name}")


def with_version(name: str, number: int | None, use: Callable[[int], R]) -> R:
    """The result of ``use`` for the version that was asked for, or for the champion.

    If the champion is pruned between reading the pointer and opening its files, it is looked up once more.

    Raises:
        UsageError: there is no such model or version.
    """
    found = resolve_version(name, number)
    try:
        return use(found)
    except (DataError, FileNotFoundError):
        if artifact_paths.version(name, found).is_dir():
            raise
        return use(resolve_version(name, number))


def load_model(name: str, number: int | None) -> tuple[int, bytes]:
    """The number and the ONNX file of the version that was asked for, or of the champion, as published.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged, or the pointer does not fit the champion.
    """
    return with_version(name, number, lambda found: (found, read_model(name, found)))


def read_model(name: str, number: int) -> bytes:
    """The ONNX file of a version; only these bytes, not a file opened later, are known to be what was published.

    Raises:
        DataError: it is damaged, or the pointer does not fit the champion.
    """
    path = artifact_paths.version(name, number) / ONNX
    content, current = read_file(path.parent, ONNX), read_pointer(name)
    if current and current.version == number and verified_files.sha256(content) != current.model_sha256:
        raise mismatch_error(name, path, current.model_sha256)
    return content


def read_evaluated_model(name: str, number: int) -> bytes:
    """The ONNX file of a version that its figures are of: that of its training part, if it was refit.

    Raises:
        DataError: a file is damaged, or the pointer does not fit the champion.
    """
    folder, published = artifact_paths.version(name, number), read_model(name, number)
    filename = read_manifest(folder).evaluated_file
    return published if filename == ONNX else read_file(folder, filename)


def mismatch_error(name: str, path: Path, sha256: str) -> DataError:
    """The error when the pointer has another digest than the champion's file at ``path``."""
    found = f"{artifact_paths.champion(name)} does not fit {path}"
    return DataError(found, f"SHA-256 {sha256}", f"see gradmill verify {name}; gradmill promote {name} VERSION")
