"""Trials of softmax regression on pixels, in stacks each of which advances as one product a step."""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.fitting import devices
from tasks.fitting.building import build
from tasks.fitting.image_learning import Learner
from tasks.fitting.learning import Parts
from tasks.judging.objective import Objective
from tasks.networks.centring import mean_and_curvature
from tasks.networks.examples import Split
from tasks.networks.schedules import learning_rates
from tasks.networks.side_by_side import SoftmaxRegressions
from tasks.networks.softmax_scratch import dropout
from tasks.parameters import Training
from tasks.records import PreparedDataset

WEIGHTS = 2**26  # of a stack, 256 MB: those of larger pictures gain nothing by lying in one


@dataclass(eq=False)
class Member:
    """A trial of a stack; its ``training`` has every value that was found."""

    index: int
    training: Training
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        steps = self.training.steps
        self.rates = list(learning_rates(self.training.schedule, steps.lr, steps.num_epochs))


class Alike(NamedTuple):
    """What the trials of a stack have in common, so that they see the same inputs."""

    seed: int
    batch_size: int
    dropout: float
    is_centred: bool


@dataclass(frozen=True)
class Shared:
    """What all stacks have in common."""

    data: Parts[Split]
    prepared: PreparedDataset
    class_weights: Tensor | None
    mean: Tensor


class Stack:
    """Trials that advance an epoch at a time, in the order and with the masks that each would have alone."""

    def __init__(self, members: list[Member], alike: Alike, shared: Shared) -> None:
        self.members, self._alike, self._data = members, alike, shared.data
        device = shared.data.train.device
        with devices.seeded(device, alike.seed) as self._order:
            net, _ = build(members[0].training, shared.prepared, self._order, device)
            self._masks = torch.Generator(device).manual_seed(alike.seed)
            if device.type == "cpu":  # whose masks the loop draws by torch's own, after the network's start
                self._masks.set_state(torch.get_rng_state())
        W = net.weights()["W"].T  # noqa: N806  (the book's letter)
        mean = shared.mean if alike.is_centred else None
        self._net = SoftmaxRegressions(W, len(members), shared.class_weights, mean)

    @property
    def work(self) -> float:
        """How long an epoch takes beside another stack's: a step of a minibatch of 64 takes half that of one of 256."""
        return len(self.members) * (1 + 128 / self._alike.batch_size)

    def advance(self) -> None:
        """Train one epoch, and note the loss on the validation part."""
        started, split, epoch = time.perf_counter(), self._data.train, len(self.members[0].losses)
        self._net.begin(
            self._each([member.rates[epoch] for member in self.members]),
            self._each([member.training.steps.weight_decay for member in self.members]),
        )
        order = torch.randperm(len(split), generator=self._order).to(split.device)
        for index in order.split(self._alike.batch_size):
            X, y = split.minibatch(index)  # noqa: N806
            kept = dropout(X, self._alike.dropout, self._masks) if self._alike.dropout else X
            self._net.step(kept, y)
        losses = self._net.losses(self._data.test).tolist()
        seconds = (time.perf_counter() - started) / len(self.members)
        for member, loss in zip(self.members, losses, strict=True):
            member.losses.append(loss)
            member.seconds += seconds

    def keep(self, members: Sequence[Member]) -> None:
        """Go on with these alone."""
        self._net.keep([self.members.index(member) for member in members])
        self.members = list(members)

    def _each(self, values: list[float]) -> Tensor:
        return torch.tensor(values, device=self._data.train.device)


def of(
    trainings: Sequence[Training], seeds: Sequence[int], data: Parts[Split], prepared: PreparedDataset, workers: int
) -> list[Stack]:
    """All trials, in stacks: enough of them for all ``workers``."""
    weights = Objective.of(trainings[0], prepared).class_weights
    mean, curvature = mean_and_curvature(data.train)
    class_weights = torch.tensor(weights, device=mean.device) if weights else None
    shared = Shared(data, prepared, class_weights, mean)
    groups = defaultdict(list)
    for index, (training, seed) in enumerate(zip(trainings, seeds, strict=True)):
        found, is_centred = _found(training, data, prepared, curvature)
        alike = Alike(seed, found.steps.batch_size, found.dropout, is_centred)
        groups[alike].append(Member(index, found))
    room = max(1, WEIGHTS // (data.train.num_inputs * len(prepared.class_names)))
    return [
        Stack(members[start : start + size], alike, shared)
        for alike, members in groups.items()
        for size in [min(room, _size(len(members), len(trainings), workers))]
        for start in range(0, len(members), size)
    ]


def _size(num_alike: int, num_trials: int, workers: int) -> int:
    """How many go into a stack: groups that weigh are parted evenly, so that no worker waits for another."""
    return num_alike if 2 * workers * num_alike <= num_trials else math.ceil(num_alike / workers)


def _found(
    training: Training, data: Parts[Split], prepared: PreparedDataset, curvature: float
) -> tuple[Training, bool]:
    """A training with every value, and whether its pixels are centred: own pictures have rules for both."""
    if not prepared.is_own:
        return training, False
    learner = Learner(training, prepared, Objective.of(training, prepared), data.train.device)
    found = learner.found(len(data.train), learner.objective.weight_decay)
    return found, learner.is_to_centre(found.steps.lr, curvature)
