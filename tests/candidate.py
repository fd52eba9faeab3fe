"""Stages as plain functions, and a model brought up to its publication without Prefect."""

from typing import Any

from tasks.evaluate import evaluate
from tasks.export import export
from tasks.parameters import Loss, RetrainParameters
from tasks.publish import publish
from tasks.records import Evaluation, ExportedModel, PreparedDataset, PublishedModel, TrainedModel
from tasks.run_folder import RunFolder
from tasks.train import train


def plain(stage: Any) -> Any:
    """The stage's function without Prefect, timing and notes."""
    return stage.__wrapped__


class Candidate:
    """A linear model brought through the stages up to export, to be published into any artifacts folder."""

    def __init__(self, run: RunFolder, prepared: PreparedDataset, seed: int) -> None:
        self.parameters = RetrainParameters.model_validate({"training": {"model": "linear-regression", "seed": seed}})
        training, bounds = self.parameters.training, self.parameters.gates
        self.run, self.prepared = run, prepared
        self.trained: TrainedModel = plain(train)(run, prepared, training)
        self.evaluated: Evaluation = plain(evaluate)(run, prepared, self.trained, bounds, Loss.SQUARED)
        self.exported: ExportedModel = plain(export)(run, prepared, self.trained, training, bounds)

    def publish(self) -> PublishedModel:
        published: PublishedModel = plain(publish)(
            self.run, self.parameters, self.prepared, self.trained, self.evaluated, self.exported
        )
        return published
