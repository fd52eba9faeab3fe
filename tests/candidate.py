"""Stages as plain functions, and a model brought up to its publication without Prefect."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from tasks.data.prepared_splits import ValidatedDataset
from tasks.download import download
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.parameters import Data, RetrainParameters
from tasks.preprocess import preprocess
from tasks.publish import publish
from tasks.records import Evaluation, ExportedModel, PreparedDataset, PublishedModel, RawDataset, TrainedModel
from tasks.serving.drift import Drift
from tasks.serving.task import TaskName
from tasks.store import artifact_paths, atomic, model_folder
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST
from tasks.store.predictions import Job, JobInput, JobModel
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate


def plain(stage: Any) -> Any:
    """The stage's function without Prefect, timing and notes."""
    return stage.__wrapped__


def synthetic(run: RunFolder, seed: int = 0, **data: Any) -> PreparedDataset:
    """The book's synthetic data, prepared as a run does it."""
    raw = RawDataset(name="synthetic-linear", source="generated", files={})
    prepared: PreparedDataset = plain(preprocess)(run, ValidatedDataset(raw=raw), Data.model_validate(data), seed)
    return prepared


def prepare_own(run: RunFolder, data: Data, task: TaskName, kept: Any) -> PreparedDataset:
    """Own data, prepared as a run does it; ``kept`` is what they are bound to."""
    validated = plain(validate)(run, plain(download)(run, "own", data), data, task, kept)
    prepared: PreparedDataset = plain(preprocess)(run, validated, data, 0)
    return prepared


class Contender:
    """A linear model brought through the stages up to export, to be published into any artifacts folder.

    A ``source`` is where its data seem to have been read from; without it they are treated as the book's.
    """

    def __init__(
        self, run: RunFolder, prepared: PreparedDataset, seed: int, name: str = "", source: str = "", **options: Any
    ) -> None:
        training = {"model": "linear-regression", "seed": seed, **options}
        data = {"source": str(run.path / source), "target": "y"} if source else {}
        self.parameters = RetrainParameters.model_validate({"name": name, "training": training, "data": data})
        asked, bounds = self.parameters.training, self.parameters.gates
        self.run, self.prepared = run, prepared
        self.trained: TrainedModel = plain(train)(run, prepared, asked)
        self.prepared = prepared = self.trained.with_statistics(prepared)
        self.evaluated: Evaluation = plain(evaluate)(run, prepared, self.trained, asked, bounds)
        self.exported: ExportedModel = plain(export)(run, prepared, self.trained, asked, bounds)

    def publish(self) -> PublishedModel:
        splits = {"train": self.prepared.train, "test": self.prepared.test}
        prepared = self.prepared.model_copy(update={name: brought_here(file) for name, file in splits.items()})
        published: PublishedModel = plain(publish)(
            self.run, self.parameters, prepared, self.trained, self.evaluated, self.exported
        )
        return published


def job_document(model: str, version: int = 1, status: Literal["running", "done"] = "running") -> dict[str, Any]:
    """The document of a job that predicted nothing, with a version of ``model``."""
    job = Job(
        job="0" * 16,
        request="0" * 16,
        status=status,
        input=JobInput(path="rows.npy", digest="0" * 64, files=1, bytes=0),
        model=JobModel(name=model, version=version, sha256="0" * 64),
        provider="CPUExecutionProvider",
        batch_size=1,
        columns=(),
        started_at=model_folder.format_now("milliseconds"),
        rejects=0,
        drift=Drift(index={}, maximum=0.2, verdict="too few rows"),
    )
    return job.model_dump(mode="json")


def write_job(place: Path, model: str, version: int, **changes: Any) -> Path:
    """The document of such a job that is done, with ``changes``, in its folder."""
    return atomic.write_json(place / "_job.json", job_document(model, version, "done") | changes).path


def seal(folder: Path, manifest: dict[str, Any] | str) -> None:
    """Write a version's manifest, which never changes in earnest, and checksums in which its line fits."""
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    folder.chmod(0o755)
    sums = f"{hashlib.sha256(text.encode()).hexdigest()}  {MANIFEST}\n"
    for name, content in ((MANIFEST, text), (CHECKSUMS, sums)):
        (folder / name).chmod(0o644)
        (folder / name).write_text(content)


def brought_here(split: FileRef) -> FileRef:
    """A split in this test's own artifacts folder, where a run that publishes has it."""
    path = artifact_paths.dataset(split.path.parent.name) / split.path.name
    if not path.is_file():
        atomic.write_bytes(path, split.path.read_bytes())
    return FileRef(path=path, sha256=split.sha256)
