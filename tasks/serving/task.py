"""How the two kinds of model differ, in one place: targets, outputs, what is watched, how results are described.

How each is measured, judged and drawn is in ``tasks/judging/task.py``.
"""

from __future__ import annotations  # for array annotations, which commands that only look at the store need not import

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tasks.machine.words import format_number
from tasks.serving.contract import LABEL, PREDICTION, PROBABILITIES, Signature, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.data.recipe import Recipe

TaskName = Literal["classification", "regression"]
LABEL_NAME = "label_name"
Outputs = Mapping[str, "NDArray[Any]"]  # the outputs of a model, by name; rows come last: (n,) or (classes, n)


class Task(ABC):
    """A kind of model."""

    name: ClassVar[TaskName]
    model: ClassVar[str]  # the book's model that does this task
    target: ClassVar[str]  # the name of the truth in a prepared split
    answer: ClassVar[str]  # the output that is compared with the truth
    is_counted: ClassVar[bool]  # whether an answer is simply right or wrong, with nothing in between
    loss_unit: ClassVar[str]
    # The metric by which Hugging Face lists a model: its name there, a factor, and which of our metrics it multiplies.
    hub_metric: ClassVar[tuple[str, int, str]]

    def signature(self, recipe: Recipe, class_names: Sequence[str]) -> Signature:
        """The inputs, which ``recipe`` makes, and the outputs of a model of this kind."""
        return Signature(inputs=(recipe.input,), outputs=self.outputs(len(class_names)))

    @abstractmethod
    def outputs(self, num_classes: int) -> tuple[Tensor, ...]:
        """The outputs of a model of this kind (``num_classes`` is 0 for a regression)."""

    def list_observed(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """What is watched for drift, by name; each ``(n,)``."""
        return {self.answer: outputs[self.answer]}

    def columns(self, outputs: Outputs, class_names: Sequence[str], has_all: bool = True) -> dict[str, NDArray[Any]]:
        """The columns ``(n,)`` of a table of answers; ``LABEL_NAME`` has numbers that stand for the class names.

        Probabilities are included where ``has_all`` is true.
        """
        return {self.answer: outputs[self.answer]}

    @abstractmethod
    def summary(self, metrics: Mapping[str, Any]) -> str:
        """How good a model is, in a few words."""


class Classification(Task):
    """Predicts one of several classes."""

    name = "classification"
    model = "softmax-regression"
    target, answer, is_counted = "labels", LABEL, True
    loss_unit = "cross-entropy in nats"
    hub_metric = "accuracy", 1, "test_accuracy"

    def outputs(self, num_classes: int) -> tuple[Tensor, ...]:
        """Probabilities of the classes, and the label."""
        return (
            Tensor(name=PROBABILITIES, dtype="float32", shape=(num_classes,)),
            Tensor(name=LABEL, dtype="int64", shape=()),
        )

    def list_observed(self, outputs: Outputs) -> dict[str, NDArray[Any]]:
        """Label and confidence."""
        return super().list_observed(outputs) | {"confidence": outputs[PROBABILITIES].max(axis=0)}

    def columns(self, outputs: Outputs, class_names: Sequence[str], has_all: bool = True) -> dict[str, NDArray[Any]]:
        """The label, its name and one probability per class."""
        import numpy as np

        names = outputs[LABEL].astype(np.int8 if len(class_names) <= np.iinfo(np.int8).max else np.int32)
        probabilities = zip(class_names, outputs[PROBABILITIES], strict=True)
        found = {f"probability_{name}": each for name, each in probabilities if has_all}
        return super().columns(outputs, class_names) | {LABEL_NAME: names} | found

    def summary(self, metrics: Mapping[str, Any]) -> str:
        """Accuracy."""
        return f"test accuracy {metrics['test_accuracy']:.4f}"


class Regression(Task):
    """Predicts a number."""

    name = "regression"
    model = "linear-regression"
    target, answer, is_counted = "target", PREDICTION, False
    loss_unit = "half the mean squared error"
    hub_metric = "mse", 2, "test_loss"

    def outputs(self, num_classes: int) -> tuple[Tensor, ...]:
        """The prediction, in raw units of the target."""
        return (Tensor(name=PREDICTION, dtype="float32", shape=()),)

    def summary(self, metrics: Mapping[str, Any]) -> str:
        """For the user's own data, how good the model is; for the book's data, the loss and what was learned."""
        if "r2" in metrics:
            return f"R² {metrics['r2']:.4f}, root mean squared error {format_number(metrics['rmse'])}"
        loss = f"test loss {format_number(metrics['test_loss'], 3)}"
        if "weights" not in metrics:
            return loss
        return f"{loss}, weights {', '.join(f'{each:.4f}' for each in metrics['weights'])}, bias {metrics['bias']:.4f}"


TASKS: dict[TaskName, Task] = {task.name: task for task in (Classification(), Regression())}


def find_task(model: str) -> Task:
    """The task that one of the book's models does."""
    return next(task for task in TASKS.values() if task.model == model)
