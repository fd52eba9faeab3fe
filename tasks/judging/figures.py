"""Pictures of a run, as PNG. Each takes plain numbers and a path, and is drawn by the painter where one is at hand."""

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tasks.judging.painter import painted
from tasks.machine import lettering
from tasks.machine.arrays import Array
from tasks.records import Epoch
from tasks.store import atomic
from tasks.store.record import FileRef

if TYPE_CHECKING:  # it takes half a second to import, and where a painter draws nobody needs it
    from matplotlib.figure import Figure

    from tasks.judging.metrics import CalibrationBins


def blank(**size_and_layout: Any) -> "Figure":
    """A figure with nothing on it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["font.family"] = lettering.families()
    return Figure(**size_and_layout)


def save(figure: "Figure", path: Path) -> FileRef:
    """Write ``figure`` atomically, as evidence of a run."""
    return atomic.write_bytes(path, png(figure), is_kept=False)


def png(figure: "Figure") -> bytes:
    """A figure as PNG; the same figure gives the same bytes (no software version inside)."""
    with io.BytesIO() as stream, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for a letter that the font lacks
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
        return stream.getvalue()


class Curves(NamedTuple):
    """Which fields of an epoch the learning curve of a task shows, and on what axis."""

    fields: tuple[str, ...]
    ylabel: str
    yscale: str


MOST_MARKERS = 40  # on a line
LINES = {
    "train_loss": "o-", "validation_loss": "d-", "test_loss": "s:",
    "train_accuracy": "^--", "test_accuracy": "s-.", "validation_accuracy": "d:",
}  # fmt: skip


@painted
def learning_curve(curve: Sequence[Epoch], shown: Curves, path: Path, kept_epoch: int | None = None) -> FileRef:
    """What was measured by epoch (the book's Animator), so far as it was.

    With ``kept_epoch`` and examples held out to watch, also whose weights were kept.
    """
    from matplotlib.ticker import MaxNLocator

    figure = blank(figsize=(6.4, 4))
    axes = figure.add_axes((0.14, 0.12, 0.83, 0.79))  # finding a layout would take as long as all the rest
    epochs = [point.epoch for point in curve]
    every = math.ceil(len(curve) / MOST_MARKERS)
    for name in shown.fields:
        values = [getattr(point, name) for point in curve]
        if None not in values:
            axes.plot(epochs, values, LINES[name], markersize=3, markevery=every, label=name.replace("_", " "))
    if kept_epoch is not None and curve[-1].validation_loss is not None:
        axes.axvline(kept_epoch, color="black", linewidth=0.8, linestyle=":", label=f"kept: epoch {kept_epoch}")
    axes.set(xlabel="epoch", title="Learning curve", ylabel=shown.ylabel, yscale=shown.yscale)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")  # "best" looks for a place, and warns on a busy machine that this takes long
    return save(figure, path)


MOST_COUNTED = 40  # classes whose matrix has room for counts
MOST_NAMED = 100  # classes whose names can be read
MOST_MISTAKES = 30  # that are told one by one
LONGEST = 40  # characters of a name


def short(name: str, longest: int = LONGEST) -> str:
    """A name as a picture has room for it; ``$`` stands for itself and begins no formula."""
    name = lettering.spelt(name)
    kept = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return kept.replace("$", r"\$")


@painted
def confusion_matrix(counts: ArrayLike, class_names: Sequence[str], path: Path) -> FileRef:
    """Counts ``(classes, classes)``: rows are true labels, columns predicted ones, shaded by share of the row.

    Of more classes than can be named, the recall that they have and what is taken for what most often.
    """
    table, count = np.asarray(counts), len(class_names)
    if count > MOST_NAMED:
        return _confusions(table, class_names, path)
    names = [short(name, 20) for name in class_names]
    size = 0.55 * count + 2 + 0.07 * max(map(len, names)) if count <= MOST_COUNTED else 14
    font = 10 if count <= MOST_COUNTED else 5
    figure = blank(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), number in np.ndenumerate(table) if count <= MOST_COUNTED else ():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(number), ha="center", va="center", fontsize=7, color=colour, in_layout=False)
    axes.set_xticks(range(count), names, rotation=45, ha="right", fontsize=font)
    axes.set_yticks(range(count), names, fontsize=font)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    return save(figure, path)


def _confusions(table: Array, class_names: Sequence[str], path: Path) -> FileRef:
    """Left: how many classes have which recall. Right: the most frequent mistakes, with the rows of the true class."""
    rows, correct = table.sum(axis=1), np.diag(table)
    mistakes = table - np.diag(correct)
    most = np.argsort(-mistakes, axis=None, kind="stable")[:MOST_MISTAKES]
    pairs = [(true, label) for true, label in zip(*np.unravel_index(most, table.shape), strict=True)]
    figure = blank(figsize=(12, 8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 2])
    left.hist(correct[rows > 0] / rows[rows > 0], bins=20, range=(0, 1))
    left.set(title="Recall", xlabel="recall", ylabel="classes")
    bars = right.barh(range(len(pairs)), [mistakes[pair] for pair in pairs])
    right.bar_label(bars, [f"{mistakes[pair]} of {rows[pair[0]]}" for pair in pairs], padding=3, fontsize=8)
    names = [f"{short(class_names[true], 20)} → {short(class_names[label], 20)}" for true, label in pairs]
    right.set_yticks(range(len(pairs)), names, fontsize=8)
    right.invert_yaxis()
    right.margins(x=0.12)
    right.set(title="Most frequent mistakes: true → predicted", xlabel="rows")
    return save(figure, path)


@painted
def reliability(bins: "CalibrationBins", path: Path) -> FileRef:
    """Accuracy by confidence, beside the diagonal of perfect calibration; bar widths are the bins."""
    counts, accuracy, width = bins.counts, bins.accuracy, 1 / len(bins.counts)
    edges = np.arange(len(counts)) * width
    figure = blank(figsize=(5, 5))
    upper = figure.add_axes((0.15, 0.34, 0.82, 0.6))  # as for the learning curve, a layout would have to be found
    lower = figure.add_axes((0.15, 0.1, 0.82, 0.2), sharex=upper)
    upper.tick_params(labelbottom=False)
    upper.bar(edges, accuracy, width=width, align="edge", edgecolor="white", label="accuracy")
    upper.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="perfect calibration")
    upper.set(ylabel="accuracy", title="Reliability diagram", ylim=(0, 1))
    upper.legend(loc="upper left")
    lower.bar(edges, counts, width=width, align="edge", edgecolor="white", color="grey")
    lower.set(xlabel="confidence", ylabel="examples", xlim=(0, 1))
    return save(figure, path)


@painted
def fit(learned: Sequence[float], true: Sequence[float] | None, residuals: Array, sigma: float, path: Path) -> FileRef:
    """Left: learned beside true weights and bias. Right: residuals beside the normal density N(0, sigma²)."""
    figure = blank(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    positions = np.arange(len(learned))
    left.bar(positions - 0.2, learned, width=0.4, label="learned")
    if true is not None:
        left.bar(positions + 0.2, true, width=0.4, label="true")
    left.axhline(0, color="black", linewidth=0.8)
    left.set_xticks(positions, [*(f"w{index}" for index in positions[:-1]), "b"])
    left.set(title="Parameters")
    left.legend(loc="upper right")
    right.hist(residuals, bins=40, density=True, alpha=0.5, label="residuals")
    x = np.linspace(residuals.min(), residuals.max(), 200, dtype=float)
    density = np.exp(-((x / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    right.plot(x, density, label=f"N(0, {sigma:.3g}²)")
    right.set(title="Residuals on the test split", xlabel="target - prediction", ylabel="density")
    right.legend(loc="upper right")
    return save(figure, path)
