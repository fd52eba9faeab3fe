"""What is judged: a trained model with its test rows, and what exported ones answer."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import safetensors.numpy
import torch

from tasks.data.prepared_splits import Examples, read_split
from tasks.data.recipe import Columns
from tasks.fitting.splits import load_split, scores
from tasks.judging import standards
from tasks.judging.objective import Objective
from tasks.judging.standards import Standards
from tasks.machine.arrays import Array
from tasks.parameters import Training
from tasks.records import PreparedDataset, TrainedModel
from tasks.serving import folding
from tasks.store import verified

WHILE_TRAINING = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@dataclass(frozen=True)
class Candidate:
    """A trained model that no gate has passed yet; ``scores`` ``(n, outputs)`` are its on the test split.

    Of own tables they are in float64 and, of a regression, in raw units.
    """

    prepared: PreparedDataset
    trained: TrainedModel
    objective: Objective
    weights: dict[str, Array]
    test: Examples
    scores: Array
    standards: Standards | None  # of own data

    @classmethod
    def read(cls, prepared: PreparedDataset, trained: TrainedModel, training: Training) -> Self:
        """Read weights and test split, compute the scores, and of own data the losses to hold them against.

        Raises:
            DataError: a file is missing or has changed.
        """
        weights = safetensors.numpy.load(verified.read(trained.weights))
        objective = Objective.of(training, prepared, trained.steps)
        if prepared.is_own and isinstance(prepared.recipe, Columns):
            rows, folded = standards.read_rows(prepared.test, prepared), folding.fold(weights, prepared.recipe, float)
            found = standards.scores(folded, prepared.recipe, rows.features)
            test, held_against = Examples(rows.features, rows.truth), Standards.of(prepared, objective)
            return cls(prepared, trained, objective, weights, test, found, held_against)
        test, tensors = read_split(prepared.test, prepared), {n: torch.from_numpy(w) for n, w in weights.items()}
        found = scores(tensors, load_split(prepared, "test")).numpy()
        held = Standards.of(prepared, objective) if prepared.is_own else None
        return cls(prepared, trained, objective, weights, test, found, held)

    @property
    def held_against(self) -> Standards:
        """What own data's models are held against."""
        if self.standards is None:
            raise ValueError("the book's data have gates of their own")
        return self.standards

    @cached_property
    def losses(self) -> Array:
        """The loss of each test row ``(n,)`` by the objective without its penalty."""
        return self.objective.losses(self.scores, self.test.y_true)

    @property
    def while_training(self) -> dict[str, float]:
        """What was measured in the epoch whose weights were kept, but for the test split, which is measured anew."""
        kept = self.trained.kept
        measured = {name: getattr(kept, name) for name in WHILE_TRAINING}
        return {name: value for name, value in measured.items() if value is not None}


class Measured(NamedTuple):
    """An exported model's answers on the test split ``(n,)``, or of own data its losses.

    ``version`` is None for the candidate; ``is_new`` ``(n,)`` says on which rows a version was not trained, where it
    may have been on some.
    """

    version: int | None
    output: Array
    is_new: Array | None = None
