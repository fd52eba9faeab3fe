"""The parity gates: the exported file answers as the trained weights do, on the whole test split."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.judging import gates
from tasks.machine.words import counted, readable
from tasks.records import GateVerdict
from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES
from tasks.serving.task import TaskName

Array = NDArray[Any]
Answers = Mapping[str, Array]

MOST_COARSE = 1e-3  # deviations of a target, that rounding to float32 may take


class Parity(ABC):
    """Answers of the file beside what they should be, piece by piece."""

    def __init__(self) -> None:
        self.error = self.largest = 0.0  # of answers, and among scores
        self.smallest = np.inf
        self.num_rows = 0

    def add(self, found: Answers, o: Array) -> None:
        """A piece's answers ``(n, …)`` beside its scores ``o`` ``(n, outputs)``."""
        self.largest = float(
            np.maximum(self.largest, np.abs(o).max())
        )  # unlike max() it keeps NaN, which no gate passes
        self.smallest = float(np.minimum(self.smallest, np.abs(o).min()))
        self.error = float(np.maximum(self.error, self._differences(found, o).max()))
        self.num_rows += len(o)

    @abstractmethod
    def _differences(self, found: Answers, o: Array) -> Array:
        """How far each answer is from what these scores say."""

    @abstractmethod
    def verdicts(self, name: str, max_error: float, deviation: float, detail: str = "") -> tuple[GateVerdict, ...]:
        """The gate ``name``, which allows ``max_error`` (``deviation`` is that of a number to be predicted)."""


class OfRegression(Parity):
    """Predictions may differ by ``max_error`` deviations, and by two spacings of float32 at the largest prediction.

    The spacings leave room for a target that never changes. Of one that does, they may be no more than ``MOST_COARSE``
    deviations: where float32 tells its values apart no better, the model is of no use.
    """

    def _differences(self, found: Answers, o: Array) -> Array:
        difference: Array = np.abs(found[PREDICTION] - o.squeeze(1))
        return difference

    def verdicts(self, name: str, max_error: float, deviation: float, detail: str = "") -> tuple[GateVerdict, ...]:
        """One, of predictions."""
        finest, coarsest = (float(np.spacing(np.float32(each))) for each in (self.smallest, self.largest))
        most = MOST_COARSE * deviation if deviation > 1e-12 * self.largest else np.inf  # else it never changes
        tolerance = max_error * deviation + min(2 * coarsest, most)
        if self.error > tolerance and 2 * finest > most:
            detail = (
                f"; float32 tells predictions apart by {readable(finest, 3)} only: subtract an offset from the target"
            )
        return (
            gates.judge(
                name, self.error, maximum=tolerance, detail=f"predictions of {counted(self.num_rows, 'row')}{detail}"
            ),
        )


class OfClassification(Parity):
    """Probabilities may differ by ``max_error + 0.1·max_error·max|score|``.

    Labels must be equal unless the two best probabilities are closer than that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.leads: list[Array] = []  # of the best over the second best probability, where labels differ

    def _differences(self, found: Answers, o: Array) -> Array:
        powers = np.exp(o - o.max(axis=1, keepdims=True))
        expected = powers / powers.sum(axis=1, keepdims=True)
        second, best = np.partition(expected, -2, axis=1)[:, -2:].T
        self.leads.append((best - second)[found[LABEL] != expected.argmax(axis=1)])
        difference: Array = np.abs(found[PROBABILITIES] - expected)
        return difference

    def verdicts(self, name: str, max_error: float, deviation: float, detail: str = "") -> tuple[GateVerdict, ...]:
        """Two, of probabilities and of labels."""
        tolerance = max_error + 0.1 * max_error * self.largest
        flipped = sum(int((leads > tolerance).sum()) for leads in self.leads)
        differ = "labels that differ, near ties aside"
        return (
            gates.judge(
                name, self.error, maximum=tolerance, detail=f"probabilities of {counted(self.num_rows, 'row')}{detail}"
            ),
            gates.judge(f"{name}_labels", flipped, maximum=0, detail=differ),
        )


PARITY: dict[TaskName, type[Parity]] = {"classification": OfClassification, "regression": OfRegression}
