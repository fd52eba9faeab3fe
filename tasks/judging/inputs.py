"""Rows of a table as the reference fit sees them: standardised numbers, and a sparse indicator of each level."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tasks.data.recipe import Columns
from tasks.machine.arrays import Array


@dataclass(frozen=True)
class Inputs:
    """What weights are multiplied with: standardised numbers ``(n, numbers)`` and a sparse indicator of each slot."""

    numbers: Array
    indicators: Any  # scipy.sparse.csr_array (n, slots)

    @classmethod
    def of(cls, features: Array, recipe: Columns) -> Self:
        """Of raw rows ``(n, columns)``; what is missing is the mean, and a code without a slot has no indicator."""
        columns = [recipe.columns[at] for at in recipe.numbers]
        numbers = features[:, list(recipe.numbers)].astype(np.float64)
        numbers -= np.array([column.mean or 0.0 for column in columns])
        numbers /= np.array([column.scale for column in columns])
        return cls(np.nan_to_num(numbers, copy=False, nan=0.0), _indicators(features, recipe))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and weights for each output but its bias."""
        return len(self.numbers), self.numbers.shape[1] + self.indicators.shape[1]

    def scores(self, weights: Array) -> Array:
        """Of ``weights`` ``(numbers + slots + 1, outputs)``, of which the last are the bias."""
        count = self.numbers.shape[1]
        return np.asarray(self.numbers @ weights[:count] + self.indicators @ weights[count:-1] + weights[-1])

    def transposed(self, rows: Array) -> Array:
        """The same inputs, and a last one of ones, times ``rows`` ``(n, outputs)``."""
        return np.concatenate([self.numbers.T @ rows, self.indicators.T @ rows, rows.sum(axis=0, keepdims=True)])

    def covariance(self) -> tuple[Array, Array]:
        """The covariance of all inputs ``(weights, weights)`` and their mean."""
        mixed = self.indicators.T @ self.numbers
        products = np.block([[self.numbers.T @ self.numbers, mixed.T], [mixed, self._counts()]])
        mean = self.transposed(np.ones((len(self.numbers), 1)))[:-1, 0] / len(self.numbers)
        return products / len(self.numbers) - np.outer(mean, mean), mean

    def _counts(self) -> Array:
        return np.asarray((self.indicators.T @ self.indicators).toarray())


def _indicators(features: Array, recipe: Columns) -> Any:
    """Where each row has which level: a sparse 1 in the slot of every category's code."""
    import scipy.sparse  # here, as in the functions below: the book's own data need none of it

    rows, slots, start = [], [], 0
    for at in recipe.categories:
        column = recipe.columns[at]
        found = column.slots()[_codes(features[:, at], len(column.levels))]
        (known,) = np.nonzero(found >= 0)
        rows.append(known)
        slots.append(found[known] + start)
        start += column.num_slots
    places = tuple(np.concatenate([np.empty(0, np.int64), *each]) for each in (rows, slots))
    return scipy.sparse.coo_array((np.ones(len(places[0])), places), shape=(len(features), start)).tocsr()


def _codes(values: Array, num_levels: int) -> Array:
    """Codes of the training part, all of them known, as indices of slots; NaN is missing."""
    return np.where(np.isnan(values), num_levels, values).astype(np.int64)
