"""The fit beside which a model of own pictures is seen: the same objective on some of them, minimised for a while.

It is recorded only: training stops early on purpose, and pictures that are fitted to the end are often told worse.
"""

from dataclasses import dataclass

import numpy as np

from tasks.judging import reference
from tasks.judging.objective import Objective
from tasks.judging.reference import Reference
from tasks.machine.arrays import Array

MAX_ROWS = 10_000
MAX_ITERATIONS = 100
MAX_PRODUCTS = 4e9  # rows times inputs times classes; beyond, nothing is fitted
VALUES = 2**21  # pixels that are multiplied at a time: 8 MB


@dataclass(frozen=True)
class Pictures:
    """Some pictures ``images[rows]`` ``(n, …)`` uint8, which are never float32 all at once."""

    images: Array
    rows: Array
    scale: float  # of a pixel

    @property
    def num_inputs(self) -> int:
        """How many pixels a picture has, channels counted."""
        return int(np.prod(self.images.shape[1:]))

    def scores(self, weights: Array) -> Array:
        """Of ``weights`` ``(inputs + 1, outputs)``, of which the last are the bias: ``(n, outputs)`` float64."""
        scaled = (weights[:-1] * self.scale).astype(np.float32)
        found = [self._pixels(piece) @ scaled for piece in self._pieces()]
        return np.asarray(np.concatenate(found).astype(np.float64) + weights[-1])

    def transposed(self, rows: Array) -> Array:
        """The pixels, and a last input of ones, times ``rows`` ``(n, outputs)``: ``(inputs + 1, outputs)`` float64."""
        total = np.zeros((self.num_inputs + 1, rows.shape[1]))
        for piece in self._pieces():
            total[:-1] += self._pixels(piece).T @ (rows[piece] * self.scale).astype(np.float32)
        total[-1] = rows.sum(axis=0)
        return total

    def _pieces(self) -> list[slice]:
        size = max(1, VALUES // self.num_inputs)
        return [slice(start, start + size) for start in range(0, len(self.rows), size)]

    def _pixels(self, piece: slice) -> Array:
        chosen = self.rows[piece]
        return self.images[chosen].reshape(len(chosen), -1).astype(np.float32)


def fit(
    images: Array, truth: Array, rows: Array, scale: float, num_outputs: int, objective: Objective
) -> Reference | None:
    """Minimise ``objective`` over ``rows`` of training pictures, by ``MAX_ITERATIONS`` of L-BFGS at most.

    None where it would take minutes.
    """
    inputs, labels = Pictures(images, rows, scale), truth[rows]
    if len(rows) * inputs.num_inputs * num_outputs > MAX_PRODUCTS:
        return None
    start = np.zeros((inputs.num_inputs + 1, num_outputs))
    weights = reference.descended(start, inputs, labels, objective, MAX_ITERATIONS)
    left = reference.left_of_slope(weights, start, inputs, labels, objective)
    return Reference({"W": weights[:-1], "b": weights[-1]}, len(rows), left)


def scores(fitted: Reference, images: Array, scale: float) -> Array:
    """Scores ``(n, outputs)`` of all ``images``."""
    weights = np.concatenate([fitted.weights["W"], fitted.weights["b"][np.newaxis]])
    return Pictures(images, np.arange(len(images)), scale).scores(weights)
