"""Small own tables: recipes fitted by hand, and what their models must say, row by row in plain Python."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tasks.data.recipe import Column, Columns, Recipe, Target

Array = np.ndarray[Any, Any]


def number(name: str, mean: float, scale: float) -> Column:
    return Column(name=name, kind="number", mean=mean, scale=scale, has_missing=True)


def category(name: str, counts: tuple[int, ...], num_missing: int = 0) -> Column:
    levels = tuple(f"{name}-{code}" for code in range(len(counts)))
    missing = bool(num_missing)
    return Column(
        name=name, kind="category", levels=levels, counts=counts, num_missing=num_missing, has_missing=missing
    )


# Its columns in every order of kinds: levels that are common, rare, vanished; missing with and without a weight.
RECIPE = Columns(
    columns=(
        category("city", (40, 3, 0, 25, 2), num_missing=12),
        number("area", 120.5, 33.0),
        Column(name="garden", kind="boolean", mean=0.25, scale=1.0),
        category("heating", (50, 30, 0)),
        number("year", 1985.3, 21.7),
    ),
    target=Target(name="price", mean=250_000.0, scale=80_000.0),
)
CLASSES = RECIPE.model_copy(update={"target": Target(name="kind")})
CURVES = {
    "area": {"limits": (60.5, 170.5), "knots": (100.5, 128.0)},
    "year": {"limits": (1925.3, 2035.3), "knots": (1965.3, 1992.8)},
}
# Curves, and pairs of every kind, in every order.
PAIRS = RECIPE.model_copy(
    update={
        "columns": tuple(column.model_copy(update=CURVES.get(column.name, {})) for column in RECIPE.columns),
        "shape": "pairs",
        "pairs": (("city", "area"), ("city", "heating"), ("area", "year"), ("garden", "heating"), ("garden", "year")),
    }
)
PAIR_CLASSES = PAIRS.model_copy(update={"target": Target(name="kind")})


def drawn_weights(recipe: Recipe, num_outputs: int, seed: int = 0) -> dict[str, Array]:
    """Weights as training leaves them, of a table or of pictures, at random."""
    rng = np.random.default_rng(seed)
    num_inputs, num_slots = math.prod(recipe.input.shape), 0
    if isinstance(recipe, Columns):
        num_inputs, num_slots = len(recipe.numbers), sum(recipe.columns[at].num_slots for at in recipe.categories)
    sizes = {"W": (num_inputs, num_outputs), "b": (num_outputs,)}
    sizes |= {"effects": (num_slots, num_outputs)} if num_slots else {}
    weights: dict[str, Array] = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    if not isinstance(recipe, Columns):
        return weights
    num_knots = sum(len(column.knots) for column in recipe.columns)
    num_products = sum(recipe.count_products(*pair) for pair in recipe.pair_positions)
    for name, means, size in (("kinks", "kink_means", num_knots), ("products", "product_means", num_products)):
        if size:
            weights |= {name: rng.normal(size=(size, num_outputs)), means: rng.random(size)}
    return weights


def drawn_rows(recipe: Columns, num_rows: int, seed: int = 1, odd: float = 0.1) -> Array:
    """Raw rows float32 ``(n, columns)``; a share ``odd`` of values is missing, and of codes unknown."""
    rng = np.random.default_rng(seed)
    rows = np.empty((num_rows, len(recipe.columns)), np.float32)
    for at, column in enumerate(recipe.columns):
        if column.kind == "number":
            rows[:, at] = rng.normal(column.mean or 0.0, column.scale, num_rows)
        else:
            rows[:, at] = rng.integers(0, len(column.levels) or 2, num_rows)
        rows[rng.random(num_rows) < odd, at] = np.nan
        if column.kind == "category":
            unknown = rng.random(num_rows) < odd
            rows[unknown, at] = rng.choice([-1, len(column.levels), 0.5, 1e9, -1e30, np.inf, -np.inf], unknown.sum())
    return rows


@st.composite
def recipes(draw: st.DrawFn) -> Columns:
    """Any recipe of a regression whose means a float32 can tell apart."""
    columns = []
    for at in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["number", "boolean", "category"]))
        if kind == "category":
            counts = draw(st.lists(st.integers(0, 30), min_size=1, max_size=12))
            counts[0] += not any(counts)
            columns.append(category(f"c{at}", tuple(counts), draw(st.integers(0, 3))))
        elif kind == "boolean":
            columns.append(Column(name=f"c{at}", kind="boolean", mean=draw(st.floats(0, 1)), scale=1.0))
        else:
            scale = 10.0 ** draw(st.integers(-6, 6))
            column = number(f"c{at}", scale * draw(st.floats(-100, 100)), scale)
            if draw(st.booleans()):
                middle, knots = column.mean or 0.0, draw(st.sets(st.integers(-19, 19), max_size=4))
                places: dict[str, Any] = {"limits": (middle - 2 * scale, middle + 2 * scale)}
                places["knots"] = tuple(middle + scale * knot / 10 for knot in sorted(knots))
                column = column.model_copy(update=places)
            columns.append(column)
    scale = 10.0 ** draw(st.integers(-6, 6))
    target = Target(name="y", mean=scale * draw(st.floats(-9, 9)), scale=scale)
    names = [column.name for column in columns]
    choices = [(first, second) for first in names for second in names if first < second]
    pairs = draw(st.lists(st.sampled_from(choices), max_size=4, unique=True)) if choices else []
    return Columns(columns=tuple(columns), target=target, pairs=tuple(pairs))


def by_hand(weights: dict[str, Array], recipe: Columns, rows: Array) -> Array:
    """``score`` of every row, ``(n, outputs)``."""
    return np.array([score(weights, recipe, row) for row in rows]).reshape(len(rows), len(weights["b"]))


def score(weights: dict[str, Array], recipe: Columns, row: Array) -> Array:
    """What a model says of one raw row, ``(outputs,)`` float64, straight from the design's words.

    A number is standardised, a missing one is the mean; a level has its weight, a missing
    value its own; whatever has none gets the average of its column's training rows. A regression's are deviations.
    """
    total = weights["b"].astype(np.float64)
    numbers, effects = iter(weights["W"].astype(np.float64)), iter(weights.get("effects", np.empty(0)).astype(float))
    kinks, products = iter(weights.get("kinks", ())), iter(weights.get("products", ()))
    inputs = dict[str, Any]()  # of each column: a standardised number, or the place of its slot and how many there are
    for column, value in zip(recipe.columns, row.astype(np.float64), strict=True):
        if column.kind == "category":
            total = total + _effect(column, effects, value)
            slots = _slots(column)
            inputs[column.name] = slots.index(key) if (key := _key(value)) in slots else None, slots
            continue
        mean = column.mean or 0.0
        if column.limits and not math.isnan(value):
            value = min(max(value, column.limits[0]), column.limits[1])
        inputs[column.name] = z = 0.0 if math.isnan(value) else (value - mean) / column.scale
        total = total + next(numbers) * z
        for knot in column.knots:
            total = total + next(kinks) * max(0.0, z - (knot - mean) / column.scale)
    product_means = iter(weights.get("product_means", ()))
    for pair in recipe.pairs:
        total = total + _product(recipe, [inputs[name] for name in pair], pair, products, product_means)
    return total if recipe.target is None else recipe.target.mean + recipe.target.scale * total


def _key(value: float) -> Any:
    return "missing" if math.isnan(value) else value


def _slots(column: Column) -> list[Any]:
    """The codes with a weight, in order."""
    return [*(code for code, count in enumerate(column.counts) if count), *["missing"] * bool(column.num_missing)]


def _product(recipe: Columns, members: list[Any], pair: tuple[str, str], products: Any, means: Any) -> Array:
    """What two columns add together."""
    categories = [member for member in members if isinstance(member, tuple)]
    z = math.prod(member for member in members if not isinstance(member, tuple))
    size = math.prod(len(slots) for _, slots in categories)
    table, mean = [next(products) for _ in range(size)], [next(means) for _ in range(size)]
    if not categories:
        return np.asarray(table[0] * z)
    if len(categories) == 1:
        ((slot, _),) = categories
        column = recipe.columns[recipe.names.index(pair[isinstance(members[1], tuple)])]
        counts = [count for count in (*column.counts, column.num_missing) if count]
        return np.asarray(z * (np.average(table, axis=0, weights=counts) if slot is None else table[slot]))
    (first, _), (second, slots) = categories
    if first is None or second is None:
        return np.asarray(np.array(mean) @ np.array(table))
    return np.asarray(table[first * len(slots) + second])


def _effect(column: Column, effects: Any, value: float) -> Array:
    by_code: dict[Any, Array] = {code: next(effects) for code, count in enumerate(column.counts) if count}
    if column.num_missing:
        by_code["missing"] = next(effects)
    training: list[tuple[Any, int]] = [*enumerate(column.counts), ("missing", column.num_missing)]
    rows = [(code, count) for code, count in training if count]
    average = np.average([by_code[code] for code, _ in rows], axis=0, weights=[count for _, count in rows])
    key: Any = "missing" if math.isnan(value) else value
    return by_code.get(key, average)
