"""The parity gate: the exported file answers as the trained weights do, on the whole test split."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.judging import gates
from tasks.records import GateVerdict
from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES
from tasks.serving.task import TaskName

Array = NDArray[Any]
Answers = Mapping[str, Array]


def regression(found: Answers, o: Array, truth: Array, max_error: float) -> tuple[GateVerdict, ...]:
    """Scores ``o`` ``(n, 1)`` and ``prediction`` ``(n,)`` may differ by a little.

    By ``max_error`` standard deviations of the ``truth``, and two spacings of float32 at the largest prediction (which
    a target that never changes leaves room for).
    """
    prediction, expected = found[PREDICTION], o.squeeze(1)
    tolerance = max_error * float(truth.std(ddof=1, dtype=np.float64)) + 2 * float(np.spacing(np.abs(expected).max()))
    error = float(np.abs(prediction - expected).max())
    return (gates.judge("parity", error, maximum=tolerance, detail=f"predictions of {len(prediction)} rows"),)


def classification(found: Answers, o: Array, truth: Array, max_error: float) -> tuple[GateVerdict, ...]:
    """The softmax of scores ``o`` ``(n, classes)`` and ``probabilities`` may differ by a little.

    By ``max_error + 0.1·max_error·max|score|``; labels must be equal unless the two best probabilities are closer than
    that. ``truth`` does not matter.
    """
    probabilities, label = found[PROBABILITIES], found[LABEL]
    tolerance = max_error + 0.1 * max_error * float(np.abs(o).max())
    powers = np.exp(o - o.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    error = float(np.abs(probabilities - expected).max())
    second, best = np.partition(expected, -2, axis=1)[:, -2:].T
    flipped = int(((label != expected.argmax(axis=1)) & (best - second > tolerance)).sum())
    return (
        gates.judge("parity", error, maximum=tolerance, detail=f"probabilities of {len(label)} rows"),
        gates.judge("parity_labels", flipped, maximum=0, detail="labels that differ, near ties aside"),
    )


PARITY: dict[TaskName, Callable[[Answers, Array, Array, float], tuple[GateVerdict, ...]]] = {
    "classification": classification,
    "regression": regression,
}
