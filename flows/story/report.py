"""What a retrain came to: the document that ``gradmill retrain --json`` prints."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flows import interrupt
from tasks.errors import GateFailed, GradmillError
from tasks.records import GateVerdict, MirroredModel, Prediction, PublishedModel
from tasks.store import reading
from tasks.store.run_folder import RunFolder


class PredictionSummary(BaseModel):
    """Where the predictions went, and which version made them: the champion, be it this run's version or not."""

    path: str
    rows: int
    version: int


class RetrainReport(BaseModel):
    """A contract (README, "JSON"): fields are added, never renamed or removed.

    ``champion`` is the version that consumers should use when the run ends: the newest that passed the gates, until
    somebody promotes or rolls back. After ``unchanged`` it may be another than ``version``.
    """

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    model: str
    name: str
    implementation: str
    outcome: Literal["published", "unchanged", "refused"]
    version: int | None
    champion: int | None
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
        champion=_champion(noted.parameters["name"]),
        model_path=str(published.model.path) if published else None,
        model_sha256=published.model.sha256 if published else None,
        metrics=stages["evaluate"]["metrics"],
        gates=[GateVerdict.model_validate(gate) for stage in stages.values() for gate in stage.get("gates", [])],
        prediction=prediction and _summary(prediction),
        mirror=stages.get("mirror"),
        device=stages["train"]["device"],
        provider=prediction and prediction.provider,
        seconds=noted.seconds,
        run=str(run.path),
    )


def _summary(prediction: Prediction) -> PredictionSummary:
    return PredictionSummary(path=str(prediction.path), rows=prediction.rows, version=prediction.version)


def _champion(name: str) -> int | None:
    try:
        return reading.resolve(name, None)
    except GradmillError:  # none yet, or the pointer is damaged, which is for those to say who need it
        return None


@contextmanager
def reported(run: RunFolder) -> Iterator[None]:
    """Let the error of a run that has come to something, a version or a refusal, carry the run's ``report``.

    So whoever sees that the prediction has failed, or interrupts it, sees also that there is another champion.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, GateFailed) or "version" in run.read().stages.get("publish", {}):
            with suppress(Exception):  # what cannot be reported must not hide why the run has failed
                error.report = report(run)  # type: ignore[attr-defined]
        raise
    finally:
        with suppress(Exception):  # of a run that has not come so far
            noted = run.read()
            name, version = noted.parameters["name"], noted.stages["publish"]["version"]
            if version == _champion(name):
                interrupt.achieved(f"{name} version {version} is the champion already")
