"""What the two kinds of model differ in, asked in one place: targets, outputs, and what is watched for drift.

How each is measured, judged and drawn is in ``tasks/judging/classification.py`` and ``regression.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES, Signature, Tensor

TaskName = Literal["classification", "regression"]


class Task(ABC):
    """A kind of model."""

    name: ClassVar[TaskName]
    target: ClassVar[str]  # what a prepared split calls the truth
    answer: ClassVar[str]  # the output that is compared with the truth

    @abstractmethod
    def outputs(self, num_classes: int) -> tuple[Tensor, ...]:
        """The outputs of a model of this kind (``num_classes`` is 0 of a regression)."""

    @abstractmethod
    def observed(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What is watched for drift of outputs whose rows come last, by name; each ``(n,)``."""


class Classification(Task):
    """One of several classes."""

    name = "classification"
    target, answer = "labels", LABEL

    def outputs(self, num_classes: int) -> tuple[Tensor, ...]:
        """Probabilities of the classes, and the label."""
        return (
            Tensor(name=PROBABILITIES, dtype="float32", shape=(num_classes,)),
            Tensor(name=LABEL, dtype="int64", shape=()),
        )

    def observed(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Label and confidence."""
        return {LABEL: outputs[LABEL], "confidence": outputs[PROBABILITIES].max(axis=0)}


class Regression(Task):
    """A number."""

    name = "regression"
    target, answer = "target", PREDICTION

    def outputs(self, num_classes: int) -> tuple[Tensor, ...]:
        """The prediction, in raw units of the target."""
        return (Tensor(name=PREDICTION, dtype="float32", shape=()),)

    def observed(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The prediction."""
        return {PREDICTION: outputs[PREDICTION]}


TASKS: dict[TaskName, Task] = {task.name: task for task in (Classification(), Regression())}


def of_signature(signature: Signature) -> Task:
    """The task of a model that is served."""
    names = {tensor.name for tensor in signature.outputs}
    return next(task for task in TASKS.values() if task.answer in names)
