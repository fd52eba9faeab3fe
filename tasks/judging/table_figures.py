"""Pictures of models of own tables: what they have learned, and how far their answers are off."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.judging import figures
from tasks.judging.painter import painted
from tasks.machine.words import readable
from tasks.serving.raw_units import Coefficient
from tasks.store.record import FileRef

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

POINTS = 5_000  # in a scatter plot
SMALLEST, LARGEST = 6.0, 40.0  # areas of a point, in square points of type: few are to be seen as well as many
INKED = 4_000.0  # the area that all points have together, within these bounds
TICKS = 5  # on an axis of raw units, whose numbers may be long
LONGEST = 28  # characters of a column's name beside a bar


@painted
def coefficients(found: Sequence[Coefficient], unit: str, path: Path) -> FileRef:
    """Bars of sizes, the largest on top, each with its value in the units of the data at its end."""
    figure = figures.blank(figsize=(6.4, 1.2 + 0.32 * len(found)), layout="constrained")
    axes = figure.subplots()
    places = range(len(found))
    bars = axes.barh(places, [each.size for each in found])
    axes.bar_label(bars, [readable(each.value) for each in found], padding=3, fontsize=9)
    axes.set_yticks(places, [figures.short(each.name, LONGEST) for each in found], fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.35)  # for the values at the bars
    axes.axvline(0, color="black", linewidth=0.8)
    axes.locator_params(axis="x", nbins=TICKS)
    figure.suptitle("Largest coefficients (at the bars: a unit's)")  # over the names too, which may be long
    figure.supxlabel(f"{unit}\na deviation of the column, or a level", fontsize=10)
    return figures.save(figure, path)


@painted
def residuals(predicted: Array, truth: Array, path: Path) -> FileRef:
    """Left: ``truth`` minus ``predicted`` ``(n,)`` by prediction. Right: how often each residual is."""
    figure = figures.blank(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1], sharey=True)
    _scatter(left, predicted, truth - predicted)
    left.axhline(0, color="black", linewidth=0.8)
    left.locator_params(axis="x", nbins=TICKS)
    left.set(title="Residuals on the test split", xlabel="prediction", ylabel="target - prediction")
    right.hist(truth - predicted, bins=40, orientation="horizontal")
    right.set(xlabel="rows")
    return figures.save(figure, path)


@painted
def predicted_and_true(predicted: Array, truth: Array, path: Path) -> FileRef:
    """Predictions ``(n,)`` by the truth, beside the diagonal of perfect ones."""
    figure = figures.blank(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, truth, predicted)
    axes.axline((float(truth.mean()),) * 2, slope=1, linestyle="--", color="black", linewidth=1, label="perfect")
    axes.locator_params(nbins=TICKS)
    axes.set(title="Predicted against true", xlabel="target", ylabel="prediction")
    axes.legend(loc="upper left")
    return figures.save(figure, path)


@painted
def thresholds(score: Array, is_positive: Array, class_name: str, path: Path) -> FileRef:
    """Of every threshold of a score ``(n,)``: ROC (left) and precision-recall (right), against a model by chance."""
    true_rate, false_rate, precision = rates(score, is_positive)
    share = float(is_positive.mean())
    figure = figures.blank(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(false_rate, true_rate, label=f"area {np.trapezoid(true_rate, false_rate):.3f}")
    left.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="chance")
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    average = float(np.sum(np.diff(true_rate) * precision[1:]))
    right.step(true_rate, precision, where="pre", label=f"average precision {average:.3f}")
    right.axhline(share, linestyle="--", color="black", linewidth=1, label="chance")
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    for axes in (left, right):
        axes.legend(loc="lower center", title=f"positive: {figures.short(class_name)}")
    return figures.save(figure, path)


@painted
def by_period(periods: Sequence[Mapping[str, Any]], metric: str, path: Path) -> FileRef:
    """A metric of each period of the test split, with its 95 % interval."""
    figure = figures.blank(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    values = np.array([each["metrics"][metric] for each in periods])
    ends = np.array([each["intervals"][metric] for each in periods]).T
    axes.errorbar(range(len(periods)), values, np.maximum(np.abs(ends - values), 0), fmt="o", capsize=3)
    axes.set_xticks(range(len(periods)), [each["period"] for each in periods], rotation=30, ha="right", fontsize=8)
    axes.set(title=f"{metric} on the test split by period, with 95 % intervals")
    return figures.save(figure, path)


@painted
def rates(score: Array, is_positive: Array) -> tuple[Array, Array, Array]:
    """Recall, false positive rate and precision at every threshold, from above the largest score down, as shares.

    ``score`` and ``is_positive`` are ``(n,)``; each answer has one value for every distinct score, and one above all.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # equal scores pass together
    hits = np.cumsum(is_positive[order])[ends]
    passed = ends + 1
    positives, negatives = max(int(is_positive.sum()), 1), max(int((~is_positive).sum()), 1)
    recall, false_rate = np.append(0.0, hits / positives), np.append(0.0, (passed - hits) / negatives)
    return recall, false_rate, np.append(1.0, hits / passed)


def _scatter(axes: "Axes", x: Array, y: Array) -> None:
    """Points of some rows, the larger the fewer there are."""
    shown = _shown(len(x))
    area = min(LARGEST, max(SMALLEST, INKED / len(shown)))
    axes.scatter(x[shown], y[shown], s=area, alpha=0.7, linewidths=0)


def _shown(count: int) -> Array:
    """Which of so many rows a scatter plot has, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(np.int64))
