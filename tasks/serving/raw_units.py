"""What a table's model computes in raw units: standardisation and target folded into its weights.

Trained weights have ``W`` ``(inputs, outputs)`` for the standardised numbers and booleans, ``b`` ``(outputs,)`` and,
where there are categories, ``effects`` ``(slots, outputs)`` in the order of ``Column.weight_indices``, one column after
the other, before centring. Those of a regression are in deviations of its target from its mean.

Where numbers have knots, ``kinks`` ``(knots, outputs)`` are the weights of ``max(0, z - knot)``, both standardised,
number after number. Where columns are paired, ``products`` ``(rows, outputs)`` are the weights of products of their
inputs, pair after pair: of two numbers one row; of a number and a category one for each slot; of two categories one for
each two slots, the second's slot changing fastest. ``kink_means`` and ``product_means`` are the means of these inputs
over the training rows.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tasks.data.recipe import Column, Recipe
from tasks.machine.arrays import Array

Weights = Mapping[str, Array]
MISSING = "(missing)"  # names the effect of a missing value among those of levels
SHOWN = 20
VALUES = 2**22  # of images at a time
PAIR = " × "  # between the names of two columns
Curve = dict[str, list[float]]
NamedWeights = dict[str, float | dict[str, float] | Curve]  # by column: of a number, of each level, or of a curve


@dataclass(frozen=True)
class FoldedWeights:
    """Weights for raw rows: ``(numbers - mean) W + Σ effects[code] + b``; a missing number is 0 after ``- mean``.

    The means stay separate, since folding a large one into ``b`` would cost float32 two to three digits. ``effects``
    has the effects of every categorical column, one column after the other: first of each code, then of a missing
    value, then of an unknown code. Over a column's training rows they average 0, so an unknown code gets 0.

    A number with knots has no weight in ``W``, but a slope in each of its segments, from its lowest value over its
    knots to its highest: ``Σ slopes · (number within the segment - start)``, where a missing number is its mean. These
    are segments, and not the kinks that training has, because terms of kinks cancel one another, and in float32 they
    lose digits.

    A pair's two columns add the row of ``pair_weights`` at its start plus ``code of the first · codes of the second +
    code of the second``, times each of the two that is a number, less its mean; a number has the code 0, and one code.
    """

    mean: Array  # (numbers,)
    W: Array  # (numbers, outputs)
    effects: Array  # (codes, outputs)
    b: Array  # (outputs,)
    segment_numbers: Array  # (segments,): the position of each segment's number among the numbers
    segment_starts: Array  # (segments,)
    segment_ends: Array  # (segments,)
    slopes: Array  # (segments, outputs)
    curve_means: Array  # (numbers, outputs): what each number's segments add on average over the training rows
    pairs: Array  # (pairs, 2): the positions of their columns
    pair_starts: Array  # (pairs,)
    pair_weights: Array  # (rows, outputs)
    pair_means: Array  # (pairs, outputs): what each pair adds on average over the training rows

    @property
    def intercept(self) -> Array:
        """The score ``(outputs,)`` of a row whose columns all add what they add on average."""
        return np.asarray(self.b + self.curve_means.sum(axis=0) + self.pair_means.sum(axis=0))


def list_arrays(folded: FoldedWeights) -> dict[str, Array]:
    """The weights as ``gradmill.rows.explain_rows`` takes them."""
    arrays = {
        "mean": folded.mean,
        "weights": folded.W,
        "effects": folded.effects,
        "intercept": folded.intercept,
    }
    if len(folded.slopes):
        names = "segment_numbers", "segment_starts", "segment_ends", "slopes", "curve_means"
        arrays |= {name: getattr(folded, name) for name in names}
    if len(folded.pairs):
        arrays |= {name: getattr(folded, name) for name in ("pairs", "pair_starts", "pair_weights", "pair_means")}
    return arrays


def save_weights(folded: FoldedWeights) -> bytes:
    """The content of ``weights.npz``."""
    with io.BytesIO() as stream:
        np.savez(stream, **list_arrays(folded))  # type: ignore[arg-type]  # none of the names is an option
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
    curves = _fold_curves(weights, columns, W, target.scale)
    is_curve_number = np.isin(np.arange(len(columns)), curves.numbers)
    W[is_curve_number] = 0
    starts, pair_weights, pair_means = _fold_pairs(weights, recipe)
    return FoldedWeights(
        mean=rounded,
        W=W.astype(dtype),
        effects=(target.scale * effects).astype(dtype),
        b=(b + curves.lowest.sum(axis=0)).astype(dtype),
        segment_numbers=curves.numbers,
        segment_starts=curves.starts.astype(dtype),
        segment_ends=curves.ends.astype(dtype),
        slopes=curves.slopes.astype(dtype),
        curve_means=(curves.means - curves.lowest).astype(dtype),
        pairs=np.array(list_pairs(recipe), np.int64).reshape(-1, 2),
        pair_starts=starts,
        pair_weights=(target.scale * pair_weights).astype(dtype),
        pair_means=(target.scale * pair_means).astype(dtype),
    )


class _Curves(NamedTuple):
    """The segments of curves, and for each number what its curve adds at its lowest value, and on average."""

    numbers: NDArray[np.int64]
    starts: Array
    ends: Array
    slopes: Array
    lowest: Array
    means: Array


def _fold_curves(weights: Weights, columns: Sequence[Column], lines: Array, target_scale: float) -> _Curves:
    """Sum up the slopes ``lines`` ``(numbers, outputs)`` and kinks of numbers, in raw units, segment by segment."""
    lowest, means = np.zeros(lines.shape), np.zeros(lines.shape)
    numbers, starts, ends = list[int](), list[float](), list[float]()
    slopes = [np.zeros((0, lines.shape[1]))]
    first = 0
    for number, column in enumerate(columns):
        if not column.knots:
            continue
        low, high = column.limits or (column.knots[0], column.knots[-1])
        rows = slice(first, first := first + len(column.knots))
        kinks = target_scale * weights["kinks"][rows].astype(np.float64)
        lowest[number] = (low - (column.mean or 0.0)) * lines[number]
        means[number] = weights["kink_means"][rows] @ kinks
        numbers += [number] * (len(column.knots) + 1)
        starts += [low, *column.knots]
        ends += [*column.knots, high]
        changes = np.concatenate([lines[number : number + 1], kinks / column.scale])
        slopes.append(np.cumsum(changes, axis=0))
    return _Curves(
        numbers=np.array(numbers, np.int64),
        starts=np.array(starts, np.float64),
        ends=np.array(ends, np.float64),
        slopes=np.concatenate(slopes),
        lowest=lowest,
        means=means,
    )


def list_pairs(recipe: Recipe) -> tuple[tuple[int, int], ...]:
    """The positions of the columns of each pair; images have none."""
    return recipe.pair_positions if recipe.kind == "columns" else ()


def _fold_pairs(weights: Weights, recipe: Recipe) -> tuple[NDArray[np.int64], Array, Array]:
    """For ``FoldedWeights`` the starts, the weights of all codes, and the means of pairs, in target deviations."""
    starts, tables, means, start, taken = list[int](), list[Array](), list[Array](), 0, 0
    num_outputs = len(weights["b"])
    for pair in list_pairs(recipe):
        first, second = (recipe.columns[at] for at in pair)
        sizes = [max(1, column.num_slots) for column in (first, second)]
        rows = slice(taken, taken := taken + math.prod(sizes))
        learned = weights["products"][rows].astype(np.float64)
        mean = weights["product_means"][rows] @ learned
        scales = [column.scale for column in (first, second) if column.kind != "category"]
        learned = (learned / math.prod(scales)).reshape(*sizes, num_outputs)
        if len(scales) == 1:  # a code without a slot has the average slope
            category = first if first.kind == "category" else second
            counts = np.array([count for count in (*category.counts, category.num_missing) if count], np.float64)
            other = np.average(learned.reshape(-1, num_outputs), axis=0, weights=counts)
        else:
            other = mean
        for axis, column in enumerate((first, second)):
            if column.kind == "category":
                shape = (*learned.shape[:axis], 1, *learned.shape[axis + 1 :])
                learned = np.concatenate([learned, np.broadcast_to(other, shape)], axis=axis)
                learned = np.take(learned, column.weight_indices(), axis=axis)
        starts.append(start)
        tables.append(learned.reshape(-1, num_outputs))
        means.append(mean)
        start += len(tables[-1])
    nothing = np.zeros((0, num_outputs))
    stacked = np.concatenate([nothing, *tables])
    return np.array(starts, np.int64), stacked, np.array(means).reshape(-1, num_outputs)


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
    numbers = np.where(np.isnan(numbers), folded.mean, numbers)
    centred = numbers - folded.mean
    result: Array = centred @ folded.W + folded.b
    if len(folded.slopes):
        within = np.clip(numbers[:, folded.segment_numbers], folded.segment_starts, folded.segment_ends)
        result += (within - folded.segment_starts) @ folded.slopes
    codes = encode_levels(features, recipe)
    for code in (codes + locate_columns(recipe)).T:
        result += folded.effects[code]
    positions = {at: place for place, at in enumerate(recipe.numbers)}
    for (first, second), start in zip(list_pairs(recipe), folded.pair_starts.tolist(), strict=True):
        rows = np.full(len(features), start)
        factor = np.ones((len(features), 1), folded.mean.dtype)
        for at in (first, second):
            if at in positions:
                factor = factor * centred[:, [positions[at]]]
            else:
                rows = rows + codes[:, recipe.categories.index(at)] * (
                    count_codes(recipe, second) if at == first else 1
                )
        result += factor * folded.pair_weights[rows]
    return result


def count_codes(recipe: Recipe, at: int) -> int:
    """How many codes the column at a position has, missing and unknown ones included; a number has one."""
    column = recipe.columns[at]
    return len(column.levels) + 2 if column.kind == "category" else 1


def name_weights(folded: FoldedWeights, recipe: Recipe) -> list[NamedWeights]:
    """For each output: a number's change per unit, or its curve; a category's effects by level; and those of pairs.

    A curve has the places ``at`` which its slope changes, and what it ``adds`` there to the average row. A pair, named
    ``a × b``, has one change per unit of both numbers, a change per unit of its number by level, or what each two
    levels add to the average row.
    """
    return [_name_output(folded, recipe, output) for output in range(len(folded.b))]


def _name_output(folded: FoldedWeights, recipe: Recipe, output: int) -> NamedWeights:
    numbers = iter(range(len(recipe.numbers)))
    effects = iter(np.split(folded.effects[:, output], locate_columns(recipe)[1:]))
    named: NamedWeights = {}
    for column in recipe.columns:
        if column.kind == "category":
            named[column.name] = _name_codes(column, next(effects))
        elif column.knots:
            named[column.name] = _trace_curve(folded, next(numbers), output)
        else:
            named[column.name] = float(folded.W[next(numbers), output])
    for at, pair in enumerate(list_pairs(recipe)):
        columns = [recipe.columns[place] for place in pair]
        sizes = [count_codes(recipe, place) for place in pair]
        start = folded.pair_starts[at]
        table = folded.pair_weights[start : start + math.prod(sizes), output].reshape(sizes)
        name = PAIR.join(column.name for column in columns)
        categories = [column for column in columns if column.kind == "category"]
        if not categories:
            named[name] = float(table[0, 0])
        elif len(categories) == 1:
            named[name] = _name_codes(categories[0], table.ravel())
        else:
            added = table - folded.pair_means[at, output]
            rows = _name_codes(categories[0], np.arange(sizes[0]))
            cells = _name_codes(categories[1], np.arange(sizes[1]))
            named[name] = {
                f"{level}{PAIR}{other}": float(added[int(row), int(cell)])
                for level, row in rows.items()
                for other, cell in cells.items()
            }
    return named


def _name_codes(column: Column, values: Array) -> dict[str, float]:
    """One value for each code, by level; of a missing value only if a training row has none."""
    *levels, missing, _ = values.tolist()
    of_missing = {MISSING: missing} if column.num_missing else {}
    return of_missing | dict(zip(column.levels, levels, strict=True))


def _trace_curve(folded: FoldedWeights, number: int, output: int) -> Curve:
    """A number's curve from its lowest to its highest value."""
    own = folded.segment_numbers == number
    starts, ends = folded.segment_starts[own], folded.segment_ends[own]
    steps = (ends - starts) * folded.slopes[own, output]
    added = np.concatenate([[0.0], np.cumsum(steps)]) - folded.curve_means[number, output]
    return {"at": [*starts.tolist(), float(ends[-1])], "adds": added.tolist()}


