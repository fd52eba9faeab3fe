"""What a table's weights are multiplied by: slopes, kinks and products of numbers, indicators of levels.

A recipe with its statistics, knots and pairs says which inputs there are (``tasks/serving/raw_units.py`` has their
order among the weights). Indicators are sparse; a row has at most one entry in each block of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse
import scipy.special

from tasks.data.recipe import Columns
from tasks.machine.arrays import Array
from tasks.serving import raw_units

GROUPS = "slopes", "levels", "kinks", "pairs"  # whose weights have one penalty
SHARED_KNOTS = 320  # which numbers divide among them, within these bounds:
MIN_KNOTS, MAX_KNOTS = 16, 64  # of a number with enough rows
MAX_HINGES = 1_000  # knots of all numbers, also where that leaves fewer to each
MIN_VALUES = 10  # distinct values of a number beyond which its effect may be a curve
ROWS_PER_KNOT = 10
MAX_PAIRS = 32
MAX_PRODUCTS = 10_000  # weights of all pairs
FALSE_PAIRS = 0.1  # expected share of pairs without an effect among those that are found (Benjamini and Hochberg, 1995)
PIECE_VALUES = 2**22  # inputs that are encoded at a time


@dataclass(frozen=True)
class Inputs:
    """Encoded rows, without the bias, which is the last of all weights.

    ``numbers`` are ``(n, numbers)`` float64, ``indicators`` a ``scipy.sparse.csr_array`` ``(n, slots)``, whose blocks
    of ``widths`` have at most one entry in a row.
    """

    numbers: Array
    indicators: Any
    widths: tuple[int, ...] = ()

    @classmethod
    def from_numbers(cls, numbers: Array) -> Self:
        """Inputs ``(n, numbers)`` without indicators, such as pixels."""
        return cls(numbers, scipy.sparse.csr_array((len(numbers), 0)))

    def __len__(self) -> int:
        return len(self.numbers)

    def select(self, rows: Array) -> Self:
        """Some of the rows, by their indices or a mask."""
        return type(self)(self.numbers[rows], self.indicators[rows], self.widths)

    def pieces(self) -> Iterator[tuple[slice, Inputs]]:
        """All rows at once: they are in memory already."""
        yield slice(None), self

    def scores(self, weights: Array) -> Array:
        """Scores ``(n, outputs)`` float64 by ``weights`` ``(inputs + 1, outputs)``."""
        count = self.numbers.shape[1]
        return np.asarray(self.numbers @ weights[:count] + self.indicators @ weights[count:-1] + weights[-1])

    def multiply_transposed(self, rows: Array) -> Array:
        """The inputs times ``rows`` ``(n, outputs)``: ``(inputs + 1, outputs)`` float64."""
        return np.concatenate([self.numbers.T @ rows, self.indicators.T @ rows, rows.sum(axis=0, keepdims=True)])

    def multiply_indicators(self, indicators: Any) -> Array:
        """The same for sparse ``indicators`` ``(n, slots)``."""
        counts = (self.indicators.T @ indicators).toarray()
        sums = np.asarray(indicators.sum(axis=0)).reshape(1, -1)
        return np.concatenate([(indicators.T @ self.numbers).T, counts, sums])

    def second_moments(self) -> Array:
        """The sums of products of inputs ``(inputs + 1, inputs + 1)``; the last row and column belong to the bias."""
        ones = np.ones((len(self), 1))
        blocks = (
            self.multiply_transposed(self.numbers),
            self.multiply_indicators(self.indicators),
            self.multiply_transposed(ones),
        )
        return np.hstack(blocks)


class Encoded(NamedTuple):
    """Columns of rows: standardised numbers ``(n, numbers)``, and the slots ``(n, categories)``, -1 without one."""

    numbers: Array
    slots: Array


@dataclass(frozen=True)
class Design:
    """The inputs of a recipe's model."""

    recipe: Columns

    @cached_property
    def hinges(self) -> tuple[Array, Array]:
        """For each knot the position of its number among the numbers, and where it is in standardised units."""
        columns = [self.recipe.columns[at] for at in self.recipe.numbers]
        owners = [at for at, column in enumerate(columns) for _ in column.knots]
        places = [(knot - (column.mean or 0.0)) / column.scale for column in columns for knot in column.knots]
        return np.array(owners, np.int64), np.array(places, np.float64)

    @cached_property
    def num_slots(self) -> tuple[int, ...]:
        """How many weights the levels of each category have."""
        return tuple(self.recipe.columns[at].num_slots for at in self.recipe.categories)

    @cached_property
    def number_pairs(self) -> Array:
        """Which pairs are products of two numbers, ``(pairs,)``: their inputs are dense."""
        kinds = [self.recipe.columns[at].kind for at in range(len(self.recipe.columns))]
        pairs = self.recipe.pair_positions
        return np.array(["category" not in (kinds[first], kinds[second]) for first, second in pairs], bool)

    @cached_property
    def groups(self) -> Array:
        """The position in ``GROUPS`` of each input, ``(inputs,)``."""
        num_dense_pairs = int(self.number_pairs.sum())
        num_sparse_pairs = sum(self._count_products()) - num_dense_pairs
        widths = [len(self.recipe.numbers), len(self.hinges[0]), num_dense_pairs, sum(self.num_slots), num_sparse_pairs]
        return np.repeat([0, 2, 3, 1, 3], widths)

    def _count_products(self) -> list[int]:
        return [self.recipe.count_products(*pair) for pair in self.recipe.pair_positions]

    def encode_columns(self, features: Array) -> Encoded:
        """Standardise and code raw rows ``(n, columns)``."""
        columns = [self.recipe.columns[at] for at in self.recipe.numbers]
        numbers = features[:, list(self.recipe.numbers)].astype(np.float64)
        for at, low, high in self.recipe.limits:
            np.clip(numbers[:, at], low, high, out=numbers[:, at])
        numbers -= np.array([column.mean or 0.0 for column in columns])
        numbers /= np.array([column.scale for column in columns])
        codes = raw_units.encode_levels(features, self.recipe)
        slots = np.empty(codes.shape, np.int64)
        for at, position in enumerate(self.recipe.categories):
            slots[:, at] = self.recipe.columns[position].weight_indices()[codes[:, at]]
        return Encoded(np.nan_to_num(numbers, copy=False, nan=0.0), slots)

    def encode(self, features: Array) -> Inputs:
        """The inputs of raw rows ``(n, columns)``: a missing number is its mean, an unknown level has no entry."""
        encoded = self.encode_columns(features)
        numbers, slots = encoded
        owners, places = self.hinges
        kinks = np.maximum(numbers[:, owners] - places, 0)
        number_of = {position: at for at, position in enumerate(self.recipe.numbers)}
        category_of = {position: at for at, position in enumerate(self.recipe.categories)}
        products = [np.empty((len(features), 0))]
        blocks = [scipy.sparse.csr_array((len(features), 0))]
        blocks += [make_indicators(slots[:, at], width) for at, width in enumerate(self.num_slots)]
        for pair, width in zip(self.recipe.pair_positions, self._count_products(), strict=True):
            factors = [numbers[:, [number_of[at]]] for at in pair if at in number_of]
            codes = [slots[:, category_of[at]] for at in pair if at in category_of]
            if not codes:
                products.append(factors[0] * factors[1])
            elif factors:
                blocks.append(make_indicators(codes[0], width, factors[0][:, 0]))
            else:
                cells = codes[0] * self.recipe.columns[pair[1]].num_slots + codes[1]
                cells[(codes[0] < 0) | (codes[1] < 0)] = -1
                blocks.append(make_indicators(cells, width))
        return Inputs(
            numbers=np.hstack([numbers, kinks, *products]),
            indicators=scipy.sparse.hstack(blocks, format="csr"),
            widths=tuple(block.shape[1] for block in blocks[1:]),
        )

    def name_weights(self, weights: Array, means: Array) -> dict[str, Array]:
        """Weights ``(inputs + 1, outputs)`` as ``raw_units`` names them, with the ``means`` ``(inputs,)`` of inputs."""
        num_dense = len(self.recipe.numbers), len(self.hinges[0]), int(self.number_pairs.sum()), sum(self.num_slots)
        slopes, kinks, dense, levels, sparse = np.split(np.arange(len(weights) - 1), np.cumsum(num_dense))
        named = {"W": weights[slopes], "b": weights[-1]}
        if len(levels):
            named["effects"] = weights[levels]
        if len(kinks):
            named |= {"kinks": weights[kinks], "kink_means": means[kinks]}
        if self.recipe.pairs:
            places, dense_places, sparse_places = list[Array](), iter(dense), iter(sparse)
            for is_dense, width in zip(self.number_pairs, self._count_products(), strict=True):
                source = dense_places if is_dense else sparse_places
                places.append(np.array([next(source) for _ in range(width)], np.int64))
            order = np.concatenate(places)
            named |= {"products": weights[order], "product_means": means[order]}
        return named


