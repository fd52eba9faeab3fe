"""What became of a trial, and when it ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

ShouldStop = Callable[[int, int, float], bool]  # the trial's index, the epoch from 1, and the validation loss
Outcome = Literal["complete", "pruned", "diverged"]


@dataclass(frozen=True)
class Tried:
    """One trial at its end, by its index in the batch."""

    index: int
    losses: tuple[float, ...]  # finite ones, of the validation part, by epoch
    outcome: Outcome
    seconds: float  # of one core; of trials that share their products its share

    @classmethod
    def of(cls, index: int, losses: list[float], outcome: Outcome, seconds: float) -> Self:
        """A trial with the losses that it had until it diverged, if it did."""
        return cls(index, tuple(filter(math.isfinite, losses)), outcome, seconds)


def outcome(index: int, losses: list[float], num_epochs: int | None, should_stop: ShouldStop) -> Outcome | None:
    """How a trial ends with its last epoch; None: it goes on. ``num_epochs`` None: until it has converged."""
    if not math.isfinite(losses[-1]):
        return "diverged"
    stops = should_stop(index, len(losses), losses[-1])
    if len(losses) == num_epochs:
        return "complete"
    return "pruned" if stops else None
