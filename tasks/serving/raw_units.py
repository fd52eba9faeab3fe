"""What a table's model computes in raw units: standardisation, target and rare levels folded into its weights.

Trained weights have ``W`` ``(inputs, outputs)`` for the standardised numbers and booleans, ``b`` ``(outputs,)`` and,
where there are categories, ``effects`` ``(slots, outputs)`` in the order of ``Column.weight_indices``, one column after
the other, before centring; all are float32. Those of a regression are in deviations of its target from its mean.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tasks.data.recipe import Recipe
from tasks.machine.arrays import Array

Weights = Mapping[str, Array]
MISSING = "(missing)"  # names the effect of a missing value among those of levels
SHOWN = 20
VALUES = 2**22  # of images at a time
NamedWeights = dict[str, float | dict[str, float]]  # by column: one weight for a number, one per level for a category


class FoldedWeights(NamedTuple):
    """Weights for raw rows: ``(numbers - mean) W + Σ effects[code] + b``; a missing number is 0 after ``- mean``.

    The means stay separate, since folding a large one into ``b`` would cost float32 two to three digits. ``effects``
    has the effects of every categorical column, one column after the other: first of each code, then of a missing
    value, then of an unknown code. Over a column's training rows they average 0, so an unknown code gets 0.
    """

    mean: Array  # (numbers,)
    W: Array  # (numbers, outputs)
    effects: Array  # (codes, outputs)
    b: Array  # (outputs,)


def save_weights(folded: FoldedWeights) -> bytes:
    """The content of ``weights.npz``, as ``gradmill.rows.explain_rows`` reads it."""
    mean, weights, effects, intercept = folded
    with io.BytesIO() as stream:
        np.savez(stream, mean=mean, weights=weights, effects=effects, intercept=intercept)
        return stream.getvalue()


@np.errstate(over="ignore")  # a weight beyond float32 becomes infinite, and its model passes no gate
def fold_weights(weights: Weights, recipe: Recipe, dtype: DTypeLike = np.float32) -> FoldedWeights:
    """Fold trained ``weights`` into raw units; computed in float64, kept as ``dtype``.

    What rounding removes from a mean is added to ``b``.
    """
    W, b = (weights[name].astype(np.float64) for name in ("W", "b"))  # noqa: N806  (the book's letters)
    target = recipe.target_scaling
    columns = [recipe.columns[at] for at in recipe.numbers]
    mean = np.array([column.mean or 0.0 for column in columns], np.float64)
    scale = np.array([column.scale for column in columns], np.float64)
    W = W * target.scale / scale[:, np.newaxis]  # noqa: N806
    effects, average = _centre_effects(weights, recipe)
    rounded = mean.astype(dtype)
    b = target.mean + target.scale * (b + average) + (rounded.astype(np.float64) - mean) @ W
    return FoldedWeights(rounded, *(array.astype(dtype) for array in (W, target.scale * effects, b)))


def _centre_effects(weights: Weights, recipe: Recipe) -> tuple[Array, Array]:
    """The effects of all codes, centred ``(codes, outputs)``, and the sum ``(outputs,)`` of what was subtracted."""
    none = np.zeros((1, len(weights["b"])))
    centred, total, start = [none[:0]], none[0], 0
    for at in recipe.categories:
        column = recipe.columns[at]
        learned = weights["effects"][start : start + column.num_slots].astype(np.float64)
        start += column.num_slots
        slots, counts = column.weight_indices(), np.array([*column.counts, column.num_missing, 0], np.float64)
        average = counts @ np.concatenate([learned, none])[slots] / max(counts.sum(), 1.0)  # slot -1 picks the last one
        centred.append(np.concatenate([learned, average[np.newaxis]])[slots] - average)
        total = total + average
    return np.concatenate(centred), total


def encode_levels(features: Array, recipe: Recipe) -> NDArray[np.int64]:
    """The codes ``(n, categories)`` of raw rows ``(n, columns)``, column by column.

    The code of a level is a whole number from 0 up to, but not including, the number of levels; NaN is a missing value
    and has the next code, and any other number is unknown and has the code after that.
    """
    chosen, num_levels = features[:, list(recipe.categories)], np.array(recipe.num_levels, np.int64)
    with np.errstate(invalid="ignore"):
        known = (chosen >= 0) & (chosen < num_levels) & (chosen == np.floor(chosen))
    code = np.where(np.isnan(chosen), num_levels, num_levels + 1)
    code[known] = chosen[known]
    return code


def locate_columns(recipe: Recipe) -> NDArray[np.int64]:
    """Where in ``FoldedWeights.effects`` each categorical column starts, ``(categories,)``."""
    return np.cumsum([0, *(count + 2 for count in recipe.num_levels)], dtype=np.int64)[:-1]


def score_rows(weights: Weights, recipe: Recipe, rows: Array, dtype: DTypeLike = np.float64) -> Array:
    """Scores ``(n, outputs)`` of raw rows ``(n, …)`` by trained ``weights``, in raw units for a regression.

    With float32, every step is rounded as the graph rounds it.
    """
    if not recipe.is_plain:
        return score_table(fold_weights(weights, recipe, dtype), recipe, rows)
    W = weights["W"].astype(dtype) * np.asarray(recipe.scale, dtype)  # noqa: N806  (the book's letter)
    b = weights["b"].astype(dtype)
    size = max(1, VALUES // max(1, math.prod(rows.shape[1:])))  # pixels take eight times the memory here
    batches = (rows[start : start + size] for start in range(0, len(rows), size))
    return np.concatenate([batch.reshape(len(batch), -1).astype(dtype) @ W + b for batch in batches])


def score_table(folded: FoldedWeights, recipe: Recipe, features: Array) -> Array:
    """Scores ``(n, outputs)`` of a table's raw rows ``(n, columns)``, in the precision of ``folded``."""
    numbers = features[:, list(recipe.numbers)].astype(folded.mean.dtype, copy=False)
    for at, low, high in recipe.limits:
        np.clip(numbers[:, at], low, high, out=numbers[:, at])
    numbers = numbers - folded.mean
    numbers[np.isnan(numbers)] = 0
    result: Array = numbers @ folded.W + folded.b
    for code in (encode_levels(features, recipe) + locate_columns(recipe)).T:
        result += folded.effects[code]
    return result


