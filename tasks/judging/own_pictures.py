"""What is told of models of own pictures beyond other classifiers: weights and mistakes as pictures, bright or dark."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tasks.judging import classification, figures, standards
from tasks.judging.candidate import Candidate
from tasks.machine.arrays import Array
from tasks.store.artifact_paths import CLASS_WEIGHTS
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

MOST_PICTURES = 1_000  # whose pixels are averaged
MOST_CLASSES = 40  # whose weights are drawn
COLUMNS = 5


def brightness(candidate: Candidate) -> dict[str, float]:
    """Mean training pixels, 0…255: of the ``border``, a pixel wide, and of the ``middle``, half of each side.

    Where they differ much, things are light on dark or dark on light.
    """
    images = standards.read_rows(candidate.prepared.train, candidate.prepared).features
    some = images[np.linspace(0, len(images) - 1, min(MOST_PICTURES, len(images))).astype(int)]
    height, width = some.shape[1:3]
    inner = np.zeros((height, width), bool)
    inner[1:-1, 1:-1] = True
    middle = some[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    return {"border": float(some[:, ~inner].mean()), "middle": float(middle.mean())}


def draw(candidate: Candidate, label: Array, confidence: Array, run: RunFolder) -> list[FileRef]:
    """The weights of each class, and what was misclassified; ``label`` and ``confidence`` ``(n,)`` are its answers."""
    prepared = candidate.prepared
    weights = candidate.weights["W"].T.reshape(-1, *prepared.recipe.input.shape)
    drawn = [class_weights(weights, prepared.class_names, run.file(CLASS_WEIGHTS))]
    if (label != candidate.test.truth).any():
        drawn.append(classification.misclassified(candidate, label, confidence, run))
    return drawn


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
