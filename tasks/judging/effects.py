"""What the columns of a table, and its pairs of columns, add to predictions: the largest effects and their picture."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradmill.rows import Weights, explain_rows, find_columns, name_terms
from tasks.data.recipe import Column, Columns
from tasks.judging.plots import ZERO, shorten, subplots
from tasks.machine.arrays import Array
from tasks.machine.words import format_number
from tasks.serving.raw_units import MISSING

MOST_PANELS = 12
MOST_ROWS = 5_000  # whose effects are computed
VALUES = 2**22  # effects at a time
MOST_SCORES = 20_000  # effects of a row; beyond them there is no picture
NEGLIGIBLE = 1e-6  # of the largest effect
MOST_LEVELS = 12
MOST_LINES = 6  # classes, or levels of a pair
GRID = 9  # values of a number
PERCENT = 0.01, 0.99  # of the values, between which a number is drawn
PANELS_ACROSS = 3
WIDTH, HEIGHT = 3.2, 2.4  # inches of a panel
LONGEST_NAME, LONGEST_LEVEL = 30, 16  # characters
STRIP = 0.14  # height of the density, as a share of its panel's
SMALL = 7  # points of type
BINS = 40
TICKS = 5


class Effect(NamedTuple):
    """What a column, or a pair, adds to the prediction at some values of its columns, from its training mean.

    A boolean's values are 0 and 1; a category's are codes, and NaN where the value is missing.
    """

    name: str
    size: float  # standard deviation over rows; of several outputs the root mean square
    columns: tuple[Column, ...]
    rows: Array  # (n, columns): their values in the data
    values: tuple[Array, ...]  # by column
    added: Array  # (outputs, values of the first column, …)


def find_effects(weights: Weights, recipe: Columns, features: Array) -> list[Effect]:
    """The largest effects on raw rows ``(n, columns)``, in descending order, as ``explain_rows`` computes them.

    Outputs are its outputs: for two classes there is one, the log odds of the second. The list is empty for models with
    very many columns and classes.
    """
    described = recipe.model_dump(mode="json")
    columns = [*find_columns(described).values()]
    names = name_terms(recipe.names, described)
    terms = [*((at,) for at in range(len(columns))), *recipe.pair_positions]
    num_scores = len(terms) * len(weights["intercept"])
    if num_scores > MOST_SCORES:
        return []
    num_rows = min(len(features), MOST_ROWS, VALUES // num_scores)
    rows = features[np.linspace(0, len(features) - 1, num_rows).astype(np.int64)]
    shape = -1, len(terms) + 1
    added = explain_rows(rows, columns, weights).reshape(num_rows, *shape)[..., :-1]
    sizes = np.sqrt(added.var(axis=0).mean(axis=0))
    order = np.argsort(-sizes, kind="stable")[:MOST_PANELS]
    largest = order[sizes[order] > NEGLIGIBLE * sizes.max()].tolist()
    values = [_choose_values(recipe, terms[term], rows) for term in largest]
    probes = [_make_rows(terms[term], grid, len(columns)) for term, grid in zip(largest, values, strict=True)]
    traced = explain_rows(np.concatenate(probes), columns, weights) if probes else np.empty(0)
    ends = np.cumsum([len(probe) for probe in probes])
    return [
        Effect(
            name=names[term],
            size=float(sizes[term]),
            columns=tuple(recipe.columns[at] for at in terms[term]),
            rows=rows[:, list(terms[term])],
            values=tuple(grid),
            added=part.reshape(len(part), *shape)[..., term].T.reshape(-1, *map(len, grid)),
        )
        for term, grid, part in zip(largest, values, np.split(traced, ends[:-1]), strict=False)
    ]


def _choose_values(recipe: Columns, term: Sequence[int], rows: Array) -> list[Array]:
    """For each column of a term, where its effect is computed: its commonest levels, or numbers that ``rows`` have."""
    columns = [recipe.columns[at] for at in term]
    is_pair = len(columns) > 1
    most = MOST_LINES if is_pair and any(column.kind == "number" for column in columns) else MOST_LEVELS
    values = list[Array]()
    for at, column in zip(term, columns, strict=True):
        if column.kind == "boolean":
            values.append(np.array([0.0, 1.0]))
        elif column.kind == "category":
            counts = np.array([*column.counts, column.num_missing])
            codes = np.argsort(-counts, kind="stable")[: len(counts) if column.part and not is_pair else most]
            codes = np.sort(codes[counts[codes] > 0])
            values.append(np.where(codes < len(column.levels), codes, np.nan))
        else:
            bends = np.array([*(column.limits or ()), *(() if is_pair else column.knots)])
            values.append(_cover_numbers(rows[:, at], bends))
    return values


def _cover_numbers(values: Array, bends: Array) -> Array:
    """Numbers over the range of most ``values``, with the ``bends`` in it, where an effect changes its slope."""
    values = values[np.isfinite(values)].astype(np.float64)
    low, high = np.quantile(values, PERCENT)
    if low == high:
        low, high = values.min(), values.max()
    return np.union1d(np.linspace(low, high, GRID), bends[(bends > low) & (bends < high)])


def _make_rows(term: Sequence[int], grid: Sequence[Array], num_columns: int) -> Array:
    """Rows ``(n, columns)`` with every combination of values of a term's columns, and nothing in all others."""
    rows = np.full((math.prod(map(len, grid)), num_columns), np.nan)
    for at, values in zip(term, np.meshgrid(*grid, indexing="ij"), strict=True):
        rows[:, at] = values.ravel()
    return rows


