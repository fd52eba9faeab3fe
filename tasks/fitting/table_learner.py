"""The network of a user's own table and its epochs: whitened, until the objective has converged."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tasks.fitting import rules, tables
from tasks.fitting.building import build_for_table, optimizer
from tasks.fitting.learning import Learning, Parts
from tasks.judging.objective import Objective
from tasks.machine import side_by_side
from tasks.networks.examples import Examples
from tasks.networks.tabular import (
    AveragedSGD,
    Encoding,
    Moments,
    PreconditionedSGD,
    Preconditioner,
    compute_moments,
    make_preconditioner,
    shuffle_in_parts,
    train_epoch_whole,
    until_converged,
    until_settled,
)
from tasks.networks.training import Epoch, Measured, Network, learning_rates, outputs, stop_early, train
from tasks.parameters import Steps, Training
from tasks.records import PreparedDataset

SAMPLE = 2**15  # rows whose covariance stands for that of millions: minibatches need no better
SCORES = 2**17  # of a sample of rows, by which the objective is followed from pass to pass


@dataclass(frozen=True)
class Learner:
    """Everything that training needs but the penalty."""

    training: Training
    prepared: PreparedDataset
    encoding: Encoding
    way: rules.Way
    objective: Objective  # of a target in deviations
    class_weights: Tensor | None
    generator: torch.Generator

    @property
    def num_slots(self) -> int:
        """How many effects are learned and kept."""
        return self.encoding.num_slots

    def moments(self, split: Examples) -> Future[Moments]:
        """Those of the inputs, in a thread: exact where steps see all rows, else of a sample."""
        return side_by_side.beside(self._moments, split if self.way.is_whole else self._sample(split, SAMPLE))

    def _moments(self, split: Examples) -> Moments:
        encoding, first = self.encoding, self.way.num_whitened
        found = compute_moments(split, len(encoding.numbers), self.num_slots, self.class_weights, first, encoding.pairs)
        if not self.way.is_whole or self.objective.is_of_classes or len(found.variances):
            return found
        offsets = encoding.mean / encoding.scale
        return found.with_effective_rank(torch.cat([offsets.squeeze(1), offsets.new_zeros(self.num_slots)]))

    def begin(self, data: Parts[Examples], inputs: Future[Moments], weight_decay: float) -> Learning:
        """The network at its start, and the epochs that train it on these parts."""
        steps = rules.steps(self.training, self.way, len(data.train), weight_decay)
        training = self.training.model_copy(update=steps.model_dump())
        rows: Examples = data.train
        run_epoch: Epoch = train_epoch_whole
        if not self.way.is_whole and self.training.num_epochs is None:
            rows = self._sample(data.train, SCORES // max(1, len(self.prepared.class_names)))
        if not self.way.is_whole:
            run_epoch = AveragedSGD(
                side_by_side.ahead(shuffle_in_parts(len(data.train), self.generator)), side_by_side.ahead
            )
        net = build_for_table(training, self.prepared, self.encoding, self.class_weights)
        net = net.to(data.train.device).to(self.encoding.mean.dtype)
        whitened = PreconditionedSGD(
            optimizer(training, net, 0.0, self.way.momentum),
            net,
            side_by_side.beside(
                self._make_preconditioner, inputs, steps, len(data.train)
            ),  # while the first minibatch is drawn
            self.num_slots,
            weight_decay * rules.loss_factor(training),
        )
        rates = learning_rates(training.schedule, steps.lr, steps.num_epochs)
        epochs = train(
            net,
            whitened,
            data.train,
            data.test,
            rates,
            steps.batch_size,
            self.generator,
            data.validation,
            run_epoch,
        )
        if self.training.num_epochs is None:
            epochs = self._to_the_end(epochs, net, whitened, run_epoch, rows, len(data.train), weight_decay)
        if training.patience:
            epochs = stop_early(epochs, net, training.patience)
        return Learning(net, epochs, training, len(data.train), len(data.validation or ()), self.num_slots)

    def _make_preconditioner(self, inputs: Future[Moments], steps: Steps, num_rows: int) -> Preconditioner:
        found = inputs.result()
        ridge = steps.weight_decay / rules.CURVATURE[self.training.loss]
        if not self.way.is_whole:
            ridge += rules.damping(found.spread, steps.batch_size, num_rows)
        inverse = found.inverse(ridge, len(self.encoding.numbers) + len(self.encoding.categories))
        return make_preconditioner(found, inverse, self.encoding.frequencies, self.way.dtype)

    def _to_the_end(
        self,
        epochs: Iterator[Measured],
        net: Network,
        whitened: PreconditionedSGD,
        run_epoch: Epoch,
        rows: Examples,
        num_rows: int,
        weight_decay: float,
    ) -> Iterator[Measured]:
        """As many epochs as it takes; after a pass of minibatches the objective is that of a sample of the rows."""
        if not isinstance(run_epoch, AveragedSGD):
            return until_converged(epochs, lambda: float(whitened.decrement()), rules.TOLERANCE)
        sample = side_by_side.beside(tables.kept, rows, True)  # while steps are taken
        objective = replace(self.objective, weight_decay=weight_decay)

        def value() -> float:
            learned = {name: each.detach().cpu().numpy() for name, each in net.weights().items()}
            return loss(net, sample.result(), objective) + objective.penalty(learned)

        def halfway() -> float:
            with run_epoch.at_halfway(net):
                return value()

        return until_settled(epochs, value, halfway, rules.SETTLED, rules.least_passes(num_rows))

    def _sample(self, split: Examples, size: int) -> Examples:
        if len(split) <= size:
            return split
        return split.at(torch.randint(len(split), (size,), generator=self.generator).to(split.device))


def loss(net: Network, examples: Examples, objective: Objective) -> float:
    """The mean loss, without the penalty."""
    scores = outputs(net, examples).cpu().numpy()
    return objective.mean(scores.reshape(len(scores), -1), examples.y.cpu().numpy())
