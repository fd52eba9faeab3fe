"""What the columns of a table, and its pairs of columns, add to predictions: the largest effects and their picture."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradmill.rows import Weights, explain_rows, find_columns
from tasks.data.recipe import Column, Columns
from tasks.judging.plots import ZERO, make_figure, shorten
from tasks.machine.arrays import Array
from tasks.machine.words import format_number
from tasks.serving.raw_units import MISSING, PAIR

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
    columns = [*find_columns(recipe.model_dump(mode="json")).values()]
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
    figure = make_figure(WIDTH * across, HEIGHT * down + 0.5)
    for panel, effect in zip(figure.subfigures(down, across, squeeze=False).flat, effects, strict=False):
        axes = panel.subplots()
        names = [shorten(column.name, LONGEST_NAME // len(effect.columns)) for column in effect.columns]
        title = f"{PAIR.join(names)}  ±{format_number(effect.size, 2)}"
        axes.tick_params(labelsize=SMALL)
        num_numbers = sum(column.kind == "number" for column in effect.columns)
        if len(effect.columns) == 1:
            is_part = bool(effect.columns[0].part)
            draw = _draw_curves if num_numbers else _draw_parts if is_part else _draw_levels
            draw(axes, effect, effect.added[list(shown)])
        else:
            largest = int(np.abs(effect.added).reshape(len(effect.added), -1).max(axis=1).argmax())
            if len(effect.added) > 1:
                title += f"\n{shorten(class_names[largest], LONGEST_NAME)}"
            draw_pair = _draw_lines if num_numbers == 1 else _draw_map
            draw_pair(axes, effect, effect.added[largest])
        panel.suptitle(title, fontsize=SMALL + 1)  # over the panel, as the names of levels may push its axes aside
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
    """The density of the values of one of the effect's columns, below what is drawn already."""
    values, data = effect.values[number], effect.rows[:, number]
    rows, edges = np.histogram(data[np.isfinite(data)], bins=BINS, range=(values[0], values[-1]))
    _draw_density(axes, rows, edges)


def _draw_density(axes: Axes, rows: Array, edges: Array) -> None:
    """How many rows there are between edges, below what is drawn already, and a line at 0."""
    axes.axhline(0, **ZERO)
    axes.margins(x=0, y=0.08)
    axes.autoscale_view()
    axes.locator_params(nbins=TICKS)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - (top - bottom) * STRIP / (1 - STRIP), top)
    heights = STRIP * rows / max(rows.max(), 1)
    axes.stairs(heights, edges, fill=True, color="silver", transform=axes.get_xaxis_transform())


def _draw_parts(axes: Axes, effect: Effect, added: Array) -> None:
    """What the months, weekdays, hours or years of a date add, in their order, above their training rows."""
    (column,), (values,) = effect.columns, effect.values
    edges = np.arange(len(values) + 1) - 0.5
    for at, steps in enumerate(added):
        axes.stairs(steps, edges, baseline=None, color=f"C{at}", linewidth=mpl.rcParams["lines.linewidth"])
    _draw_density(axes, _count_rows(column, values), edges)
    axes.set_xticks(range(len(values)), _name_values(column, values), fontsize=SMALL - 1, rotation=90)


def _count_rows(column: Column, values: Array) -> Array:
    """The training rows of each code of a category."""
    counts = np.array([*column.counts, column.num_missing])
    return counts[np.where(np.isnan(values), -1, values).astype(np.int64)]


def _draw_levels(axes: Axes, effect: Effect, added: Array) -> None:
    """What each level adds: bars, or of several outputs ``(outputs, levels)`` dots."""
    (column,), (values,) = effect.columns, effect.values
    order = np.argsort(-added[0], kind="stable")
    names = _name_values(column, values)
    if column.kind == "boolean":
        share = column.mean or 0.0
        notes, more = [f"{1 - share:.0%}", f"{share:.0%}"], 0
    else:
        rows = _count_rows(column, values)
        notes = [f"{count:,}" for count in rows]
        more = _count_levels(column) - len(values)
    labels = [f"{names[at]} ({notes[at]})" for at in order]
    if more:
        labels.append(f"{more:,} more ({sum(column.counts) + column.num_missing - rows.sum():,})")
    for at, output in enumerate(added):
        if len(added) == 1:
            axes.barh(range(len(values)), output[order])
        else:
            axes.plot(output[order], range(len(values)), "o", markersize=4, color=f"C{at}")
    axes.axvline(0, **ZERO)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=TICKS)


def _name_values(column: Column, values: Array) -> list[str]:
    """Words for the codes of a boolean or a category."""
    levels = column.levels or ("false", "true")
    return [MISSING if np.isnan(value) else shorten(levels[int(value)], LONGEST_LEVEL) for value in values]


def _count_levels(column: Column) -> int:
    """How many levels of a category have training rows, a missing value among them."""
    return int(np.count_nonzero([*column.counts, column.num_missing]))


def _draw_lines(axes: Axes, effect: Effect, added: Array) -> None:
    """What a number and a category add together ``(values, values)``: a line for each level."""
    number = 0 if effect.columns[0].kind == "number" else 1
    column, levels = effect.columns[1 - number], effect.values[1 - number]
    for name, line in zip(_name_values(column, levels), added if number else added.T, strict=True):
        axes.plot(effect.values[number], line, label=name)
    _draw_axis(axes, effect, number)
    axes.set_xlabel(shorten(effect.columns[number].name, LONGEST_NAME), fontsize=SMALL)
    style: dict[str, Any] = {"fontsize": SMALL, "title_fontsize": SMALL, "handlelength": 1, "frameon": False}
    title = f"{len(levels)} of {num_levels}" if (num_levels := _count_levels(column)) > len(levels) else None
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=title, **style)


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
        more = f" ({len(values)} of {num_levels})" if (num_levels := _count_levels(column)) > len(values) else ""
        axis.set_label_text(shorten(column.name, LONGEST_NAME - len(more)) + more, fontsize=SMALL)
        if column.kind != "number":
            axis.set_ticks(place, _name_values(column, values), fontsize=SMALL)
    if shading == "gouraud":
        axes.locator_params(nbins=TICKS)
    else:
        axes.tick_params(axis="x", rotation=90)
        axes.invert_yaxis()
    bar = axes.figure.colorbar(drawn, ax=axes)
    bar.ax.tick_params(labelsize=SMALL)