def draw_effects(
    effects: Sequence[Effect], heading: str, class_names: Sequence[str] = (), shown: Sequence[int] = (0,)
) -> Figure:
    """One panel for each effect; of several outputs, those of the classes ``shown``, or for a pair the largest."""
    across = min(PANELS_ACROSS, len(effects))
    down = math.ceil(len(effects) / across)
    figure, grid = subplots(WIDTH * across, HEIGHT * down + 0.5, down, across, squeeze=False)
    for axes in grid.flat[len(effects) :]:
        axes.axis("off")
    for axes, effect in zip(grid.flat, effects, strict=False):
        title = f"{shorten(effect.name, LONGEST_NAME)}  ±{format_number(effect.size, 2)}"
        axes.tick_params(labelsize=SMALL)
        num_numbers = sum(column.kind == "number" for column in effect.columns)
        if len(effect.columns) == 1:
            draw = _draw_curves if num_numbers else _draw_levels
            draw(axes, effect, effect.added[list(shown)])
        else:
            largest = int(np.abs(effect.added).reshape(len(effect.added), -1).max(axis=1).argmax())
            if len(effect.added) > 1:
                title += f"\n{shorten(class_names[largest], LONGEST_NAME)}"
            draw_pair = _draw_lines if num_numbers == 1 else _draw_map
            draw_pair(axes, effect, effect.added[largest])
        axes.set_title(title, fontsize=SMALL + 1)
    if len(shown) > 1:
        names = [shorten(class_names[output], LONGEST_NAME) for output in shown]
        marks = [Line2D([], [], color=f"C{at}", marker="o", label=name) for at, name in enumerate(names)]
        figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=SMALL + 1)
    figure.suptitle(heading, fontsize=10)
    return figure


def _draw_curves(axes: Axes, effect: Effect, added: Array) -> None:
    """What a number adds to each output ``(outputs, values)``, above the density of its values."""
    (values,) = effect.values
    for curve in added:
        axes.plot(values, curve)
    _draw_axis(axes, effect, number=0)


