"""A batch of trials that one process trains, and when each of them stops."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.fitting import devices
from tasks.fitting.tuning import parts
from tasks.fitting.tuning.parts import TrialParts
from tasks.fitting.tuning.study import Asked
from tasks.fitting.tuning.together import try_out
from tasks.parameters import Training
from tasks.records import PreparedDataset
from tasks.store.tuned import Setting, Trial

LATE = 5  # a fifth


@dataclass(frozen=True)
class Batch:
    """Everything that a process elsewhere needs to know to train some trials."""

    title: str
    prepared: PreparedDataset
    base: Training  # whose seed and validation share decide which examples are held out
    asked: tuple[Asked, ...]
    limits: tuple[float, ...] = ()  # by epoch, the loss above which a trial is given up
    deadline: float = math.inf  # in seconds since 1970

    def run(self, ended: Callable[[Trial], None]) -> None:
        """Train them, and tell of each when it has ended; not of those that the deadline cut off."""
        data = data_of(self.prepared, self.base)
        trainings = [applied(self.base, asked.settings) for asked in self.asked]
        stopping = Stopping([training.num_epochs for training in trainings], self.limits, self.deadline)
        seeds = [asked.seed for asked in self.asked]
        for tried in try_out(trainings, seeds, data, self.prepared, stopping):
            if tried.outcome != "pruned" or tried.index not in stopping.cut_off:
                asked, losses = self.asked[tried.index], tried.losses
                counted = late(losses, converges=trainings[tried.index].num_epochs is None)
                ended(
                    Trial(
                        number=asked.number,
                        settings=asked.settings,
                        validation_loss=statistics.fmean(counted) if counted and tried.outcome != "diverged" else None,
                        losses=losses,
                        epochs=len(losses),
                        seconds=round(tried.seconds, 3),
                        outcome=tried.outcome,
                    )
                )


def late(losses: tuple[float, ...], converges: bool) -> tuple[float, ...]:
    """Those that a trial is chosen by: of the last fifth of its epochs, or, where it ``converges``, of the last.

    At a rate that does not fall the loss leaps, and the best last epoch of many trials is luck: of 64 on Fashion-MNIST
    the winner had 0.431 after 0.488, and with other seeds a test accuracy of 0.79 to 0.84.
    """
    return losses[-1:] if converges else losses[len(losses) - math.ceil(len(losses) / LATE) :]


class Stopping:
    """Asked after every epoch of every trial whether it ends there: it falls behind, or the time is over.

    None is given up in the first half of its epochs: large learning rates, which a schedule then makes small, are the
    worst there, and among the best at the end (of 32 trials on Fashion-MNIST the best would have been given up in its
    fourth epoch, and from the half on none of the best four).
    """

    def __init__(self, num_epochs: Sequence[int | None], limits: tuple[float, ...], deadline: float) -> None:
        self._first = [(each or len(limits)) // 2 for each in num_epochs]  # unknown: as long as the longest before
        self._limits, self._deadline = limits, deadline
        self._best: dict[int, float] = {}
        self.cut_off: set[int] = set()  # trials of which nothing can be said: the time was over

    def __call__(self, index: int, epoch: int, loss: float) -> bool:
        """``epoch`` counts from 1."""
        if time.time() > self._deadline:
            self.cut_off.add(index)
            return True
        self._best[index] = min(loss, self._best.get(index, math.inf))
        is_comparable = self._first[index] < epoch <= len(self._limits)
        return is_comparable and self._best[index] > self._limits[epoch - 1]


Ended = Callable[[Trial], None]  # is told of each trial
RunBatches = Callable[[Sequence[Batch], Ended], None]


def applied(base: Training, settings: dict[str, Setting]) -> Training:
    """How a trial of these settings trains; only the search itself gives a trial up."""
    values = base.model_dump() | {"defaults": base.defaults, "patience": None} | settings
    return type(base).model_validate(values)


def data_of(prepared: PreparedDataset, base: Training) -> TrialParts:
    """What all trials of a process share, read once, until ``forget``.

    Raises:
        UsageError: so few examples are left for training, or held out, that they say nothing.
        DataError: a file is missing or has changed since it was prepared.
    """
    key = prepared.digest + base.model_dump_json()
    if key not in _READ:
        forget()
        _READ[key] = parts.of(prepared, base, devices.resolve(base.device))
    return _READ[key]


def forget() -> None:
    """Let go of the data."""
    _READ.clear()


_READ: dict[str, TrialParts] = {}