class JoinedRows:
    """The raw rows ``(n, columns)`` of several files, one after the other; only the rows of a slice are in memory."""

    def __init__(self, parts: Sequence[Array]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        pieces, first = list[Array](), 0
        for part in self.parts:
            pieces.append(part[max(0, start - first) : max(0, stop - first)])
            first += len(part)
        return np.concatenate(pieces)


@dataclass(frozen=True)
class EncodedPieces:
    """The same inputs for more rows than should be encoded in memory: they are encoded anew in each pass."""

    features: Array | JoinedRows
    design: Design

    def __len__(self) -> int:
        return len(self.features)

    def pieces(self) -> Iterator[tuple[slice, Inputs]]:
        """Some rows at a time, with their place among all."""
        size = max(1, PIECE_VALUES // (len(self.design.groups) + 1))
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield rows, self.design.encode(self.features[rows])


def spread_penalties(penalties: Mapping[str, float], groups: Array) -> Array:
    """The penalty of each input ``(inputs,)``, from those of the groups."""
    return np.array([penalties.get(name, 0.0) for name in GROUPS])[groups]


def make_indicators(slots: Array, width: int, values: Array | None = None) -> Any:
    """A sparse array ``(n, width)`` with an entry, 1 or the row's value, at each row's slot; none where it is -1."""
    known = slots >= 0
    starts = np.concatenate([[0], np.cumsum(known)])
    entries = np.ones(starts[-1]) if values is None else values[known]
    return scipy.sparse.csr_array((entries, slots[known], starts), (len(slots), width))


# Knots


def add_knots(recipe: Columns, features: Array) -> Columns:
    """The recipe with knots at quantiles of the training rows' numbers ``(n, columns)``, as many as rows support."""
    numbers = [at for at in recipe.numbers if recipe.columns[at].kind == "number"]
    num_numbers = max(1, len(numbers))
    share = max(MIN_KNOTS, min(MAX_KNOTS, SHARED_KNOTS // num_numbers))
    most = min(share, MAX_HINGES // num_numbers)
    columns = list(recipe.columns)
    for at in numbers:
        columns[at] = columns[at].model_copy(update={"knots": place_knots(features[:, at], most)})
    return recipe.model_copy(update={"columns": tuple(columns)})


def place_knots(values: Array, most: int) -> tuple[float, ...]:
    """Ascending values between which lie about equally many of ``values`` ``(n,)``; none where there are few.

    A value that many rows share takes the place of one quantile only.
    """
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    number = min(most, int(counts.sum()) // ROWS_PER_KNOT)
    if len(distinct) <= MIN_VALUES or number == 0:
        return ()
    capped = np.minimum(counts, max(1, counts.sum() // (number + 1)))
    ranks = (np.cumsum(capped) - capped / 2) / capped.sum()
    quantiles = np.arange(1, number + 1) / (number + 1)
    places = np.unique(np.clip(np.searchsorted(ranks, quantiles), 1, len(distinct) - 2))
    return tuple(distinct[places].astype(np.float64).tolist())


# Pairs


class PairTests(NamedTuple):
    """For pairs of columns the p-value of no effect on the residuals, and the number of their weights."""

    pairs: tuple[tuple[int, int], ...]
    p_values: Array
    num_products: tuple[int, ...]


def screen_pairs(recipe: Columns, features: Array, residuals: Array) -> tuple[tuple[str, str], ...]:
    """The pairs of columns whose products explain more of the ``residuals`` ``(n, outputs)`` than chance does.

    For each pair, the squared sum of each product times the residuals, over its variance (White, 1980), is chi-square
    distributed if the pair has no effect. At most ``MAX_PAIRS`` with at most ``MAX_PRODUCTS`` weights are taken, those
    of the smallest p-values first, as long as the expected share of false ones is below ``FALSE_PAIRS``.
    """
    tests = compare_pairs(recipe, features, residuals)
    order = np.argsort(tests.p_values, kind="stable")
    bounds = FALSE_PAIRS * np.arange(1, len(order) + 1) / max(1, len(order))
    passed = np.flatnonzero(tests.p_values[order] <= bounds)
    chosen, num_products = list[tuple[str, str]](), 0
    for at in order[: passed[-1] + 1 if len(passed) else 0]:
        num_products += tests.num_products[at]
        if num_products > MAX_PRODUCTS or len(chosen) == MAX_PAIRS:
            break
        first, second = tests.pairs[at]
        chosen.append((recipe.names[first], recipe.names[second]))
    return tuple(sorted(chosen, key=lambda pair: [recipe.names.index(name) for name in pair]))


def compare_pairs(recipe: Columns, features: Array, residuals: Array) -> PairTests:
    """Test every pair of columns that has at most ``MAX_PRODUCTS`` weights."""
    numbers, slots = Design(recipe).encode_columns(features)
    scale = np.sqrt(np.mean(residuals**2, axis=0))
    outputs = (residuals / np.where(scale > 0, scale, 1))[:, scale > 0]
    positions = {at: place for place, at in enumerate(recipe.numbers)}
    blocks = {
        at: make_indicators(slots[:, place], recipe.columns[at].num_slots)
        for place, at in enumerate(recipe.categories)
        if recipe.columns[at].num_slots
    }
    pairs, statistics, freedom, widths = list[tuple[int, int]](), list[float](), list[float](), list[int]()
    # Scores of several classes sum to zero, so that one of them says nothing of its own.
    num_free = outputs.shape[1] if residuals.shape[1] == 1 else max(1, residuals.shape[1] - 1)
    share = num_free / max(1, outputs.shape[1])

    def add(pair: tuple[int, int], squares: Array, has_rows: Array) -> None:
        pairs.append(pair)
        statistics.append(float(squares[has_rows].sum()) * share)
        freedom.append(float(np.count_nonzero(has_rows)) * num_free)
        widths.append(recipe.count_products(*pair))

    places = sorted([*positions, *blocks])
    for first in places:
        for second in places:
            if first >= second or recipe.count_products(first, second) > MAX_PRODUCTS:
                continue
            if first in positions and second in positions:
                product = numbers[:, positions[first]] * numbers[:, positions[second]]
                product = product - product.mean()
                norm = product @ product
                variances = (product**2) @ outputs**2
                squares = (product @ outputs) ** 2 / np.where(variances > 0, variances, 1)
                add((first, second), squares[np.newaxis], np.array([norm > 0]))
                continue
            if first in blocks and second in blocks:
                width = recipe.columns[second].num_slots
                places_of = [slots[:, recipe.categories.index(at)] for at in (first, second)]
                cells = places_of[0] * width + places_of[1]
                cells[(places_of[0] < 0) | (places_of[1] < 0)] = -1
                block = make_indicators(cells, recipe.count_products(first, second))
            else:
                number, category = (first, second) if first in positions else (second, first)
                block = blocks[category].multiply(numbers[:, [positions[number]]]).tocsr()
            variances = block.multiply(block).T @ outputs**2
            squares = (block.T @ outputs) ** 2 / np.where(variances > 0, variances, 1)
            add((first, second), squares, variances.sum(axis=1) > 0)
    p_values = scipy.special.chdtrc(np.maximum(freedom, 1), np.array(statistics)) if pairs else np.empty(0)
    return PairTests(tuple(pairs), np.asarray(p_values), tuple(widths))
