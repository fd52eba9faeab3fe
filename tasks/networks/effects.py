"""Categories of a table: one-hot inputs pick rows of a weight matrix, so rows are gathered and no zero is multiplied.

``effects`` are ``(slots, outputs)``, stored so that ``effects.T`` is contiguous. A category picks one of them by its
code. Columns of few codes are taken in pairs, so that an example asks for half as much: ``slots`` ``(places, columns)``
int64 has which effects belong together, for each combination of codes of the columns of each group, and ``places``
``(n, groups)`` int64 where an example's are. Column by column a gather is five times as fast as row by row, and its
gradient fifty times as fast as that of ``nn.EmbeddingBag`` on a CPU.
"""

from typing import Any

import torch
from torch import Tensor, nn


def gathered(effects: Tensor, slots: Tensor, places: Tensor) -> Tensor:
    """The sum of the effects of each example's categories, ``(n, outputs)``."""
    return _summed(_summed(effects, slots), places)


def gradient_of_gathered(g: Tensor, effects: Tensor, slots: Tensor, places: Tensor) -> Tensor:
    """The gradient by ``effects`` ``(slots, outputs)``: for each slot, the sum over its examples.

    ``g`` ``(n, outputs)`` is the gradient by the outputs. Of several outputs, scores, it sums to 0 as that of
    cross-entropy does, and so that of the last effects follows from the others': of two classes in half the time.
    """
    if g.shape[1] == 1:
        return _gradient(_gradient(g, places, len(slots)), slots, len(effects))
    of_others = _gradient(_gradient(g[:, :-1], places, len(slots)), slots, len(effects)).T
    return torch.cat([of_others, -of_others.sum(dim=0, keepdim=True)]).T


def _summed(rows: Tensor, at: Tensor) -> Tensor:
    """The sums of the rows at each of ``at`` ``(m, count)``, ``(m, outputs)``."""
    each = rows.T.index_select(1, at.T.flatten())
    return each.view(len(each), at.shape[1], len(at)).sum(dim=1).T if at.shape[1] > 1 else each.T


def _gradient(g: Tensor, at: Tensor, number: int) -> Tensor:
    """That of such sums by ``number`` rows ``(number, outputs)``."""
    gradient = torch.zeros(g.shape[1], number, dtype=g.dtype, device=g.device)
    return gradient.index_add_(1, at.T.flatten(), g.T.repeat(1, at.shape[1])).T


class _Gathered(torch.autograd.Function):
    """The two together: autograd's own gradient of a gather and a sum takes twice as long."""

    @staticmethod
    def forward(context: Any, effects: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(effects, slots, places)
        return gathered(effects, slots, places)

    @staticmethod
    def backward(context: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return gradient_of_gathered(g, *context.saved_tensors), None, None


class Effects(nn.Module):
    """``nn.Linear`` of one-hot inputs, without its bias."""

    slots: Tensor

    def __init__(self, slots: Tensor, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("slots", slots)
        self.weight = nn.Parameter(torch.zeros(num_outputs, num_effects(slots)))

    def forward(self, places: Tensor) -> Tensor:
        """Outputs ``(n, outputs)``."""
        found: Tensor = _Gathered.apply(self.weight.T, self.slots, places)
        return found


NONE = torch.zeros(0, 1, dtype=torch.int64)  # slots of a network without categories


def num_effects(slots: Tensor) -> int:
    """How many effects there are, the last of which is at some place."""
    return int(slots.max()) + 1 if len(slots) else 0
