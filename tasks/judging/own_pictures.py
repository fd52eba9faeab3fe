"""What is told of models of own pictures beyond other classifiers: weights and mistakes as pictures, bright or dark."""

import numpy as np

from tasks.judging import classification, image_figures, standards
from tasks.judging.candidate import Candidate
from tasks.machine.arrays import Array
from tasks.store.artifact_paths import CLASS_WEIGHTS
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder

MOST_PICTURES = 1_000  # whose pixels are averaged


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
    drawn = [image_figures.class_weights(weights, prepared.class_names, run.file(CLASS_WEIGHTS))]
    if (label != candidate.test.y_true).any():
        drawn.append(classification.misclassified(candidate, label, confidence, run))
    return drawn
