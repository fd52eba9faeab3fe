"""The results of retrains and searches: the documents of ``gradmill retrain --json`` and ``tune --json``."""

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flows import interrupt
from tasks import records
from tasks.data.prepared_splits import ValidatedDataset
from tasks.data.report import DataReport, Finding
from tasks.errors import EnvironmentProblem, GateFailed, GradmillError
from tasks.machine.settings import Settings
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, model_folder, verified_files
from tasks.store.model_folder import ChampionPointer, Manifest
from tasks.store.record_base import FileRef, Record
from tasks.store.run_folder import RunFolder, describe_outcome
from tasks.store.tuning_result import SearchResult, Setting, Trial


class PredictionSummary(BaseModel):
    """Where the predictions are, and which version made them: the champion, which may not be this run's version."""

    path: str
    rows: int
    version: int


class RetrainReport(BaseModel):
    """A contract (README, "Command line"): fields are added, never renamed or removed.

    ``champion`` is the version that consumers should use when the run ends: the newest that passed the gates, until
    somebody promotes or rolls back. After ``unchanged`` it may be another than ``version``. While it is ``frozen``, no
    retrain changes it.
    """

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    model: str
    name: str
    implementation: str
    outcome: Literal["published", "unchanged", "refused", "judged"]
    detail: str = ""  # of ``unchanged``: how this is known
    version: int | None
    champion: int | None
    frozen: bool = False
    model_path: str | None
    model_sha256: str | None
    metrics: dict[str, Any]
    gates: list[records.GateVerdict]
    prediction: PredictionSummary | None
    mirror: records.MirroredModel | None
    device: str
    provider: str | None
    parameters: dict[str, Any]
    seconds: dict[str, float]
    run: str
    data_changes: list[Finding] = []  # differences from earlier data

    @property
    def was_trained(self) -> bool:
        """Whether there was a candidate; there is none if the data are unchanged."""
        return "train" in self.seconds

    @property
    def refused_by(self) -> list[str]:
        """The names of the gates that refused the candidate."""
        return [gate.name for gate in self.gates if not gate.passed]

    def describe(self) -> str:
        """What became of the candidate, in one line."""
        words = describe_outcome(self.outcome, self.version, ", ".join(self.refused_by))
        return f"{words}, {self.detail}" if self.detail else words


