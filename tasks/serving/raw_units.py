"""What a table's model computes in raw units: standardisation, target and rare levels folded into its weights.

Trained weights have ``W`` ``(inputs, outputs)`` of the standardised numbers and booleans, ``b`` ``(outputs,)`` and,
where there are categories, ``effects`` ``(slots, outputs)`` by ``Column.slots``, one column after the other, before
centring; all float32. A regression's are in deviations of its target from its mean.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tasks.data.recipe import Recipe
from tasks.machine.arrays import Array

Weights = Mapping[str, Array]
MISSING = "(missing)"  # names the effect of a missing value among those of levels
SHOWN = 20
NamedWeights = dict[str, float | dict[str, float]]  # by column: a number's, or a category's by level


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


def save_weights(folded: Folded) -> bytes:
    """``weights.npz``, as ``gradmill.rows.explain_rows`` reads it."""
    mean, weights, effects, intercept = folded
    with io.BytesIO() as stream:
        np.savez(stream, mean=mean, weights=weights, effects=effects, intercept=intercept)
        return stream.getvalue()


@np.errstate(over="ignore")  # a weight beyond float32 is infinite, and no gate passes what comes of it
def fold_weights(weights: Weights, recipe: Recipe, dtype: DTypeLike = np.float32) -> Folded:
    """Fold trained ``weights`` into raw units; computed in float64, kept as ``dtype``.

    What rounding takes from a mean goes into ``b``.
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
    return Folded(rounded, *(array.astype(dtype) for array in (W, target.scale * effects, b)))


def _centre_effects(weights: Weights, recipe: Recipe) -> tuple[Array, Array]:
    """The effects of all codes, centred ``(codes, outputs)``, and what was taken from them in sum ``(outputs,)``."""
    none = np.zeros((1, len(weights["b"])))
    centred, total, start = [none[:0]], none[0], 0
    for at in recipe.categories:
        column = recipe.columns[at]
        learned = weights["effects"][start : start + column.num_slots].astype(np.float64)
        start += column.num_slots
        slots, counts = column.slots(), np.array([*column.counts, column.num_missing, 0], np.float64)
        average = counts @ np.concatenate([learned, none])[slots] / max(counts.sum(), 1.0)  # the slot -1 is last
        centred.append(np.concatenate([learned, average[np.newaxis]])[slots] - average)
        total = total + average
    return np.concatenate(centred), total


def encode_levels(features: Array, recipe: Recipe) -> NDArray[np.int64]:
    """The codes ``(n, categories)`` of raw rows ``(n, columns)``, column by column.

    A level's is a whole number from 0 below the number of levels; NaN is missing and has the next code, and any other
    number is unknown and has the one after it.
    """
    chosen, num_levels = features[:, list(recipe.categories)], np.array(recipe.num_levels, np.int64)
    with np.errstate(invalid="ignore"):
        known = (chosen >= 0) & (chosen < num_levels) & (chosen == np.floor(chosen))
    code = np.where(np.isnan(chosen), num_levels, num_levels + 1)
    code[known] = chosen[known]
    return code


def locate_columns(recipe: Recipe) -> NDArray[np.int64]:
    """Where in ``Folded.effects`` each categorical column starts, ``(categories,)``."""
    return np.cumsum([0, *(count + 2 for count in recipe.num_levels)], dtype=np.int64)[:-1]


def score_rows(folded: Folded, recipe: Recipe, features: Array) -> Array:
    """Scores ``(n, outputs)`` of raw rows ``(n, columns)``, in the precision of ``folded``."""
    numbers = features[:, list(recipe.numbers)].astype(folded.mean.dtype, copy=False)
    for at, low, high in recipe.limits:
        np.clip(numbers[:, at], low, high, out=numbers[:, at])
    numbers = numbers - folded.mean
    numbers[np.isnan(numbers)] = 0
    result: Array = numbers @ folded.W + folded.b
    for code in (encode_levels(features, recipe) + locate_columns(recipe)).T:
        result += folded.effects[code]
    return result


def score_in_float64(weights: Weights, recipe: Recipe, features: Array) -> Array:
    """The same of trained ``weights``, nothing of which is rounded."""
    return score_rows(fold_weights(weights, recipe, np.float64), recipe, features)


def name_weights(folded: Folded, recipe: Recipe) -> list[NamedWeights]:
    """For each output, a number's change a unit by its column's name, and a category's effects by level."""
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


def find_intercepts(folded: Folded) -> Array:
    """For each output ``(outputs,)``, the score of numbers that are 0 and categories of average effect."""
    result: Array = folded.b - folded.mean @ folded.W
    return result


class Coefficient(NamedTuple):
    """How the prediction, or the log odds of a class, change: with a unit of a column, or at a level."""

    name: str
    value: float
    size: float  # with a standard deviation of the column, or at the level: what makes columns comparable


def list_coefficients(metrics: Mapping[str, Any], recipe: Recipe, class_names: Sequence[str] = ()) -> list[Coefficient]:
    """The ``SHOWN`` coefficients of the largest size, by the metrics' ``weights``.

    A class's are against the mean of all classes' scores; of two classes they are the second's against the first's.
    Empty where the metrics have none, as those of very wide models.
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
    """Every number under its column and, of a category, its level."""
    found: dict[tuple[str, ...], float] = {}
    for column, value in weights.items():
        if isinstance(value, Mapping):
            found |= {(column, level): effect for level, effect in value.items()}
        else:
            found[column,] = value
    return found