def name_weights(folded: FoldedWeights, recipe: Recipe) -> list[NamedWeights]:
    """For each output, a number's change per unit by column name, and a category's effects by level."""
    found = list[NamedWeights]()
    for weights, every in zip(folded.W.T.tolist(), folded.effects.T, strict=True):
        numbers, effects = iter(weights), iter(np.split(every, locate_columns(recipe)[1:]))
        named: NamedWeights = {}
        for column in recipe.columns:
            if column.kind == "category":
                *levels, missing, _ = next(effects).tolist()
                of_missing = {MISSING: missing} if column.num_missing else {}
                named[column.name] = of_missing | dict(zip(column.levels, levels, strict=True))
            else:
                named[column.name] = next(numbers)
        found.append(named)
    return found


def find_intercepts(folded: FoldedWeights) -> Array:
    """For each output ``(outputs,)``, the score where numbers are 0 and categories have their average effect."""
    result: Array = folded.b - folded.mean @ folded.W
    return result


class Coefficient(NamedTuple):
    """How the prediction, or the log odds of a class, changes per unit of a column, or at a level."""

    name: str
    value: float
    size: float  # the effect of one standard deviation of the column, or of the level: makes columns comparable


def list_coefficients(metrics: Mapping[str, Any], recipe: Recipe, class_names: Sequence[str] = ()) -> list[Coefficient]:
    """The ``SHOWN`` coefficients of the largest size, from the ``weights`` in the metrics.

    A class's coefficients are relative to the mean of all classes' scores; with two classes they are the second's
    relative to the first's. The list is empty where the metrics have no weights, as for very wide models.
    """
    weights = metrics.get("weights")
    if not isinstance(weights, Mapping):
        return []
    outputs = {f"{name}: ": _flatten(weights[name]) for name in class_names} or {"": _flatten(weights)}
    if len(outputs) == 2:
        first, second = outputs.values()
        outputs = {"": {key: value - first[key] for key, value in second.items()}}
    scales = {column.name: column.scale for column in recipe.columns}
    found = [
        Coefficient(prefix + " = ".join(key), value, value if len(key) == 2 else value * scales[key[0]])
        for prefix, values in outputs.items()
        for key, value in values.items()
    ]
    return sorted(found, key=lambda each: -abs(each.size))[:SHOWN]


def _flatten(weights: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """Every number, under its column and, for a category, its level."""
    found: dict[tuple[str, ...], float] = {}
    for column, value in weights.items():
        if isinstance(value, Mapping):
            found |= {(column, level): effect for level, effect in value.items()}
        else:
            found[column,] = value
    return found
