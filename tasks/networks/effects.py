"""Categories of a table: one-hot inputs pick rows of a weight matrix, so rows are gathered and no zero is multiplied.

``effects`` are ``(slots, outputs)``, stored so that ``effects.T`` is contiguous. A category picks one of them by its
code. Columns of few codes are taken in pairs, so that an example asks for half as much: ``pairs`` ``(combinations, 2)``
int64 has the two effects of each combination of codes, and ``places`` ``(n, groups)`` int64 say which combination an
example has, or, behind all combinations, which effect of a column that is alone. Column by column a gather is five
times as fast as row by row, and its gradient fifty times as fast as that of ``nn.EmbeddingBag`` on a CPU.
"""

from typing import Any

import torch
from torch import Tensor, nn

NONE = torch.zeros(0, 2, dtype=torch.int64)  # pairs


def gathered(effects: Tensor, pairs: Tensor, places: Tensor) -> Tensor:
    """The sum of the effects of each example's categories, ``(n, outputs)``."""
    if len(pairs):
        effects = torch.cat([_summed(effects, pairs).T, effects.T], dim=1).T
    return _summed(effects, places)


def gradient_of_gathered(g: Tensor, effects: Tensor, pairs: Tensor, places: Tensor) -> Tensor:
    """The gradient by ``effects`` ``(slots, outputs)``: for each slot, the sum over its examples.

    ``g`` ``(n, outputs)`` is the gradient by the outputs. Of several outputs, scores, it sums to 0 as that of
    cross-entropy does, and so that of the last effects follows from the others': of two classes in half the time.
    """
    are_scores = g.shape[1] > 1
    gradient = _gradient(g[:, :-1] if are_scores else g, places, len(pairs) + len(effects))
    if len(pairs):
        gradient = gradient[len(pairs) :] + _gradient(gradient[: len(pairs)], pairs, len(effects))
    return torch.cat([gradient.T, -gradient.T.sum(dim=0, keepdim=True)]).T if are_scores else gradient


def columns_of(places: Tensor, pairs: Tensor) -> tuple[Tensor, ...]:
    """The slots ``(n,)`` of a group's columns, two or one, of which ``places`` ``(n,)`` are."""
    return (places - len(pairs),) if places[0] >= len(pairs) else pairs.T.index_select(1, places).unbind()


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
    def forward(context: Any, effects: Tensor, pairs: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(effects, pairs, places)
        return gathered(effects, pairs, places)

    @staticmethod
    def backward(context: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return gradient_of_gathered(g, *context.saved_tensors), None, None


class Effects(nn.Module):
    """``nn.Linear`` of one-hot inputs, without its bias."""

    pairs: Tensor

    def __init__(self, num_slots: int, pairs: Tensor, num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("pairs", pairs)
        self.weight = nn.Parameter(torch.zeros(num_outputs, num_slots))

    def forward(self, places: Tensor) -> Tensor:
        """Outputs ``(n, outputs)``."""
        found: Tensor = _Gathered.apply(self.weight.T, self.pairs, places)
        return found
