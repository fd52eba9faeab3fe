"""The results of retrains and searches: the documents of ``gradmill retrain --json`` and ``tune --json``."""

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from flows import interrupt
from tasks import records
from tasks.data.report import DataReport, Finding
from tasks.errors import DataError, EnvironmentProblem, GradmillError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, model_folder, verified_files
from tasks.store.model_folder import ChampionPointer
from tasks.store.record_base import FileRef
from tasks.store.run_folder import UNCHANGED, RunFolder, RunRecord, describe_outcome
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
    shape: str = ""  # of a table's model
    refit_rows: int | None = None  # rows that the published weights were fitted to, after the evaluated ones
    outcome: Literal["published", "unchanged", "refused", "judged"]
    detail: str = ""  # how it is known that the model is unchanged, or must not be published
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
    def kind(self) -> str:
        """Which model it is: a table's shape, or the book's implementation."""
        refit = f", refit on {self.refit_rows:,} rows" if self.refit_rows else ""
        return f"shape {self.shape}{refit}" if self.shape else self.implementation

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


def describe_retrain(run: RunFolder, parameters: RetrainParameters) -> RetrainReport:
    """The report on a judged candidate, by the run's record; one that was not published was refused.

    If nothing was trained, figures, gates and device are those of the version that stays.
    """
    record, training, name = run.read(), parameters.training, parameters.name
    published, champion = record.published, _champion(name)
    version = published and published.version
    model = published.model if published and version else None
    predicted = record.find_result("predict", records.Prediction)
    stays = model_folder.find_manifest(name, version) if UNCHANGED in record.stages and version else None
    trained, evaluated = record.stages.get("train", {}), record.stages.get("evaluate", {})
    refit = (stays.trained.model_dump() if stays else trained).get("refit") or {}
    return RetrainReport(
        model=training.model,
        name=name,
        implementation=training.implementation,
        refit_rows=refit.get("num_examples"),
        shape=(stays.trained.shape if stays else (trained.get("fit") or {}).get("shape", "")),
        outcome=published.outcome if published else "refused",
        detail=published.detail if published else "",
        version=version,
        champion=champion and champion.version,
        frozen=champion is not None and champion.frozen,
        model_path=model and str(model.path),
        model_sha256=model and model.sha256,
        metrics=stays.metrics.model_dump(mode="json") if stays else evaluated["metrics"],
        gates=list(stays.gates if stays else record.gates),
        prediction=predicted
        and PredictionSummary(path=str(predicted.path), rows=predicted.rows, version=predicted.version),
        mirror=record.find_result("mirror", records.MirroredModel),
        device=stays.device if stays else trained["device"],
        provider=predicted and predicted.provider,
        parameters=parameters.model_dump(mode="json"),
        seconds=record.seconds,
        run=str(run.path),
        data_changes=_list_data_changes(record),
    )


def _list_data_changes(record: RunRecord) -> list[Finding]:
    report = record.stages.get("validate", {}).get("report")
    if not report:
        return []
    file = FileRef.model_validate(report)
    return [*DataReport.parse(verified_files.read(file), file.path).changes]


def _champion(name: str) -> ChampionPointer | None:
    try:
        return model_folder.find_champion(name)
    except GradmillError:  # none yet, or a damaged pointer, which is reported where it is needed
        return None


@contextmanager
def attach_report(run: RunFolder, parameters: RetrainParameters) -> Iterator[None]:
    """Attach the run's ``report`` to its error if it has a result, a version or a refusal.

    So a user whose prediction failed or was interrupted also learns of the new champion.
    """
    try:
        yield
    except CancelledError:  # raised by its time limit, or when it has lost its slot
        from flows.pages.run_names import find_exceeded_limit  # not at the top: it imports Prefect

        with suppress(Exception):
            run.note_failure(EnvironmentProblem.exit_code, find_exceeded_limit())
        raise
    except Exception as error:
        with suppress(Exception):
            run.note_failure(getattr(error, "exit_code", 1))
        with suppress(Exception):  # a failed report must not hide why the run has failed
            if run.read().is_decided:
                error.report = describe_retrain(run, parameters)  # type: ignore[attr-defined]
        raise
    finally:
        with suppress(DataError, OSError):
            published, champion = run.read().published, _champion(parameters.name)
            if published and champion and champion.version == published.version:
                interrupt.note_achievement(f"{published.name} version {published.version} is the champion already")
