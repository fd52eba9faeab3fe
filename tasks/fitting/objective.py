"""What training minimises, in numpy: shared by training, the reference fit and the gates of own data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from tasks.data.recipe import Recipe
from tasks.machine.arrays import Array
from tasks.networks import HUBER_BETA
from tasks.parameters import Hyperparameters, Loss, Training
from tasks.records import PreparedDataset


@dataclass(frozen=True)
class Objective:
    """A mean loss, and half of ``weight_decay`` times the squared norm of all weights but the bias.

    Categories enter with their effects as learned, before centring. ``scores`` are ``(n, outputs)``, ``y_true``
    ``(n,)``: labels, or a target in the units of its scores, where ``scale`` is one standard deviation; the penalty
    belongs to a target in deviations, whose ``scale`` is 1.
    """

    loss: Loss
    weight_decay: float = 0.0
    class_weights: tuple[float, ...] = ()  # of the rows of each class; empty: all count alike
    scale: float = 1.0

    @classmethod
    def choose(cls, training: Training, prepared: PreparedDataset, steps: Hyperparameters | None = None) -> Self:
        """The requested objective; ``steps`` have what training found for settings that are ``auto``."""
        decay, counts = (steps or training).weight_decay, prepared.class_counts
        return cls.build(training.loss, decay, prepared.num_train, training.class_weight, counts, prepared.recipe)

    @classmethod
    def build(
        cls,
        loss: Loss,
        weight_decay: float | str | None,
        num_train: int,
        class_weight: str,
        class_counts: tuple[int, ...],
        recipe: Recipe,
    ) -> Self:
        """The objective for ``num_train`` training rows, with ``class_counts`` rows in each class.

        If no number is requested, a regression has no penalty, and a classifier has the ridge penalty of C = 1, with
        which separable classes have a finite solution too: 1/(2n) times the squared norm.
        """
        if not isinstance(weight_decay, float | int):
            weight_decay = 1 / num_train if loss is Loss.CROSS_ENTROPY else 0.0
        weights = balance_classes(class_counts) if class_weight == "balanced" else ()
        return cls(loss, weight_decay, weights, recipe.target_scaling.scale)

    @property
    def is_of_classes(self) -> bool:
        """Whether labels are predicted, and losses are in nats."""
        return self.loss is Loss.CROSS_ENTROPY

    def losses(self, scores: Array, y_true: Array) -> Array:
        """The loss of each row ``(n,)`` float64: in nats, or in squared units of the target."""
        return self._losses_and_slopes(scores, y_true)[0]

    def _losses_and_slopes(self, scores: Array, y_true: Array) -> tuple[Array, Array]:
        """The losses, and their derivatives by each score ``(outputs, n)``: sums over a short last axis are slow."""
        if self.is_of_classes:
            rows, slopes = np.arange(len(y_true)), np.array(scores.T, np.float64, order="C")
            largest, own = slopes.max(axis=0), slopes[y_true, rows]
            slopes -= largest
            np.exp(slopes, out=slopes)
            slopes /= (sums := slopes.sum(axis=0))
            slopes[y_true, rows] -= 1
            return np.log(sums) + largest - own, slopes
        off = (scores[:, 0].astype(np.float64) - y_true) / self.scale
        size, slopes = np.abs(off), off
        losses = size**2 / 2
        if self.loss is Loss.HUBER:
            losses = np.where(size < HUBER_BETA, size**2 / (2 * HUBER_BETA), size - HUBER_BETA / 2)
            slopes = np.clip(off / HUBER_BETA, -1, 1)
        return losses * self.scale**2, slopes[None] * self.scale

    def loss_of(self, deviations: float) -> float:
        """For a regression: the loss of a row whose prediction is off by this many target deviations."""
        return float(self.losses(np.array([[deviations * self.scale]]), np.zeros(1))[0])

    def row_weights(self, y_true: Array) -> Array:
        """How much each row counts ``(n,)`` float64."""
        if not self.class_weights:
            return np.ones(len(y_true))
        return np.array(self.class_weights)[y_true]

    def mean(self, scores: Array, y_true: Array) -> float:
        """The mean loss, without the penalty."""
        return float(np.average(self.losses(scores, y_true), weights=self.row_weights(y_true)))

    def penalty(self, weights: Mapping[str, Array]) -> float:
        """What is added to the mean loss for ``weights``, which are named as in a trained model."""
        return self.weight_decay / 2 * sum(float((values**2).sum()) for name, values in weights.items() if name != "b")

    def mean_and_gradient(self, scores: Array, y_true: Array) -> tuple[float, Array]:
        """The mean loss, and its derivative with respect to each score ``(n, outputs)``."""
        total, slopes, weight = self.sum_and_gradient(scores, y_true)
        return total / weight, slopes / weight

    def sum_and_gradient(self, scores: Array, y_true: Array) -> tuple[float, Array, float]:
        """The weighted sum of the losses, its derivative by each score ``(n, outputs)``, and the sum of the weights."""
        weights = self.row_weights(y_true)
        losses, slopes = self._losses_and_slopes(scores, y_true)
        slopes *= weights
        return float(losses @ weights), slopes.T, float(weights.sum())

    def curvatures(self, scores: Array, y_true: Array) -> Array:
        """The second derivatives of the weighted losses by each row's scores, ``(n, outputs, outputs)``."""
        weights = self.row_weights(y_true)
        if self.is_of_classes:
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            curvatures = shares[:, :, np.newaxis] * (np.eye(shares.shape[1]) - shares[:, np.newaxis])
        else:
            off = np.abs(scores[:, 0] - y_true) / self.scale
            steep = (off < HUBER_BETA) / HUBER_BETA if self.loss is Loss.HUBER else np.ones(len(off))
            curvatures = steep[:, np.newaxis, np.newaxis]
        return np.asarray(curvatures * weights[:, np.newaxis, np.newaxis])


def balance_classes(class_counts: tuple[int, ...]) -> tuple[float, ...]:
    """With these weights every class that has rows counts as much as any other, and all ``n`` rows as ``n``."""
    present = sum(count > 0 for count in class_counts)
    return tuple(sum(class_counts) / (present * count) if count else 0.0 for count in class_counts)