def _draw_axis(axes: Axes, effect: Effect, number: int) -> None:
    """A line at 0, and the density of the values of one of the effect's columns, below all that is drawn already."""
    values, data = effect.values[number], effect.rows[:, number]
    axes.axhline(0, **ZERO)
    axes.margins(x=0, y=0.08)
    axes.autoscale_view()
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - (top - bottom) * STRIP / (1 - STRIP), top)
    rows, edges = np.histogram(data[np.isfinite(data)], bins=BINS, range=(values[0], values[-1]))
    heights = STRIP * rows / max(rows.max(), 1)
    axes.stairs(heights, edges, fill=True, color="silver", transform=axes.get_xaxis_transform())
    axes.locator_params(nbins=TICKS)


def _draw_levels(axes: Axes, effect: Effect, added: Array) -> None:
    """What each level adds: bars, or of several outputs ``(outputs, levels)`` dots; parts of dates in their order."""
    (column,), (values,) = effect.columns, effect.values
    order = np.arange(len(values)) if column.part else np.argsort(added[0], kind="stable")[::-1]
    names = _name_values(column, values)
    labels = [names[at] for at in order]
    if column.kind == "category":
        counts = [*column.counts, column.num_missing]
        rows = [counts[-1 if np.isnan(values[at]) else int(values[at])] for at in order]
        labels = [f"{label} ({count:,})" for label, count in zip(labels, rows, strict=True)]
        if more := np.count_nonzero(counts) - len(values):
            labels.append(f"{more:,} more ({sum(counts) - sum(rows):,})")
    for at, output in enumerate(added):
        if len(added) == 1:
            axes.barh(range(len(values)), output[order])
        else:
            axes.plot(output[order], range(len(values)), "o", markersize=4, color=f"C{at}")
    axes.axvline(0, **ZERO)
    axes.set_yticks(range(len(labels)), labels, fontsize=min(SMALL, 80 / len(labels)))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=TICKS)


def _name_values(column: Column, values: Array) -> list[str]:
    """Words for the codes of a boolean or a category."""
    levels = column.levels or ("false", "true")
    return [MISSING if np.isnan(value) else shorten(levels[int(value)], LONGEST_LEVEL) for value in values]


def _draw_lines(axes: Axes, effect: Effect, added: Array) -> None:
    """What a number and a category add together ``(values, values)``: a line for each level."""
    number = 0 if effect.columns[0].kind == "number" else 1
    lines = added if number else added.T
    for name, line in zip(_name_values(effect.columns[1 - number], effect.values[1 - number]), lines, strict=True):
        axes.plot(effect.values[number], line, label=name)
    _draw_axis(axes, effect, number)
    axes.set_xlabel(shorten(effect.columns[number].name, LONGEST_NAME), fontsize=SMALL)
    axes.legend(loc="upper center", fontsize=SMALL - 1, ncols=3, columnspacing=1, handlelength=1)


def _draw_map(axes: Axes, effect: Effect, added: Array) -> None:
    """What two numbers or two categories add together ``(values, values)``: red more than on average, blue less."""
    most = float(np.abs(added).max()) or 1.0
    colours: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    places = [
        values if column.kind == "number" else np.arange(len(values))
        for column, values in zip(effect.columns, effect.values, strict=True)
    ]
    shading: Literal["gouraud", "nearest"] = "gouraud" if effect.columns[0].kind == "number" else "nearest"
    drawn = axes.pcolormesh(places[1], places[0], added, shading=shading, **colours)
    for axis, column, values, place in zip(
        (axes.yaxis, axes.xaxis), effect.columns, effect.values, places, strict=True
    ):
        axis.set_label_text(shorten(column.name, LONGEST_NAME), fontsize=SMALL)
        if column.kind != "number":
            axis.set_ticks(place, _name_values(column, values), fontsize=SMALL)
    if shading == "gouraud":
        axes.locator_params(nbins=TICKS)
    else:
        axes.tick_params(axis="x", rotation=90)
    bar = axes.figure.colorbar(drawn, ax=axes)
    bar.ax.tick_params(labelsize=SMALL)
