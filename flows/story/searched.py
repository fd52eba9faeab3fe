"""What a search reports: every trial, the winner, and the retrain that came of it, if one was asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flows.story.report import RetrainReport
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Searched, Setting, Trial


class TuneReport(BaseModel):
    """A contract (README, "Command line"): fields are added, never renamed or removed."""

    model_config = ConfigDict(protected_namespaces=())

    schema_version: Literal[1] = 1
    model: str
    name: str
    outcome: Literal["tuned", "no better"] = "tuned"  # than the settings of before
    settings: dict[str, Setting]
    validation_losses: tuple[float, ...]  # one a seed
    default_settings: dict[str, Setting]
    default_losses: tuple[float, ...]
    num_validation: int
    trials: tuple[Trial, ...]
    path: str | None  # of tuned.json; None: nothing is kept
    seconds: dict[str, float]
    run: str
    retrained: RetrainReport | None = None

    @classmethod
    def of(cls, run: RunFolder, searched: Searched) -> "TuneReport":
        """The report of a search that has ended."""
        found = searched.tuned.model_dump(include=cls.model_fields.keys() - {"run", "schema_version"})
        if searched.tuned.is_better:
            found |= {"path": str(artifact_paths.tuned(run.name))}
        else:
            found |= {"path": None, "outcome": "no better"}
        return cls(**found, name=run.name, trials=searched.trials, seconds=run.read().seconds, run=str(run.path))

    @contextmanager
    def carried(self) -> Iterator[None]:
        """Let the error of the retrain carry what the search has found all the same."""
        try:
            yield
        except BaseException as error:
            error.searched = self  # type: ignore[attr-defined]
            raise
