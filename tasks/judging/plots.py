"""Pictures of a run: each function takes plain numbers and returns a figure, which ``save`` writes as PNG."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.machine import fonts
from tasks.machine.arrays import Array
from tasks.records import Epoch
from tasks.store import atomic
from tasks.store.record_base import FileRef
from tasks.store.state import Trend

if TYPE_CHECKING:  # code that only draws a trend has no use for what measures
    from tasks.judging.metrics import CalibrationBins

ZERO: dict[str, Any] = {"color": "black", "linewidth": 0.8}
IDEAL: dict[str, Any] = {"color": "black", "linewidth": 1, "linestyle": "--"}  # perfect, or by chance
DPI = 110
LONGEST = 40  # characters of a name that are shown


def save(figure: Figure, path: Path) -> FileRef:
    """Write ``figure`` atomically, as evidence for a run."""
    return atomic.write_bytes(path, render_png(figure), is_durable=False)


def render_png(figure: Figure) -> bytes:
    """A figure as PNG; the same figure gives the same bytes (no software version inside)."""
    with io.BytesIO() as stream, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for a letter that the font lacks
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})  # savefig draws everything twice
        return stream.getvalue()


def shorten(name: str, longest: int = LONGEST) -> str:
    """A name shortened to fit in a picture; ``$`` stands for itself and does not begin a formula."""
    name = fonts.escape_letters(name)
    kept = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return kept.replace("$", r"\$")


def make_figure(width: float, height: float, is_constrained: bool = True) -> Figure:
    """A figure of this size in inches, laid out by matplotlib if it ``is_constrained``."""
    mpl.rcParams["font.family"] = fonts.list_families()
    return Figure((width, height), dpi=DPI, layout="constrained" if is_constrained else None)


def subplots(width: float, height: float, *grid: int, **options: Any) -> tuple[Figure, Any]:
    """A figure of this size in inches, and its axes: one, or those of a ``grid`` of rows and columns."""
    figure = make_figure(width, height, "gridspec_kw" not in options)
    return figure, figure.subplots(*grid, **options)


# Training


MOST_MARKERS = 40  # on a line
LINES = {
    "train_loss": "o-", "validation_loss": "d-", "test_loss": "s:",
    "train_accuracy": "^--", "test_accuracy": "s-.", "validation_accuracy": "d:",
}  # fmt: skip


def draw_learning_curve(curve: Sequence[Epoch], kept_epoch: int | None = None) -> Figure:
    """What was measured by epoch (the book's Animator), as far as training went; no test loss if labels are learned.

    With ``kept_epoch`` and held-out examples, it also marks the epoch whose weights were kept.
    """
    figure, axes = subplots(6.4, 4)
    every, has_labels = math.ceil(len(curve) / MOST_MARKERS), curve[0].train_accuracy is not None
    for name, line in LINES.items():
        epochs, values = zip(*((point.epoch, getattr(point, name)) for point in curve), strict=True)
        if None not in values and not (has_labels and name == "test_loss"):
            axes.plot(epochs, values, line, markersize=3, markevery=every, label=name.replace("_", " "))
    if kept_epoch is not None and curve[-1].validation_loss is not None:
        axes.axvline(kept_epoch, **ZERO, linestyle=":", label=f"kept: epoch {kept_epoch}")
    ylabel, yscale = ("loss (nats), accuracy", "linear") if has_labels else ("half mean squared error", "log")
    axes.set(xlabel="epoch", title="Learning curve", ylabel=ylabel, yscale=yscale)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")  # "best" searches for a place, and warns that this is slow on a busy machine
    return figure


# Classifiers

MOST_NAMED = 40  # classes that fit in a matrix
LONGEST_CLASS = 20


def draw_confusion_matrix(y_true: Array, answer: Array, class_names: Sequence[str]) -> Figure:
    """How often labels ``(n,)`` are confused: rows are true labels, columns predicted ones, shaded by share of the row.

    If there are too many classes, only those with the most wrong labels are shown.
    """
    count, is_wrong, title = len(class_names), y_true != answer, "Confusion matrix"
    mistakes = sum(np.bincount(each[is_wrong], minlength=count) for each in (y_true, answer))
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_NAMED])
    if len(shown) < count:
        title += f" of the {len(shown)} of {count} classes that are mistaken most"
    names, places = [shorten(class_names[at], LONGEST_CLASS) for at in shown], np.full(count, -1)
    places[shown] = range(len(shown))
    table = np.histogram2d(places[y_true], places[answer], np.arange(len(shown) + 1))[0]
    size = 0.55 * len(names) + 2 + 0.07 * max(map(len, names))
    figure, axes = subplots(size, size)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(table):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{number:.0f}", ha="center", va="center", fontsize=7, color=colour, in_layout=False)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def draw_reliability(bins: "CalibrationBins") -> Figure:
    """Accuracy by confidence, beside the diagonal of perfect calibration; the bars are as wide as the bins."""
    edges, width = np.linspace(0, 1, len(bins.counts), endpoint=False), 1 / len(bins.counts)
    figure, (upper, lower) = subplots(5, 5, 2, 1, height_ratios=[3, 1], sharex=True)
    upper.bar(edges, bins.accuracy, width, align="edge", edgecolor="white", label="accuracy")
    upper.plot([0, 1], [0, 1], **IDEAL, label="perfect calibration")
    upper.set(ylabel="accuracy", title="Reliability diagram", ylim=(0, 1))
    upper.legend(loc="upper left")
    lower.bar(edges, bins.counts, width, align="edge", edgecolor="white", color="grey")
    lower.set(xlabel="confidence", ylabel="examples", xlim=(0, 1))
    return figure


def draw_thresholds(score: Array, is_positive: Array, class_name: str) -> Figure:
    """For every threshold of a score ``(n,)``: ROC (left) and precision-recall (right), beside a model by chance."""
    recall, false_rate, precision = find_rates(score, is_positive)
    average = float(np.sum(np.diff(recall) * precision[1:]))
    figure, (left, right) = subplots(9, 4.2, 1, 2)
    left.plot(false_rate, recall, label=f"area {np.trapezoid(recall, false_rate):.3f}")
    left.plot([0, 1], [0, 1], **IDEAL, label="chance")
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    right.step(recall, precision, where="pre", label=f"average precision {average:.3f}")
    right.axhline(is_positive.mean(), **IDEAL, label="chance")
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    for axes in (left, right):
        axes.legend(loc="lower center", title=f"positive: {shorten(class_name)}")
    return figure


def find_rates(score: Array, is_positive: Array) -> tuple[Array, Array, Array]:
    """Recall, false positive rate and precision at every threshold, from above the largest score down, as shares.

    ``score`` and ``is_positive`` are ``(n,)``; each answer has one value for every distinct score, and one above all.
    """
    order = np.argsort(-score, kind="stable")
    passed = np.append(np.flatnonzero(np.diff(score[order])) + 1, len(score))  # equal scores pass together
    hits = np.cumsum(is_positive[order])[passed - 1]
    positives, negatives = max(int(is_positive.sum()), 1), max(int((~is_positive).sum()), 1)
    recall, false_rate = np.append(0.0, hits / positives), np.append(0.0, (passed - hits) / negatives)
    return recall, false_rate, np.append(1.0, hits / passed)


# Regressions

MOST_POINTS = 5_000  # in a scatter plot
INKED = 4_000.0  # the area that all points have together, in square points of type, within the limits below
SMALLEST, LARGEST = 6.0, 40.0  # areas of one point: a few must be as visible as many
TICKS = 5  # on an axis of raw units, whose numbers may be long


def draw_fit(learned: Sequence[float], true: Sequence[float] | None, residuals: Array, sigma: float) -> Figure:
    """Left: learned weights and bias beside the true ones. Right: residuals beside the normal density N(0, sigma²)."""
    figure, (left, right) = subplots(9, 4, 1, 2)
    positions = np.arange(len(learned))
    left.bar(positions - 0.2, learned, width=0.4, label="learned")
    if true is not None:
        left.bar(positions + 0.2, true, width=0.4, label="true")
    left.axhline(0, **ZERO)
    left.set_xticks(positions, [*(f"w{index}" for index in positions[:-1]), "b"])
    left.set(title="Parameters")
    right.hist(residuals, bins=40, density=True, alpha=0.5, label="residuals")
    x = np.linspace(residuals.min(), residuals.max(), 200, dtype=float)
    right.plot(x, [*map(NormalDist(sigma=sigma).pdf, x)], label=f"N(0, {sigma:.3g}²)")
    right.set(title="Residuals on the test split", xlabel="target - prediction", ylabel="density")
    for axes in (left, right):
        axes.legend(loc="upper right")
    return figure


def draw_residuals(predicted: Array, y_true: Array) -> Figure:
    """Left: ``y_true`` minus ``predicted`` ``(n,)`` by prediction. Right: a histogram of the residuals."""
    figure, (left, right) = subplots(9, 4, 1, 2, width_ratios=[2, 1], sharey=True)
    _draw_points(left, predicted, y_true - predicted)
    left.axhline(0, **ZERO)
    left.locator_params(axis="x", nbins=TICKS)
    left.set(title="Residuals on the test split", xlabel="prediction", ylabel="target - prediction")
    right.hist(y_true - predicted, bins=40, orientation="horizontal")
    right.set(xlabel="rows")
    return figure


def draw_predictions(predicted: Array, y_true: Array) -> Figure:
    """Predictions ``(n,)`` by the truth, beside the diagonal of perfect ones."""
    figure, axes = subplots(5, 5)
    _draw_points(axes, y_true, predicted)
    axes.axline((y_true.mean(), y_true.mean()), slope=1, **IDEAL, label="perfect")
    axes.locator_params(nbins=TICKS)
    axes.set(title="Predicted against true", xlabel="target", ylabel="prediction")
    axes.legend(loc="upper left")
    return figure


def _draw_points(axes: Axes, x: Array, y: Array) -> None:
    """Draw the points of some rows, evenly spread; the fewer they are, the larger."""
    shown = np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(np.int64)
    axes.scatter(x[shown], y[shown], s=np.clip(INKED / len(shown), SMALLEST, LARGEST), alpha=0.7, linewidths=0)


# Tables


def draw_periods(periods: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """A metric of each period of the test split, with its 95 % interval."""
    figure, axes = subplots(8, 3)
    values = np.array([each["metrics"][metric] for each in periods])
    ends = np.array([each["intervals"][metric] for each in periods]).T
    axes.errorbar(range(len(periods)), values, np.abs(ends - values), fmt="o", capsize=3)
    axes.set_xticks(range(len(periods)), [each["period"] for each in periods], rotation=30, ha="right", fontsize=8)
    axes.set(title=f"{metric} on the test split by period, with 95 % intervals")
    return figure


# Images

INK, WRONG = "#7d7d7d", "#d64545"  # for words without a background of their own: legible on light and dark pages
MOST_CLASSES = 40
COLUMNS_OF_WEIGHTS, COLUMNS_OF_IMAGES = 5, 9
INCHES = 1.25  # a column is wide
TWO_LINES = 0.36  # inches of names above an image
LONGEST_ABOVE = 16  # characters above an image


def draw_class_weights(weights: Array, class_names: Sequence[str]) -> Figure:
    """The weight of each pixel ``(classes, height, width)`` for each class, against the mean of all classes.

    Red means that a bright pixel speaks for a class, blue that it speaks against it. In colour ``(…, 3)``, each channel
    is as bright as its weight is large, so that grey means nothing and a hue is what the class looks like. All classes
    share one scale.
    """
    shown = weights[:MOST_CLASSES] - weights.mean(axis=0)
    most = float(np.abs(shown).max()) or 1.0
    pixels, said = 0.5 + shown / (2 * most), "a hue: for it where there is this colour"
    if shown.ndim == 3:
        pixels, said = mpl.colormaps["RdBu_r"](pixels)[..., :3], "red: for it where bright"
    more = f"the first {len(shown)} of {len(weights)} classes, " if len(shown) < len(weights) else ""
    columns = min(COLUMNS_OF_WEIGHTS, max(len(shown), 3))  # so that the heading has room
    heading = f"Weights of each class, to ±{most:.2g}\n({more}{said})"
    return _draw_images((255 * pixels).astype(np.uint8), [(name,) for name in class_names], columns, heading)


def draw_misclassified(images: NDArray[np.uint8], predicted: Sequence[str], true: Sequence[str]) -> Figure:
    """Images ``(n, height, width)`` or in colour ``(…, 3)``, under true and predicted labels.

    This is the book's ``predict_ch3``.
    """
    return _draw_images(images, [*zip(true, predicted, strict=True)], COLUMNS_OF_IMAGES)


def _draw_images(
    images: NDArray[np.uint8], names: Sequence[tuple[str, ...]], columns: int, heading: str = ""
) -> Figure:
    """Each image under its names, which are red where they differ; the space between the images is transparent."""
    rows, above = max(1, math.ceil(len(images) / columns)), 0.4 * bool(heading)
    tall = min(1.0, images.shape[1] / images.shape[2])  # inches: an image is at most one inch wide
    height = (tall + TWO_LINES) * rows + above
    place = {"left": 0.02, "right": 0.98, "bottom": 0.02, "top": 1 - (TWO_LINES + above) / height, "wspace": 0.25}
    place["hspace"] = TWO_LINES / tall
    figure, grid = subplots(INCHES * columns, height, rows, columns, squeeze=False, gridspec_kw=place)
    figure.set_facecolor("none")
    figure.suptitle(heading, x=0.01, ha="left", fontsize=9, color=INK)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, words in zip(grid.flat, images, names, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        title = "\n".join(shorten(each, LONGEST_ABOVE) for each in words)
        axes.set_title(title, fontsize=8, color=INK if words[0] == words[-1] else WRONG, pad=3)
    return figure


# The overview of a name

MARKS = {  # by outcome: colour and mark, and words
    "published": ("C0o", "published"),
    "judged": ("C0o", "passed, not published"),  # hollow
    "refused": ("C3X", "refused"),
    "unchanged": ("C7|", "unchanged"),
    "failed": ("C3x", "failed before a verdict"),
    "unfinished": ("C7x", "killed or interrupted"),
}
SPAN = 20  # losses that differ by such a factor are drawn by decades
DATES, NUMBERS = 6, 12  # that have room: days below the axis, versions above their line


def draw_trend(trend: Trend) -> bytes:
    """A PNG with every run's figure by outcome, the version live at that time as a step, and the gate's bound.

    A run that changed nothing is drawn beside the live version, one without measurements below all others.
    """
    points, places = trend.points, np.arange(len(trend.points))
    value, live, bound = known = np.array([(each.value, each.live_value, each.bound) for each in points], float).T
    low, high = (np.nanmin(known), np.nanmax(known)) if np.isfinite(known).any() else (0.0, 1.0)
    changes = [at for at in places[~np.isnan(live)] if at == 0 or points[at].live != points[at - 1].live]
    figure, axes = subplots(5.8, 3.7)
    is_log, title = trend.is_loss and 0 < low * SPAN < high, f"The last {len(points)} runs"
    axes.set(
        yscale="log" if is_log else "linear", ylabel=trend.figure, title=title if len(points) > 1 else "The last run"
    )
    if (is_bound := ~np.isnan(bound)).any():
        axes.plot(places[is_bound], bound[is_bound], "C1--", label="the strictest gate")
    if changes:
        axes.step(places, live, "C0", where="mid", alpha=0.7, label="live version")
    outcomes = np.array([each.outcome for each in points])
    height = np.where(outcomes == "unchanged", live, value)
    below = low / 1.5 if is_log else low - (high - low or abs(low) or 1) / 10
    height[np.isnan(height)] = below
    for outcome, (mark, words) in MARKS.items():
        if (is_of := outcomes == outcome).any():
            filling = "none" if outcome == "judged" else "full"
            axes.plot(places[is_of], height[is_of], mark, fillstyle=filling, markersize=7, zorder=3, label=words)
    for at in changes[:: -math.ceil(len(changes) / NUMBERS) or -1]:  # always includes the newest
        above: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"v{points[at].live}", (at, live[at]), **above, fontsize=7, color="C0")
    shown = places[:: math.ceil(len(points) / DATES)]
    axes.set_xticks(shown, tell_dates([points[at].date for at in shown]))
    axes.margins(x=0.04, y=0.15)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return render_png(figure)


def tell_dates(dates: Sequence[str]) -> list[str]:
    """Dates as days, or as times if all are on a single day."""
    moments = [datetime.fromisoformat(date) for date in dates]
    is_one = len({moment.date() for moment in moments}) == 1 < len(moments)
    return [f"{moment:%H:%M}" if is_one else f"{moment:%-d %b}" for moment in moments]
