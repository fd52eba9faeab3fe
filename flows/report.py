"""What a retrain came to: the document that ``gradmill retrain --json`` prints."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tasks.records import GateVerdict, MirroredModel, Prediction, PublishedModel
from tasks.run_folder import RunFolder


class PredictionSummary(BaseModel):
    """Where the predictions went."""

    path: str
    rows: int


class RetrainReport(BaseModel):
    """A contract (README, "JSON"): fields are added, never renamed or removed."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    model: str
    name: str
    implementation: str
    outcome: Literal["published", "unchanged", "refused"]
    version: int | None
    model_path: str | None
    model_sha256: str | None
    metrics: dict[str, Any]
    gates: list[GateVerdict]
    prediction: PredictionSummary | None
    mirror: MirroredModel | None
    device: str
    provider: str | None
    seconds: dict[str, float]
    run: str


def report(run: RunFolder) -> RetrainReport:
    """Assemble the report from what the stages noted; a run without a publication was refused."""
    noted = run.read()
    stages, training = noted.stages, noted.parameters["training"]
    noted_publication = stages.get("publish", {})
    published = PublishedModel.model_validate(noted_publication) if "version" in noted_publication else None
    prediction = Prediction.model_validate(stages["predict"]) if "predict" in stages else None
    return RetrainReport(
        model=training["model"],
        name=noted.parameters["name"],
        implementation=training["implementation"],
        outcome=published.outcome if published else "refused",
        version=published.version if published else None,
        model_path=str(published.model.path) if published else None,
        model_sha256=published.model.sha256 if published else None,
        metrics=stages["evaluate"]["metrics"],
        gates=[GateVerdict.model_validate(gate) for stage in stages.values() for gate in stage.get("gates", [])],
        prediction=prediction and PredictionSummary(path=str(prediction.path), rows=prediction.rows),
        mirror=stages.get("mirror"),
        device=stages["train"]["device"],
        provider=prediction and prediction.provider,
        seconds=noted.seconds,
        run=str(run.path),
    )
