"""Linear regression with squared loss needs no trials of its weight decay: every answer is known in closed form.

Along the directions of the inputs' covariance each answer of the path is a division, and what it would say of a row
that it had not seen follows from the row's leverage (Golub, Heath and Wahba, 1979).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from tasks.data.recipe import Columns
from tasks.fitting import rules, tables
from tasks.fitting.splits import load_split
from tasks.fitting.tuning.parts import TrialParts
from tasks.networks.effects import NONE, gathered
from tasks.networks.examples import Examples
from tasks.networks.moments import ROWS, moments
from tasks.networks.rank import COLLINEAR
from tasks.networks.tables import Table
from tasks.parameters import Loss, Training
from tasks.records import PreparedDataset

DECAYS = (0.0, *(10 ** (power / 4) for power in range(-24, 9)))  # of deviations: from next to none to next to no model
INDEPENDENT = ("rows", "copies")  # rules of a split by which one row may be left out without others
ALONE = 1e-9  # 1 less the leverage of a row that decides its own prediction: nothing is known of it without the row


@dataclass(frozen=True)
class Path:
    """Weight decays, and how good each is: half the mean squared error of unseen rows, in the target's units."""

    decays: tuple[float, ...]
    losses: tuple[float, ...]
    unseen: Literal["each row left out", "validation part"]
    num_unseen: int

    @property
    def decay(self) -> float:
        """That of the smallest loss."""
        return min(zip(self.losses, self.decays, strict=True))[1]


def best(
    data: TrialParts, prepared: PreparedDataset, training: Training, decays: tuple[float, ...] = DECAYS
) -> Path | None:
    """The ridge path, cross-validated: each training row left out, or, where rows go together, the validation part.

    The test split is not read. ``decays`` are of the mean of half the squared error: times the number of rows they are
    scikit-learn's ``alpha``. None: there is no such path for another loss, or for so many inputs that their covariance
    is not to be had.

    Raises:
        DataError: a file is missing or has changed since it was prepared.
    """
    recipe = prepared.recipe
    if training.loss is not Loss.SQUARED or not isinstance(recipe, Columns):
        return None
    num_slots = sum(recipe.columns[at].num_slots for at in recipe.categories)
    if len(recipe.numbers) + num_slots > rules.WHITENED_INPUTS:
        return None
    leaves_out = prepared.validation is None and (prepared.split is None or prepared.split.rule in INDEPENDENT)
    if leaves_out:
        fitted = unseen = _training_rows(prepared, data.train.device)
    else:
        fitted, unseen = data.train, data.test
    answers = _Answers.of(fitted, len(recipe.numbers), num_slots, torch.tensor(decays, dtype=torch.float64))
    unit = recipe.target.scale**2 if recipe.target else 1.0
    # A table's penalty goes with half the squared error, the book's with the loss of its implementation.
    factor = 1.0 if recipe.target else rules.loss_factor(training)
    return Path(
        decays=tuple(decay * factor for decay in decays),
        losses=tuple((answers.losses(unseen, leaves_out) * unit).tolist()),
        unseen="each row left out" if leaves_out else "validation part",
        num_unseen=len(unseen),
    )


def _training_rows(prepared: PreparedDataset, device: torch.device) -> Examples:
    if prepared.is_own:
        return tables.load(prepared, prepared.train, torch.float64).to(device)
    return load_split(prepared, "train").to(device)


@dataclass(frozen=True)
class _Answers:
    """All of a path: ``theta`` ``(inputs, decays)`` are weights along ``directions``, ``inverse`` the like of 1/cov."""

    num_rows: int
    num_numbers: int
    pairs: Tensor  # of categories, as ``effects`` has them
    directions: Tensor  # (inputs, inputs), and behind them what an unknown code of each category has on average
    mean: Tensor  # along the directions
    mean_target: Tensor
    inverse: Tensor
    theta: Tensor

    @classmethod
    def of(cls, split: Examples, num_numbers: int, num_slots: int, decays: Tensor) -> "_Answers":
        pairs = split.encoding.pairs if isinstance(split, Table) else NONE
        inputs = moments(split, num_numbers, num_slots, None, num_numbers + num_slots, pairs)
        variances, directions = torch.linalg.eigh(inputs.covariance)
        damped = variances.unsqueeze(1) + decays.to(variances.device)
        inverse = torch.where(damped > COLLINEAR**2 * variances[-1:], 1 / damped, 0.0)
        mean, mean_target = inputs.mean @ directions, split.y.double().mean()
        if isinstance(split, Table):
            of_unknown = split.encoding.frequencies @ directions[num_numbers:]
            directions = torch.cat([directions, of_unknown])
        answers = cls(len(split), num_numbers, pairs, directions, mean, mean_target, inverse, inverse)
        with_target = reduce(torch.add, (Z.T @ (y - mean_target) for Z, y in answers.along(split))) / len(split)
        return replace(answers, theta=inverse * with_target.unsqueeze(1))

    def along(self, split: Examples) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows less their mean along the directions ``(n, inputs)``, and their truth; float64, piece by piece."""
        W, effects = self.directions[: self.num_numbers], self.directions[self.num_numbers :]  # noqa: N806
        for piece in split.pieces(ROWS):
            ((X, *places),) = piece.in_order(len(piece))  # noqa: N806  (the book's letter)
            Z = X.double() @ W - self.mean  # noqa: N806
            yield Z + gathered(effects, self.pairs, places[0]) if places else Z, piece.y.double()

    def losses(self, unseen: Examples, leaves_out: bool) -> Tensor:
        """Half the mean squared error of each answer ``(decays,)``, by rows unseen or left out."""
        total = torch.zeros_like(self.theta[0])
        for Z, y in self.along(unseen):  # noqa: N806
            residual = (y - self.mean_target).unsqueeze(1) - Z @ self.theta
            if leaves_out:
                others = 1 - (1 + Z.square() @ self.inverse) / self.num_rows
                residual = torch.where(others > ALONE, residual / others, torch.inf)
            total += residual.square().sum(dim=0)
        return total / len(unseen) / 2