def find_intercepts(folded: FoldedWeights, recipe: Recipe) -> Array:
    """For each output ``(outputs,)``, what the named weights are added to.

    That is the score where numbers without a curve are 0, and all other columns add what they add on average.
    """
    return np.asarray(folded.b - folded.mean @ folded.W + folded.curve_means.sum(axis=0))


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
    found = [
        Coefficient(prefix + " = ".join(key), value, value * _find_spread(key[0], recipe))
        for prefix, values in outputs.items()
        for key, value in values.items()
    ]
    return sorted(found, key=lambda each: -abs(each.size))[:SHOWN]


def _find_spread(name: str, recipe: Recipe) -> float:
    """By how much a number usually differs from its mean, or the numbers of a pair; 1 for categories and curves."""
    columns = {column.name: column for column in recipe.columns}
    if name in columns:
        column = columns[name]
        return 1.0 if column.kind == "category" or column.knots else column.scale
    pairs = [(recipe.columns[first], recipe.columns[second]) for first, second in list_pairs(recipe)]
    members = next(pair for pair in pairs if PAIR.join(column.name for column in pair) == name)
    return math.prod(column.scale for column in members if column.kind != "category")


def is_curve(value: Any) -> bool:
    """Whether a named weight is a curve, and no effects of levels, which may have any name."""
    return isinstance(value, Mapping) and isinstance(value.get("at"), list)


def _flatten(weights: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """Every number, under its column and, for a category, its level; of a curve, the largest of what it adds."""
    found: dict[tuple[str, ...], float] = {}
    for column, value in weights.items():
        if is_curve(value):
            found[column,] = max(value["adds"], key=abs)
        elif isinstance(value, Mapping):
            found |= {(column, level): effect for level, effect in value.items()}
        else:
            found[column,] = value
    return found
