"""Pictures of images under their labels, and of what a linear model of them looks for."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.judging import figures
from tasks.judging.painter import painted
from tasks.machine.arrays import Array
from tasks.store.record import FileRef

INK, WRONG = "#7d7d7d", "#d64545"  # of words on no ground of their own: to be read on light and dark pages

COLUMNS = 5
MOST_CLASSES = 40
LONGEST_ABOVE = 16  # of one above an image


@painted
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
    figure = figures.blank(figsize=(1.9 * num_columns + 0.9, cell * num_rows + 0.6), layout="constrained")
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


@painted
def image_grid(
    images: NDArray[np.uint8], predicted: Sequence[str], true: Sequence[str] | None, path: Path, num_columns: int = 9
) -> FileRef:
    """Images ``(n, height, width)`` or in colour ``(…, 3)``, under true and predicted label, errors red.

    As the book's ``predict_ch3``; all in one mosaic: axes of their own would take most of a second to draw. What is
    between the images is transparent.
    """
    num_rows = max(1, math.ceil(len(images) / num_columns))
    height, width = images.shape[1:3]
    gap = max(2, width // 4, 5 * height // 4 - width)  # between the columns
    head = max(height // 2, math.ceil(0.3 * (width + gap)))  # room for two lines of text
    mosaic = np.zeros((num_rows * (height + head), num_columns * (width + gap), 4), np.uint8)
    size = (1.25 * num_columns, 1.25 * num_rows * (height + head) / (width + gap))
    figure = figures.blank(figsize=size, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for index, image in enumerate(images):
        top = index // num_columns * (height + head) + head
        left = index % num_columns * (width + gap) + gap // 2
        mosaic[top : top + height, left : left + width, :3] = image if image.ndim == 3 else image[..., None]
        mosaic[top : top + height, left : left + width, 3] = 255
        wrong = true is not None and true[index] != predicted[index]
        lines = [predicted[index]] if true is None else [true[index], predicted[index]]
        title = "\n".join(figures.short(line, LONGEST_ABOVE) for line in lines)
        colour = WRONG if wrong else INK
        axes.text(left + width / 2, top - 1, title, fontsize=8, color=colour, ha="center", va="bottom")
    axes.imshow(mosaic, aspect="auto")
    return figures.save(figure, path)
