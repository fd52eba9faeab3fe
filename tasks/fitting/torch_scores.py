"""What an exported file must say, computed by torch from the trained weights: the other side of the parity gate."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.data.recipe import Recipe
from tasks.fitting.devices import one_thread
from tasks.serving import raw_units
from tasks.serving.raw_units import Weights

BATCH_SIZE = 4096
VALUES = 2**24  # values at a time, where rows have so many pixels that a batch would take gigabytes


def score_rows(weights: Weights, recipe: Recipe, rows: NDArray[Any]) -> NDArray[np.float32]:
    """Scores ``(n, outputs)`` float32 of raw rows as the model takes them; in raw units for a regression."""
    score = (_make_plain_score if recipe.is_plain else _make_table_score)(weights, recipe)
    size = max(1, min(BATCH_SIZE, VALUES // max(1, math.prod(rows.shape[1:]))))
    with one_thread():
        batches = [score(batch) for batch in torch.from_numpy(rows).split(size)]
    found: NDArray[np.float32] = torch.cat(batches).numpy()
    return found


def _make_plain_score(weights: Weights, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    W, b = (torch.from_numpy(weights[name]) for name in ("W", "b"))  # noqa: N806  (the book's letters)
    return lambda inputs: (inputs.flatten(1).to(torch.float32) * recipe.scale) @ W + b


def _make_table_score(weights: Weights, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """The folded weights, with the graph's own subtraction of the mean, so that float32 rounds it in the same way."""
    mean, W, effects, b = map(torch.from_numpy, raw_units.fold_weights(weights, recipe))  # noqa: N806
    at, starts = list(recipe.numbers), raw_units.locate_columns(recipe)

    def score(features: Tensor) -> Tensor:
        numbers = features[:, at]
        for place, low, high in recipe.limits:
            numbers[:, place].clamp_(low, high)
        numbers = numbers - mean
        numbers[numbers.isnan()] = 0
        codes = torch.from_numpy(raw_units.encode_levels(features.numpy(), recipe) + starts)
        return numbers @ W + b + effects[codes].sum(dim=1)

    return score
