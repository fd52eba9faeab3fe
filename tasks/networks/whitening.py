"""Steps that are as long as they should be in every direction, whatever the columns of a table have to do with another.

The covariance of the inputs is the squared loss's curvature and bounds that of the others, up to a constant. SGD on
weights V of *whitened* inputs, whose covariance is the identity, converges as fast as on the book's synthetic data.
With ``W = R.T V``, a step of V is a step of W against ``R.T R`` times its gradient, and ``R.T R`` is the inverse of the
covariance: so networks keep the weights of the inputs as they are, and their optimizer multiplies gradients.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tasks.networks.examples import Examples
from tasks.networks.training import Network, Optimizer

ROWS = 2**15  # encoded at once
COLLINEAR = 1e-5  # singular values below this share of the largest count as none


@dataclass(frozen=True)
class Moments:
    """Mean ``(inputs,)`` and covariance ``(inputs, inputs)``, float64, of numbers and one-hot slots.

    Of very many inputs ``covariance`` is its diagonal alone, ``(inputs,)``. Examples count by their class weight;
    ``weight`` is the mean of these.
    """

    mean: Tensor
    covariance: Tensor
    weight: float

    @property
    def is_whole(self) -> bool:
        """Whether the covariance is more than its diagonal."""
        return self.covariance.dim() == 2

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        variances, directions = torch.linalg.eigh(self.covariance)
        return variances, directions

    @property
    def spread(self) -> float:
        """The mean squared length of an example's inputs from their mean."""
        return float((self.covariance.diagonal() if self.is_whole else self.covariance).sum())

    def inverse(self, ridge: float, num_columns: int) -> Tensor:
        """The inverse of the covariance and ``ridge`` times the identity, as ``Moments.covariance`` is held.

        Without a ridge that counts, collinear directions are left out: from zero, steps then end at the answer of
        minimum norm.
        Of a mere diagonal it is the inverse of ``num_columns`` times it, which is never less than the covariance.
        """
        if not self.is_whole:
            bound = self.covariance * num_columns + ridge
            return torch.where(bound > 0, 1 / bound, 0.0)
        variances, directions = self._spectrum
        least = COLLINEAR**2 * variances.max()
        usable = variances > (least if ridge < least else -ridge / 2)
        inverse: Tensor = (directions * torch.where(usable, 1 / (variances + ridge), 0.0)) @ directions.T
        return inverse

    def collinear(self, widths: list[int]) -> list[int]:
        """The inputs that others determine: they have a part in a direction without any variance.

        That the ``widths`` last inputs of a column's indicators sum to one is no news.
        """
        variances, directions = self._spectrum
        none = directions[:, variances <= COLLINEAR**2 * variances.max()]
        for stop, width in zip(torch.tensor(widths).flip(0).cumsum(0).neg().tolist(), widths[::-1], strict=True):
            indicators = slice(len(none) + stop, len(none) + stop + width)
            none[indicators] -= none[indicators].mean(dim=0)
        share = none.norm(dim=1)
        return [int(at) for at in torch.nonzero((share > 1e-3) & (self.covariance.diagonal() > 0))]


@torch.no_grad()
def moments(split: Examples, num_numbers: int, num_slots: int, class_weights: Tensor | None, whole: bool) -> Moments:
    """The moments of a split, summed piece by piece; no one-hot matrix is ever made.

    Slots from ``num_slots`` on are none. ``class_weights`` ``(classes,)``; ``whole``: the covariance, or its diagonal.
    """
    device, some = split.y.device, num_slots + 1
    numbers = torch.zeros(num_numbers + 1, num_numbers + 1, dtype=torch.float64, device=device)
    cross = torch.zeros(some, num_numbers + 1, dtype=torch.float64, device=device)
    pairs = torch.zeros(some * some if whole else 0, dtype=torch.float64, device=device)
    for piece in split.pieces(ROWS):
        ((X, *slots),) = piece.in_order(len(piece))
        Z = torch.cat([X.double(), torch.ones(len(X), 1, dtype=torch.float64, device=device)], dim=1)
        w = Z[:, -1] if class_weights is None else class_weights.double()[piece.y]
        weighted = Z if class_weights is None else Z * w.unsqueeze(1)
        numbers += Z.T @ weighted
        columns = list(slots[0].clamp(max=num_slots).T.contiguous()) if slots else []
        for at, column in enumerate(columns):
            cross.index_add_(0, column, weighted)
            for other in columns[:at] if whole else ():
                pairs.index_add_(0, column * some + other, w)
    n, cross = len(split), cross[:-1]
    second = torch.cat([numbers.diagonal()[:-1], cross[:, -1]])
    if whole:
        between = pairs.view(some, some)[:-1, :-1]
        slots_block = between + between.T + torch.diag(cross[:, -1])
        top = torch.cat([numbers[:-1, :-1], cross[:, :-1].T], dim=1)
        second = torch.cat([top, torch.cat([cross[:, :-1], slots_block], dim=1)])
    total = numbers[-1, -1]
    mean = torch.cat([numbers[:-1, -1], cross[:, -1]]) / total
    squares = torch.outer(mean, mean) if whole else mean**2
    return Moments(mean, second / n - squares * (total / n), float(total) / n)


class Whitened:
    """An optimizer whose gradients are multiplied by the inverse covariance, penalty included.

    ``frequencies`` ``(columns, slots)``: behind the slots there is one more effect a column, that of an unknown code,
    which moves by the average of the others and so stays the average effect.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        net: Network,
        inputs: Moments,
        inverse: Tensor,
        frequencies: Tensor,
        weight_decay: float,
    ) -> None:
        self._optimizer, self._net, self._weight_decay = optimizer, net, weight_decay
        like = net.weights()["b"]
        self._mean, self._inverse, self._frequencies = (
            each.to(like.device, like.dtype) for each in (inputs.mean.unsqueeze(1), inverse, frequencies)
        )
        self._weight, self._num_slots = inputs.weight, frequencies.shape[1]
        self.decrement = torch.zeros(())

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer that takes the steps."""
        return self._optimizer.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self._optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter; ``decrement`` is about twice what the step before gains of the objective."""
        gradients: dict[str, Any] = self._net.gradients()
        gradient, by_bias = self._joint(gradients), gradients["b"]
        if self._weight_decay:
            gradient = gradient.add(self._joint(self._net.weights()), alpha=self._weight_decay)
        centred = gradient - self._mean * by_bias
        step = self._inverse @ centred if self._inverse.dim() == 2 else self._inverse.unsqueeze(1) * centred
        self.decrement = (step * centred).sum() + by_bias.square().sum() / self._weight
        by_bias.div_(self._weight).sub_((self._mean * step).sum(dim=0))
        numbers = len(gradients["W"])
        gradients["W"].copy_(step[:numbers])
        if "effects" in gradients:
            effects = step[numbers:]
            gradients["effects"].copy_(torch.cat([effects, self._frequencies @ effects]))
        self._optimizer.step()

    def _joint(self, each: dict[str, Any]) -> Tensor:
        joint: Tensor = torch.cat([each["W"], each["effects"][: self._num_slots]]) if "effects" in each else each["W"]
        return joint