class TuneReport(BaseModel):
    """A contract (README, "Command line"): fields are added, never renamed or removed."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    model: str
    name: str
    outcome: Literal["tuned", "no better"] = "tuned"  # than the previous settings
    settings: dict[str, Setting]
    validation_losses: tuple[float, ...]  # one per seed
    default_settings: dict[str, Setting]
    default_losses: tuple[float, ...]
    num_validation: int
    trials: tuple[Trial, ...]
    path: str | None  # of tuned.json; None: nothing was kept
    seconds: dict[str, float]
    run: str
    retrained: RetrainReport | None = None

    @classmethod
    def describe(cls, run: RunFolder, searched: SearchResult) -> "TuneReport":
        """The report of a finished search."""
        found = searched.tuned.model_dump(include=cls.model_fields.keys() - {"run", "schema_version"})
        if searched.tuned.is_better:
            found |= {"path": str(artifact_paths.tuned(run.name))}
        else:
            found |= {"path": None, "outcome": "no better"}
        return cls(**found, name=run.name, trials=searched.trials, seconds=run.read().seconds, run=str(run.path))

    @contextmanager
    def carry_search(self) -> Iterator[None]:
        """Attach the result of the search, with that of the retrain if there is one, to an error of the retrain."""
        try:
            yield
        except BaseException as error:
            retrained = getattr(error, "report", None)
            error.report = self.model_copy(update={"retrained": retrained})  # type: ignore[attr-defined]
            raise


@dataclass
class Outcome:
    """The results of a retrain's stages so far, refused or not."""

    run: RunFolder
    parameters: RetrainParameters
    trained: records.TrainedModel | None = None
    evaluated: records.Evaluation | None = None
    exported: records.ExportedModel | None = None
    compared: records.ChampionGates | None = None
    published: records.PublishedModel | None = None
    mirrored: records.MirroredModel | None = None
    predicted: records.Prediction | None = None
    validated: ValidatedDataset | None = None

    def record_refusal(self, record: Record) -> None:
        """Add the record of the stage that refused the candidate."""
        if isinstance(record, records.Evaluation):
            self.evaluated = record
        elif isinstance(record, records.ExportedModel):
            self.exported = record
        elif isinstance(record, records.ChampionGates):
            self.compared = record

    @property
    def gates(self) -> list[records.GateVerdict]:
        """Every verdict on the candidate, in the order of the stages."""
        judged = (self.evaluated, self.exported, self.compared, self.published)
        found = [verdict for each in judged if each is not None for verdict in each.gates]
        return found if self._kept_manifest is None else list(self._kept_manifest.gates)

    @property
    def _kept_manifest(self) -> Manifest | None:
        """The manifest of the version that stays if nothing was trained."""
        stays = self.published if self.trained is None else None
        return model_folder.find_manifest(stays.name, stays.version) if stays and stays.version else None

    @property
    def is_decided(self) -> bool:
        """Whether the candidate went through all gates, or was refused."""
        return self.published is not None or not all(gate.passed for gate in self.gates)

    @property
    def pictures(self) -> list[FileRef]:
        """Every picture that the stages drew; those of reused stages are in the folder of the run that drew them."""
        drawn = [self.trained.picture] if self.trained else []
        return drawn + list(self.evaluated.pictures if self.evaluated else ())

    def report(self) -> RetrainReport:
        """The report on a judged candidate; one that was not published was refused.

        If nothing was trained, figures, gates and device are those of the version that stays.
        """
        training, published, predicted = self.parameters.training, self.published, self.predicted
        kept, champion = published if published and published.version else None, _champion(self.parameters.name)
        metrics, device = self._metrics_and_device()
        summary = predicted and PredictionSummary(
            path=str(predicted.path), rows=predicted.rows, version=predicted.version
        )
        return RetrainReport(
            model=training.model,
            name=self.parameters.name,
            implementation=training.implementation,
            outcome=published.outcome if published else "refused",
            detail=published.detail if published else "",
            version=kept and kept.version,
            champion=champion and champion.version,
            frozen=champion is not None and champion.frozen,
            model_path=kept and str(kept.model.path),
            model_sha256=kept and kept.model.sha256,
            metrics=metrics,
            gates=self.gates,
            prediction=summary,
            mirror=self.mirrored,
            device=device,
            provider=predicted and predicted.provider,
            parameters=self.parameters.model_dump(mode="json"),
            seconds=self.run.read().seconds,
            run=str(self.run.path),
            data_changes=self._data_changes(),
        )

    def _metrics_and_device(self) -> tuple[dict[str, Any], str]:
        if kept := self._kept_manifest:
            return kept.metrics.model_dump(mode="json"), kept.device
        if self.trained is None or self.evaluated is None:
            raise ValueError("no candidate was judged")
        return self.evaluated.metrics, self.trained.device

    def _data_changes(self) -> list[Finding]:
        report = self.validated and self.validated.report
        return [*DataReport.parse(verified_files.read(report), report.path).changes] if report else []


def _champion(name: str) -> ChampionPointer | None:
    try:
        return model_folder.find_champion(name)
    except GradmillError:  # none yet, or a damaged pointer, which is reported where it is needed
        return None


@contextmanager
def attach_report(outcome: Outcome) -> Iterator[None]:
    """Attach the run's ``report`` to its error if it has a result, a version or a refusal.

    So a user whose prediction failed or was interrupted also learns of the new champion.
    """
    try:
        yield
    except CancelledError:  # raised by its time limit
        with suppress(Exception):
            limit = Settings().time_limit
            outcome.run.note_failure(EnvironmentProblem.exit_code, limit.total_seconds() if limit else None)
        raise
    except Exception as error:
        with suppress(Exception):
            outcome.run.note_failure(getattr(error, "exit_code", 1))
        if isinstance(error, GateFailed):
            outcome.record_refusal(error.record)
        if outcome.is_decided:
            with suppress(Exception):  # a failed report must not hide why the run has failed
                error.report = outcome.report()  # type: ignore[attr-defined]
        raise
    finally:
        if published := outcome.published:
            with suppress(OSError):
                champion = _champion(published.name)
                if champion and champion.version == published.version:
                    interrupt.note_achievement(f"{published.name} version {published.version} is the champion already")
