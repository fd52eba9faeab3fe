"""Pictures of a search, as PNG: how it went, what it found where, what mattered, and what that is worth."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from tasks.judging import figures
from tasks.judging.search_facts import Scale, importances, interval, searched, word
from tasks.store import artifact_paths
from tasks.store.record import FileRef
from tasks.store.tuned import Setting, Trial, Tuned

Array = NDArray[np.float64]
SHOWN = 0.9  # of the losses have room; those above lie on the upper edge
MARKERS = {"complete": ("o", "C0"), "pruned": ("v", "0.6"), "diverged": ("x", "C3")}


def draw(trials: Sequence[Trial], tuned: Tuned, folder: Path) -> list[FileRef]:
    """Every picture that these trials are enough for, in a run's folder; trials need at least one loss."""
    fields = searched(trials)
    drawn = [history(trials, folder / artifact_paths.TUNING_HISTORY)]
    if fields:
        drawn.append(slices(trials, fields, folder / artifact_paths.TUNING_SLICES))
        drawn.append(parallel(trials, fields, folder / artifact_paths.TUNING_PARALLEL, tuned.trial))
    if shares := importances(trials, fields):
        drawn.append(mattered(shares, folder / artifact_paths.TUNING_IMPORTANCES))
    if tuned.validation_losses and tuned.default_losses:
        drawn.append(winner(tuned, folder / artifact_paths.TUNING_WINNER))
    return drawn


class _Losses(NamedTuple):
    """The losses of the trials: as they are (NaN where one diverged), and where they lie in a picture."""

    found: Array
    shown: Array  # none above the upper edge, so that the best can be told apart
    scale: Scale

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "_Losses":
        found = np.array([math.nan if trial.validation_loss is None else trial.validation_loss for trial in trials])
        best, most = float(np.nanmin(found)), float(np.nanquantile(found, SHOWN))
        scale = Scale.of([best, most], few=0)
        top = most * (most / best) ** 0.1 if scale.by_decades else most + 0.1 * (most - best)
        return cls(found, np.fmin(np.nan_to_num(found, nan=top), top), scale)

    @property
    def name(self) -> str:
        """Of the upright axis: whether some lie on its edge."""
        top = float(self.shown.max())
        return f"validation loss, at most {top:.3g}" if np.nanmax(self.found) > top else "validation loss"

    @property
    def axis(self) -> dict[str, str]:
        """How the upright axis is to be."""
        return {"ylabel": self.name, "yscale": "log" if self.scale.by_decades else "linear"}


def _of_complete(trials: Sequence[Trial], losses: Array) -> Array:
    """The losses of those that came to their end, else NaN: one that was given up may have had a better one."""
    return np.where([trial.outcome == "complete" for trial in trials], losses, math.nan)


def _short(value: Setting) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def history(trials: Sequence[Trial], path: Path) -> FileRef:
    """The loss of every trial in their order, and the best so far."""
    losses = _Losses.of(trials)
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for outcome, (marker, colour) in MARKERS.items():
        at = [index for index, trial in enumerate(trials) if trial.outcome == outcome]
        if at:
            axes.scatter(
                [trials[index].number for index in at], losses.shown[at], s=22, c=colour, marker=marker, label=outcome
            )
    numbers, best = [trial.number for trial in trials], np.fmin.accumulate(_of_complete(trials, losses.found))
    axes.step(numbers, best, where="post", color="C1", label="best so far")
    axes.set(xlabel="trial", title="History", **losses.axis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4)
    return figures.save(figure, path)


def slices(trials: Sequence[Trial], fields: Sequence[str], path: Path) -> FileRef:
    """The loss over the values of each field; later trials are darker."""
    losses = _Losses.of(trials)
    columns = min(3, len(fields))
    rows = math.ceil(len(fields) / columns)
    figure = Figure(figsize=(3.4 * columns + 0.6, 2.9 * rows), layout="constrained")
    every = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    numbers = [trial.number for trial in trials]
    for axes, field in zip(every, fields, strict=False):
        values = [trial.settings.get(field) for trial in trials]
        scale = Scale.of(values)
        places = [scale.place(value) for value in values]
        points = axes.scatter(places, losses.shown, c=numbers, cmap="viridis_r", s=20)
        if scale.few:
            axes.set_xticks([scale.place(value) for value in scale.few], [_short(value) for value in scale.few])
        elif scale.by_decades:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())  # in a narrow panel these names would overlap
        axes.set(xlabel=word(field))
        axes.grid(alpha=0.3)
    for axes in every[len(fields) :]:
        axes.set_axis_off()
    for axes in every[::columns]:
        axes.set(**losses.axis)
    figure.colorbar(points, ax=list(every), label="trial", ticks=MaxNLocator(integer=True), shrink=0.8)
    return figures.save(figure, path)


