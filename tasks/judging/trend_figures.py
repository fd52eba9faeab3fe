"""The picture of a name's overview: the figure that a gate judges, run by run."""

import math
from datetime import datetime
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.judging import figures
from tasks.store.trend import Point, Trend


class Colours(NamedTuple):
    """What a picture is drawn with."""

    paper: str
    ink: str
    live: str
    refused: str
    bound: str


LIGHT = Colours(paper="white", ink="#1f2328", live="#0969da", refused="#cf222e", bound="#9a6700")
DARK = Colours(paper="#15181c", ink="#e6e8eb", live="#6cb6ff", refused="#ff7b72", bound="#e3b341")
SPAN = 20  # losses that differ by such a factor are drawn by decades
DATES, NUMBERS = 6, 12  # that have room: days below the axis, versions above their line


def pair(trend: Trend, on_dark: bool) -> tuple[bytes, bytes]:
    """The picture for light paper and, if wanted ``on_dark``, the one for that; else the same again."""
    light = png(trend, LIGHT)
    return light, png(trend, DARK) if on_dark else light


def png(trend: Trend, colours: Colours = LIGHT) -> bytes:
    """Every run at its figure, by outcome; the version that was live then as a step, and the gate's bound."""
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    paper = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor", "legend.edgecolor")
    style: dict[Any, str] = dict.fromkeys(ink, colours.ink) | dict.fromkeys(paper, colours.paper)
    with mpl.rc_context(style):
        figure = Figure(figsize=(5.8, 3.7), layout="constrained")
        axes = figure.subplots()
        _live(axes, trend.points, colours)
        _runs(axes, trend.points, colours)
        if trend.is_loss and _is_wide(trend.points):
            axes.set_yscale("log")
        every = math.ceil(len(trend.points) / DATES)
        shown = range(0, len(trend.points), every)
        axes.set_xticks(shown, _dates([trend.points[at].date for at in shown]))
        title = f"The last {len(trend.points)} runs" if len(trend.points) > 1 else "The last run"
        axes.set(title=title, ylabel=trend.figure)
        axes.margins(x=0.04, y=0.15)
        axes.grid(alpha=0.25)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return figures.png(figure)


def _live(axes: Axes, points: tuple[Point, ...], colours: Colours) -> None:
    """The live version's figure with its number where it changes, and the bound."""
    at = range(len(points))
    bounds = {place: point.bound for place, point in enumerate(points) if point.bound is not None}
    values = [math.nan if point.live_value is None else point.live_value for point in points]
    if bounds:
        axes.plot(
            *zip(*bounds.items(), strict=True), "--", color=colours.bound, linewidth=1.2, label="the strictest gate"
        )
    if not all(map(math.isnan, values)):
        axes.step(at, values, where="mid", color=colours.live, linewidth=1.2, alpha=0.7, label="live version")
    shown = [
        (place, point)
        for place, point in enumerate(points)
        if point.live_value is not None and (place == 0 or point.live != points[place - 1].live)
    ]
    for place, point in shown[:: -math.ceil(len(shown) / NUMBERS) or -1]:  # the newest in any case
        place_above: dict[str, Any] = {
            "textcoords": "offset points",
            "ha": "center",
            "fontsize": 7,
            "color": colours.live,
        }
        axes.annotate(f"v{point.live}", (place, point.live_value or 0), (0, 6), **place_above)


def _runs(axes: Axes, points: tuple[Point, ...], colours: Colours) -> None:
    """A mark for each run; on the lower edge where nothing was measured."""
    styles = {  # of each outcome: marker, colour, filling, words
        "published": ("o", colours.live, colours.live, "published"),
        "judged": ("o", colours.live, colours.paper, "passed, not published"),
        "refused": ("X", colours.refused, colours.refused, "refused"),
        "unchanged": ("|", colours.ink, colours.ink, "unchanged"),
        "failed": ("x", colours.refused, colours.refused, "failed before a verdict"),
        "unfinished": ("x", colours.ink, colours.ink, "killed or interrupted"),
    }
    for outcome, (marker, colour, filling, words) in styles.items():
        there = [(at, point) for at, point in enumerate(points) if point.outcome == outcome]
        found = [(at, value) for at, point in there if (value := _height(point)) is not None]
        label: str | None = words
        look: dict[str, Any] = {
            "marker": marker,
            "color": colour,
            "markerfacecolor": filling,
            "linestyle": "",
            "markersize": 7,
        }
        if found:
            axes.plot(*zip(*found, strict=True), **look, label=label, zorder=3)
            label = None
        if edge := [at for at, point in there if _height(point) is None]:
            upright = axes.get_xaxis_transform()
            axes.plot(edge, [0.03] * len(edge), **look, label=label, transform=upright, zorder=3)


def _height(point: Point) -> float | None:
    """Where a run is drawn: one that has changed nothing beside the live version."""
    return point.live_value if point.outcome == "unchanged" else point.value


def _is_wide(points: tuple[Point, ...]) -> bool:
    found = [value for point in points for value in (point.value, point.live_value, point.bound) if value is not None]
    return bool(found) and 0 < min(found) * SPAN < max(found)


def _dates(dates: list[str]) -> list[str]:
    """Days; or, of a single one, times."""
    moments = [datetime.fromisoformat(date) for date in dates]
    is_one = len({moment.date() for moment in moments}) == 1 < len(moments)
    return [f"{moment:%H:%M}" if is_one else f"{moment:%-d %b}" for moment in moments]
