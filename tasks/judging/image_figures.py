"""Pictures of what a linear model of images looks for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tasks.judging import figures
from tasks.store.record import FileRef

Array = NDArray[Any]

COLUMNS = 5
MOST_CLASSES = 40


def class_weights(weights: Array, class_names: Sequence[str], path: Path) -> FileRef:
    """The weight of each pixel ``(classes, height, width)`` for each class, against the mean of all classes.

    Red speaks for a class where a picture is bright, blue against it; of colour ``(…, 3)`` each channel is as bright as
    its weight is large, so that grey says nothing and a hue is what the class looks like. All classes have one scale.
    """
    shown = weights[:MOST_CLASSES] - weights.mean(axis=0)
    most = float(np.abs(shown).max()) or 1.0
    num_columns = min(COLUMNS, len(shown))
    num_rows = -(-len(shown) // num_columns)
    cell = 1.9 * min(2.0, shown.shape[1] / shown.shape[2]) + 0.3  # with its name
    figure = Figure(figsize=(1.9 * num_columns + 0.9, cell * num_rows + 0.6), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    is_grey = shown.ndim == 3
    pixels = shown if is_grey else 0.5 + shown / (2 * most)
    drawn = [axes.imshow(each, cmap="RdBu_r", vmin=-most, vmax=most) for axes, each in zip(grid, pixels, strict=False)]
    for axes, name in zip(grid[: len(shown)], class_names, strict=False):
        axes.set_title(figures.short(name, 20), fontsize=9)
    said = "a hue: for it where there is this colour"
    if is_grey:
        figure.colorbar(drawn[0], ax=grid.tolist(), aspect=30)
        said = "red: for it where bright"
    more = f"the first {len(shown)} of {len(weights)} classes, " if len(shown) < len(weights) else ""
    figure.suptitle(f"Weights of each class ({more}{said})", fontsize=10)
    return figures.save(figure, path)
