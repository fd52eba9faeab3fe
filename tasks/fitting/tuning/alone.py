"""Trials one after the other, by the loop that retraining has: those of tables, and of the book's linear regression."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

import torch

from tasks.data.recipe import Columns
from tasks.fitting import table_learner, table_learning, tables
from tasks.fitting.building import build
from tasks.fitting.learning import Parts, epochs
from tasks.networks.examples import Examples, Split
from tasks.networks.moments import Moments
from tasks.networks.tables import Table
from tasks.parameters import Training
from tasks.records import PreparedDataset


class Losses(Protocol):
    """The validation loss of a training after each epoch, from a seeded generator."""

    @property
    def device(self) -> torch.device:
        """Where it is trained."""

    def __call__(self, training: Training, generator: torch.Generator) -> Iterator[float]:
        """Train one more epoch for every loss that is taken."""


class OfBook:
    """Trials of the book's linear regression."""

    def __init__(self, data: Parts[Split], prepared: PreparedDataset) -> None:
        self._data, self._prepared, self.device = data._replace(validation=None), prepared, data.train.device

    def __call__(self, training: Training, generator: torch.Generator) -> Iterator[float]:
        """Half the mean squared error of the validation part after each epoch."""
        net, optimizer = build(training, self._prepared, generator, self.device)
        for measured in epochs(net, optimizer, self._data, training, generator):
            yield measured.test["loss"]


class OfTable:
    """Trials of one table; what all trials that are trained in one way share is made once."""

    def __init__(self, data: Parts[Table], prepared: PreparedDataset, recipe: Columns, seed: int) -> None:
        self._data, self._prepared, self._recipe, self._seed = data, prepared, recipe, seed
        self.device = data.train.device
        self._shared: dict[object, tuple[Parts[Examples], Future[Moments]]] = {}

    def __call__(self, training: Training, generator: torch.Generator) -> Iterator[float]:
        """The validation loss after each epoch, of a regression half the mean squared error in the target's units."""
        way = table_learning.way_of(training, self._prepared, self._recipe)
        encoding = self._data.train.encoding.to(way.dtype)
        learner = table_learning.learner_of(training, self._prepared, encoding, way, generator)
        data, inputs = self._of_way(learner)
        learning = learner.begin(data, inputs, learner.objective.weight_decay)
        for measured in table_learning.in_raw_units(learning.epochs, self._recipe, self._prepared):
            weighted = learner.objective.class_weights
            yield table_learner.loss(learning.net, data.test, learner.objective) if weighted else measured.test["loss"]

    def _of_way(self, learner: table_learner.Learner) -> tuple[Parts[Examples], Future[Moments]]:
        key = learner.way, learner.objective.class_weights
        if key not in self._shared:
            both = (each.in_precision(learner.way.dtype) for each in (self._data.train, self._data.test))
            train, test = (tables.kept(each, learner.way.is_whole) for each in both)
            drawn = torch.Generator().manual_seed(self._seed)  # its own, so that no trial depends on an earlier one
            self._shared[key] = Parts(train, None, test), replace(learner, generator=drawn).moments(train)
        return self._shared[key]
