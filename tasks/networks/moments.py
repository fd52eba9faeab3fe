"""Mean and covariance of a table's inputs, one-hot slots of categories among them, and what undoes that covariance."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from tasks.networks import rank
from tasks.networks.effects import NONE, columns_of
from tasks.networks.examples import Examples

ROWS = 2**15  # encoded at once
CERTAIN = 1e-9  # of all variance: a larger ridge lets a covariance be inverted, which takes a fifth of its directions


@dataclass(frozen=True)
class Moments:
    """Mean ``(inputs,)``, covariance and variances, float64, of numbers and one-hot slots, which come last.

    Of very many inputs ``covariance`` ``(first, first)`` is that of the first, of the others there are ``variances``
    ``(others,)`` alone. Examples count by their class weight; ``weight`` is the mean of these. Singular values below
    the share ``least`` of the largest count as none. ``products`` ``(first,)`` is the covariance with a regression's
    target, and ``target_variance`` that target's own; of classes both are 0.
    """

    mean: Tensor
    covariance: Tensor
    variances: Tensor
    weight: float
    products: Tensor
    target_variance: float
    num_rows: int
    least: float = rank.COLLINEAR

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        variances, directions = torch.linalg.eigh(self.covariance)
        return variances, directions

    @property
    def spread(self) -> float:
        """The mean squared length of an example's inputs from their mean."""
        return float(self.covariance.trace() + self.variances.sum())

    def inverse(self, ridge: float, num_columns: int) -> "Inverse":
        """The inverse of the covariance and ``ridge`` times the identity.

        Without a ridge that counts, collinear directions are left out: from zero, steps then end at the answer of
        minimum norm.
        Where it is not known whole: of what is never less. A covariance is at most the sum of its diagonal blocks
        times their number: those of the first inputs together, and of every other of all ``num_columns``; and the
        block of a column's indicators is at most their frequencies.
        """
        first = len(self.covariance)
        blocks = (first > 0) + num_columns - first if len(self.variances) else 1
        if ridge > CERTAIN * self.spread:
            of_first = torch.linalg.inv(blocks * self.covariance + ridge * torch.eye(first).to(self.covariance))
        else:
            of_first = self._inverse_of_first(ridge, blocks)
        bound = blocks * (self.variances + self.weight * self.mean[first:] ** 2) + ridge
        return Inverse(of_first, torch.where(bound > 0, 1 / bound, 0.0))

    def _inverse_of_first(self, ridge: float, blocks: int) -> Tensor:
        variances, directions = self._spectrum
        largest = variances[-1:].sum()
        usable = variances > (self.least**2 * largest if ridge < rank.COLLINEAR**2 * largest else -ridge / 2)
        return (directions * torch.where(usable, 1 / (blocks * variances + ridge), 0.0)) @ directions.T

    def told(self, offsets: Tensor) -> "Moments":
        """The same with no more directions than float32 and the target tell apart, as ``rank.least`` says it."""
        least = rank.least(self._spectrum, self.products, self.target_variance, self.num_rows, offsets)
        return self if least == self.least else replace(self, least=least)

    def collinear(self, widths: list[int]) -> list[int]:
        """The inputs that others determine, constants aside; the last are indicators, ``widths`` of each column."""
        found = rank.determined(self._spectrum, self.least, widths)
        return [int(at) for at in torch.nonzero(found & (self.covariance.diagonal() > 0))]


@dataclass(frozen=True)
class Inverse:
    """Of a covariance of which a part is its diagonal: ``of_first`` ``(first, first)``, ``of_others`` ``(others,)``."""

    of_first: Tensor
    of_others: Tensor

    def to(self, like: Tensor) -> "Inverse":
        """The same where, and in the precision in which, another tensor is."""
        return Inverse(self.of_first.to(like), self.of_others.to(like))

    def __call__(self, gradient: Tensor) -> Tensor:
        """Its product with ``gradient`` ``(inputs, outputs)``."""
        first = len(self.of_first)
        if not len(self.of_others):
            return self.of_first @ gradient
        return torch.cat([self.of_first @ gradient[:first], self.of_others.unsqueeze(1) * gradient[first:]])


@torch.no_grad()
def moments(
    split: Examples,
    num_numbers: int,
    num_slots: int,
    class_weights: Tensor | None,
    first: int,
    pairs: Tensor = NONE,
) -> Moments:
    """The moments of a split, summed piece by piece; no one-hot matrix is ever made.

    Slots from ``num_slots`` on are none, and ``pairs`` are as ``effects`` has them.
    ``class_weights`` ``(classes,)``; ``first``: how many inputs have a covariance, all of them, the numbers or none.
    The target of a regression is summed as one more number, the first.
    """
    device, some, whole = split.device, num_slots + 1, first == num_numbers + num_slots
    ahead = int(split.y.is_floating_point())
    width, first = ahead + num_numbers + 1, ahead + first
    numbers = torch.zeros(width, width, dtype=torch.float64, device=device)
    cross = torch.zeros(some, width, dtype=torch.float64, device=device)
    together = torch.zeros(some * some if whole else 0, dtype=torch.float64, device=device)
    for piece in split.pieces(ROWS):
        ((X, *places),) = piece.in_order(len(piece))
        y = piece.y.double().unsqueeze(1)
        Z = torch.cat([y[:, :ahead], X.double(), torch.ones_like(y)], dim=1)
        w = Z[:, -1] if class_weights is None else class_weights.double()[piece.y]
        weighted = Z if class_weights is None else Z * w.unsqueeze(1)
        numbers += Z.T @ weighted
        columns = [column.clamp(max=num_slots) for each in places for at in each.T for column in columns_of(at, pairs)]
        for at, column in enumerate(columns):
            cross.index_add_(0, column, weighted)
            for other in columns[:at] if whole else ():
                together.index_add_(0, column * some + other, w)
    n, cross = len(split), cross[:-1]
    second, squares = numbers[:-1, :-1], torch.cat([numbers.diagonal()[:-1], cross[:, -1]])
    if whole:
        between = together.view(some, some)[:-1, :-1]
        slots_block = between + between.T + torch.diag(cross[:, -1])
        second = torch.cat([second, cross[:, :-1].T], dim=1)
        second = torch.cat([second, torch.cat([cross[:, :-1], slots_block], dim=1)])
    weight = numbers[-1, -1] / n
    mean = torch.cat([numbers[:-1, -1], cross[:, -1]]) / numbers[-1, -1]
    covariance = second[:first, :first] / n - torch.outer(mean[:first], mean[:first]) * weight
    variances, products = (squares / n - mean**2 * weight)[first:], covariance[:ahead].sum(dim=0)
    of_target = products[ahead:], float(products[:ahead].sum())
    return Moments(mean[ahead:], covariance[ahead:, ahead:], variances, float(weight), *of_target, n)
