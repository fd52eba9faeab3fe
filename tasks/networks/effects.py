"""Categories from scratch: one-hot inputs pick rows of a weight matrix, so the rows are gathered.

``effects`` are ``(slots, outputs)``; ``slots`` ``(n, columns)`` int64 says which row each category of an example has.
"""

import torch
from torch import Tensor


def add_effects(o: Tensor, effects: Tensor, slots: Tensor | None) -> Tensor:
    """Outputs ``(n, outputs)`` and the effects of all categories of each example."""
    if slots is None:
        return o
    return effects.index_select(0, slots.flatten()).view(*slots.shape, -1).sum(dim=1).add_(o)


def effects_gradient(g: Tensor, effects: Tensor, slots: Tensor) -> Tensor:
    """The gradient by ``effects`` where that by the outputs is ``g``: the sum of ``g`` over a slot's examples."""
    gradient = torch.zeros_like(effects)
    for column in slots.T:
        gradient.index_add_(0, column, g)
    return gradient