def parallel(trials: Sequence[Trial], fields: Sequence[str], path: Path, found: int | None = None) -> FileRef:
    """A line for each trial through its settings to its loss; the one that was ``found`` is drawn over all others."""
    losses = _Losses.of(trials)
    figure = Figure(figsize=(1.7 * len(fields) + 2.6, 4.2), layout="constrained")
    axes = figure.subplots()
    places = [
        _upright(axes, at, word(field), [t.settings.get(field) for t in trials]) for at, field in enumerate(fields)
    ]
    places.append(_upright(axes, len(fields), losses.name.replace(", ", "\n"), losses.shown.tolist()))
    lines = np.array(places).T
    order = np.argsort(-losses.shown, kind="stable")
    across = np.arange(len(places))
    drawn = [np.column_stack([across, lines[trial]]) for trial in order]
    collection = LineCollection(drawn, cmap="viridis", alpha=0.6, linewidths=1)
    collection.set_array(lines[order, -1])
    axes.add_collection(collection)
    best = [at for at, trial in enumerate(trials) if trial.number == found]
    best = best or [int(np.nanargmin(_of_complete(trials, losses.found)))]
    axes.plot(across, lines[best[0]], color="C3", linewidth=2.5)
    axes.set(xlim=(-0.35, len(fields) + 0.35), ylim=(-0.06, 1.08), title="Parallel coordinates: the winner in red")
    axes.set_axis_off()
    return figures.save(figure, path)


def _upright(axes: Axes, at: int, name: str, values: Sequence[Setting | None]) -> list[float]:
    """An upright axis of its own from 0 to 1; where each value lies on it."""
    scale = Scale.of(values)
    places = np.array([scale.place(value) for value in values])
    low, high = float(np.nanmin(places)), float(np.nanmax(places))
    middle = math.sqrt(low * high) if scale.by_decades else (low + high) / 2
    ticks = {scale.place(value): _short(value) for value in scale.few} or {
        at: f"{at:.3g}" for at in (low, middle, high)
    }
    number = np.log if scale.by_decades else np.asarray
    span = float(number(high) - number(low)) or 1.0
    axes.axvline(at, 0.05, 0.94, color="0.4", linewidth=0.8)
    axes.text(at, 1.03, name, ha="center", va="bottom", fontsize=9)
    for tick, words in ticks.items():
        height, behind = float(number(tick) - number(low)) / span, {"color": "white", "alpha": 0.7, "pad": 0.5}
        axes.text(at + 0.04, height, words, ha="left", va="center", fontsize=8, bbox=behind)
    found: list[float] = ((number(places) - number(low)) / span).tolist()
    return found


def mattered(shares: dict[str, float], path: Path) -> FileRef:
    """How much each field decides."""
    figure = Figure(figsize=(6.4, 0.4 * len(shares) + 1.3), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([word(field) for field in shares], list(shares.values()))
    axes.bar_label(bars, [f"{share:.0%}" for share in shares.values()], padding=3)
    axes.set(xlabel="share in what the best tenth of the trials have in common", title="Importances (PED-ANOVA)")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    return figures.save(figure, path)


def winner(tuned: Tuned, path: Path) -> FileRef:
    """The winner beside the settings of before: each seed, their mean and its interval."""
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.subplots()
    both = {"found": tuned.validation_losses, "before": tuned.default_losses}
    for at, losses in enumerate(both.values()):
        mean, low, high = interval(losses)
        axes.plot(losses, [at] * len(losses), "o", color=f"C{at}", alpha=0.5)
        axes.errorbar([mean], [at + 0.2], xerr=[[mean - low], [high - mean]], fmt="D", color=f"C{at}", capsize=4)
    axes.set_yticks(range(2), list(both))
    axes.set(
        ylim=(1.6, -0.5),
        xlabel="validation loss",
        title=f"{len(tuned.validation_losses)} seeds, their mean and its 95 % interval",
    )
    axes.grid(alpha=0.3, axis="x")
    return figures.save(figure, path)
