"""What a table's model computes in raw units: standardisation, target and rare levels folded into its weights.

Trained weights have ``W`` ``(inputs, outputs)`` of the standardised numbers and booleans, ``b`` ``(outputs,)`` and,
where there are categories, ``effects`` ``(slots, outputs)`` by ``Column.slots``, one column after the other, before
centring; all float32. A regression's are in deviations of its target from its mean.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tasks.data.recipe import Column, Columns, Target
from tasks.machine.arrays import Array

MISSING = "(missing)"  # names the effect of a missing value among those of levels


class Folded(NamedTuple):
    """Weights of raw rows: ``(numbers - mean) W + Σ effects[code] + b``, a missing number being 0 after ``- mean``.

    The means stay apart, since a large one folded into ``b`` would cost float32 two to three digits. ``effects`` has
    those of every categorical column, one after the other: of each code, then of a missing value, then of an unknown
    code; over a column's training rows they average 0, so that 0 is what an unknown code gets.
    """

    mean: Array  # (numbers,)
    W: Array  # (numbers, outputs)
    effects: Array  # (codes, outputs)
    b: Array  # (outputs,)


@np.errstate(over="ignore")  # a weight beyond float32 is infinite, and no gate passes what comes of it
def fold(weights: Mapping[str, Array], recipe: Columns, dtype: DTypeLike = np.float32) -> Folded:
    """Fold trained ``weights`` into raw units; computed in float64, kept as ``dtype``.

    What rounding takes from a mean goes into ``b``.
    """
    W, b = (weights[name].astype(np.float64) for name in ("W", "b"))  # noqa: N806  (the book's letters)
    target = recipe.target or Target(name="target")
    columns = [recipe.columns[at] for at in recipe.numbers]
    mean = np.array([column.mean or 0.0 for column in columns], np.float64)
    scale = np.array([column.scale for column in columns], np.float64)
    W = W * target.scale / scale[:, np.newaxis]  # noqa: N806
    effects, average = _effects(weights, recipe)
    rounded = mean.astype(dtype)
    b = target.mean + target.scale * (b + average) + (rounded.astype(np.float64) - mean) @ W
    return Folded(rounded, *(array.astype(dtype) for array in (W, target.scale * effects, b)))


def _effects(weights: Mapping[str, Array], recipe: Columns) -> tuple[Array, Array]:
    """The effects of all codes, centred ``(codes, outputs)``, and what was taken from them in sum ``(outputs,)``."""
    outputs = len(weights["b"])
    tables, total, start = [np.empty((0, outputs))], np.zeros(outputs), 0
    for at in recipe.categories:
        column = recipe.columns[at]
        learned = weights["effects"][start : start + column.num_slots].astype(np.float64)
        start += column.num_slots
        counts = np.array([*column.counts, column.num_missing, 0], np.float64)
        average = counts @ _by_code(column, learned, np.zeros(outputs)) / max(counts.sum(), 1.0)
        tables.append(_by_code(column, learned, average) - average)
        total += average
    return np.concatenate(tables), total


def _by_code(column: Column, learned: Array, otherwise: Array) -> Array:
    """The weights of a column's slots ``(slots, outputs)`` by code; ``otherwise`` for codes without one."""
    return np.concatenate([learned, otherwise[np.newaxis]])[column.slots()]  # the slot -1 is the last


def codes(features: Array, recipe: Columns) -> NDArray[np.int64]:
    """Where the categories ``(n, categories)`` of raw rows ``(n, columns)`` are in ``Folded.effects``.

    A code is a whole number from 0 below the number of levels; NaN is missing, and any other number unknown.
    """
    chosen, num_levels = features[:, list(recipe.categories)], np.array(sizes(recipe), np.int64)
    with np.errstate(invalid="ignore"):
        known = (chosen >= 0) & (chosen < num_levels) & (chosen == np.floor(chosen))
    code = np.where(np.isnan(chosen), num_levels, num_levels + 1)
    code[known] = chosen[known].astype(np.int64)
    return code + offsets(recipe)


def sizes(recipe: Columns) -> list[int]:
    """How many levels each categorical column has."""
    return [len(recipe.columns[at].levels) for at in recipe.categories]


def offsets(recipe: Columns) -> NDArray[np.int64]:
    """Where in ``Folded.effects`` each categorical column starts, ``(columns,)``."""
    return np.cumsum([0, *(size + 2 for size in sizes(recipe))], dtype=np.int64)[:-1]


def scores(folded: Folded, recipe: Columns, features: Array) -> Array:
    """Scores ``(n, outputs)`` of raw rows ``(n, columns)``, in the precision of ``folded``."""
    numbers = features[:, list(recipe.numbers)].astype(folded.mean.dtype, copy=False) - folded.mean
    numbers = np.where(np.isnan(numbers), folded.mean.dtype.type(0), numbers)
    result: Array = numbers @ folded.W + folded.b
    for code in codes(features, recipe).T:
        result += folded.effects[code]
    return result


def coefficients(folded: Folded, recipe: Columns) -> list[dict[str, float | dict[str, float]]]:
    """For each output, a number's change a unit by its column's name, and a category's effects by level."""
    return [_coefficients(folded, recipe, output) for output in range(len(folded.b))]


def _coefficients(folded: Folded, recipe: Columns, output: int) -> dict[str, float | dict[str, float]]:
    found: dict[str, float | dict[str, float]] = {
        recipe.columns[at].name: float(value) for at, value in zip(recipe.numbers, folded.W[:, output], strict=True)
    }
    for at, start in zip(recipe.categories, offsets(recipe).tolist(), strict=True):
        column = recipe.columns[at]
        *levels, missing, _ = folded.effects[start : start + len(column.levels) + 2, output].tolist()
        of_missing = {MISSING: missing} if column.num_missing else {}
        found[column.name] = of_missing | dict(zip(column.levels, levels, strict=True))
    return {name: found[name] for name in recipe.names}


def intercepts(folded: Folded) -> Array:
    """For each output ``(outputs,)``, the score of numbers that are 0 and categories of average effect."""
    result: Array = folded.b - folded.mean @ folded.W
    return result
