"""What is judged: a trained model with its splits, and what exported ones answer."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.fitting.splits import load_split, scores
from tasks.networks.training import Split
from tasks.parameters import Loss
from tasks.records import PreparedDataset, TrainedModel
from tasks.store import verified

WHILE_TRAINING = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Candidate:
    """A trained model that no gate has passed yet; ``scores`` ``(n, outputs)`` float32 are its on the test split."""

    prepared: PreparedDataset
    trained: TrainedModel
    loss: Loss  # that training minimised
    weights: dict[str, Tensor]
    test: Split
    scores: Tensor

    @classmethod
    def read(cls, prepared: PreparedDataset, trained: TrainedModel, loss: Loss) -> Self:
        """Read weights and test split, and compute the scores.

        Raises:
            DataError: a file is missing or has changed.
        """
        weights, test = safetensors.torch.load(verified.read(trained.weights)), load_split(prepared, "test")
        return cls(prepared, trained, loss, weights, test, scores(weights, test))

    @property
    def while_training(self) -> dict[str, float]:
        """What was measured in the epoch whose weights were kept, but for the test split, which is measured anew."""
        kept = self.trained.kept
        measured = {name: getattr(kept, name) for name in WHILE_TRAINING}
        return {name: value for name, value in measured.items() if value is not None}


class Measured(NamedTuple):
    """An exported model's answers on the test split ``(n,)``; ``version`` is None for the candidate."""

    version: int | None
    output: NDArray[Any]
