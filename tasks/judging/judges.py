"""Who judges a model of which task: modules of one shape, chosen here and nowhere else."""

from typing import Any, Protocol

from tasks.judging import classification, own_classification, own_regression, regression
from tasks.judging.candidate import Candidate, Measured
from tasks.judging.figures import Curves
from tasks.machine.arrays import Array
from tasks.parameters import Gates
from tasks.records import Epoch, GateVerdict, PreparedDataset
from tasks.serving.task import TaskName
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder


class Judge(Protocol):
    """What ``classification.py`` and ``regression.py`` have, and ``own_…py`` for own data."""

    @property
    def CURVES(self) -> Curves:  # noqa: N802  (a constant of a module)
        """What the learning curve shows."""

    def epoch(self, point: Epoch) -> str:
        """One epoch in the log."""

    def measure(self, candidate: Candidate) -> dict[str, Any]:
        """The metrics on the test split."""

    def sentence(self, measured: dict[str, Any]) -> str:
        """They, in the log."""

    def before_export(self, candidate: Candidate, measured: dict[str, Any], bounds: Gates) -> tuple[GateVerdict, ...]:
        """The gates on what was measured on the test split and while training."""

    def draw(self, candidate: Candidate, measured: dict[str, Any], run: RunFolder) -> tuple[FileRef, ...]:
        """Pictures, into the run's folder."""


class BookJudge(Judge, Protocol):
    """One of the book's data, of which every kept version was trained on the same rows."""

    def against_kept(
        self, ours: Measured, kept: list[Measured], truth: Array, class_names: tuple[str, ...], bounds: Gates
    ) -> tuple[GateVerdict, ...]:
        """The gates against kept versions, of which there is one at least; ``truth`` is ``(n,)``."""


JUDGES: dict[TaskName, BookJudge] = {"classification": classification, "regression": regression}
OWN: dict[TaskName, Judge] = {"classification": own_classification, "regression": own_regression}


def of(prepared: PreparedDataset) -> Judge:
    """Who judges a model of these data."""
    return (OWN if prepared.is_own else JUDGES)[prepared.task]
