"""How far a table is trained where nobody said it, and why."""

import math
from typing import NamedTuple

import torch

from tasks.parameters import Implementation, Loss, Steps, Training

MANY_ROWS = 50_000  # up to here a pass is so short that every step may see all rows
MANY_SCORES = 1_000_000  # of all rows: the same where there are many classes
WHITENED_INPUTS = 1000  # whose covariance is inverted in half a second and held in 8 MB
BATCH_SIZE = 4096  # a step's arithmetic outweighs its calls
LARGEST_BATCH_SIZE = 2**15  # a step's calls are next to nothing, its noise is a third
STEPS = 40  # a pass, before minibatches grow
SEEN_ROWS = 500_000  # by minibatches, at least: the noise of a hundred weights is then a ten-thousandth of a nat
MOST_EPOCHS = 2000  # of one step each; scikit-learn's digits, ten classes of which most are separable, need 1000
MOST_PASSES = 100  # of minibatches
SETTLED = 5e-4  # of the objective: twice the steps of minibatches gained no more, so what is left is less
MOMENTUM = 0.9  # the book's: where curvature falls to a hundredth on the way, ten times as fast
MINIBATCH_MOMENTUM = 0.5  # of minibatches more lets their noise last: tried on a class of 1 % and one of 24 %
TOLERANCE = 1e-5  # of the gradient at the start; the objective is then within 1e-6 of its optimum

# The second derivative of each loss by its output, at most; of cross-entropy it is that of softmax (Böhning, 1992).
# Steps of one over it go down for certain, and those of a squared loss end at its optimum at once.
CURVATURE = {Loss.SQUARED: 1.0, Loss.HUBER: 2.0, Loss.CROSS_ENTROPY: 0.5}


class Way(NamedTuple):
    """How a table is trained: what its inputs ask for."""

    is_whole: bool  # every step sees all rows, in float64, until the objective has converged
    num_whitened: int  # the first inputs, in all directions; the others one by one
    momentum: float

    @property
    def dtype(self) -> torch.dtype:
        """Of inputs and weights: only steps of all rows come so near the optimum that float32 would be in the way."""
        return torch.float64 if self.is_whole else torch.float32


def way(training: Training, num_rows: int, num_numbers: int, num_slots: int = 0, num_outputs: int = 1) -> Way:
    """Which way fits these rows and inputs.

    Squared loss, whitened, is at its optimum after one step of all rows, which pays for any number of them. Dropout is
    noise that no step of all rows is rid of.
    """
    num_inputs = num_numbers + num_slots
    num_whitened = next((count for count in (num_inputs, num_numbers) if count <= WHITENED_INPUTS), 0)
    at_once = training.loss is Loss.SQUARED and num_whitened == num_inputs
    wants_whole = (num_rows <= MANY_ROWS and num_rows * num_outputs <= MANY_SCORES) or at_once
    if training.batch_size is not None:
        wants_whole = training.batch_size >= num_rows
    if not wants_whole or training.dropout:
        return Way(False, num_whitened, MINIBATCH_MOMENTUM)
    return Way(True, num_whitened, 0.0 if at_once else MOMENTUM)


def steps(training: Training, chosen: Way, num_rows: int, weight_decay: float) -> Steps:
    """What was given, and what follows from the data where it was not."""
    batch_size = training.batch_size or (num_rows if chosen.is_whole else minibatch(num_rows))
    num_epochs = MOST_EPOCHS if chosen.is_whole else MOST_PASSES
    return Steps(
        num_epochs=training.num_epochs or num_epochs,
        batch_size=batch_size,
        lr=training.lr or 1 / (CURVATURE[training.loss] * loss_factor(training)),
        weight_decay=weight_decay,
    )


def minibatch(num_rows: int) -> int:
    """How many rows a minibatch has: each about as many, for a last one of a few rows would bring in its noise."""
    most = min(num_rows, LARGEST_BATCH_SIZE, max(BATCH_SIZE, num_rows // STEPS))
    return math.ceil(num_rows / math.ceil(num_rows / most))


def least_passes(num_rows: int) -> int:
    """How many passes of minibatches there are at least, unless a number is given."""
    return min(MOST_PASSES, math.ceil(SEEN_ROWS / num_rows))


def loss_factor(training: Training) -> float:
    """How many times our losses a network's own is: ``nn.MSELoss`` has no half."""
    return 2.0 if training.loss is Loss.SQUARED and training.implementation is Implementation.CONCISE else 1.0


VALIDATION = 0.2  # share of the training rows on which a weight decay is chosen


def decays(loss: Loss, num_rows: int) -> tuple[float, ...]:
    """From which a weight decay is chosen: powers of ten around what a classifier has by rule, of deviations else."""
    if loss is Loss.CROSS_ENTROPY:
        return tuple(10.0**power / num_rows for power in range(-1, 4))
    return (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def damping(spread: float, batch_size: int, num_rows: int) -> float:
    """What is added to the covariance for steps of minibatches, so that no example moves its own output too far.

    An example alone in its minibatch has ``spread / batch_size`` of curvature along itself, and a rare level far less
    than that on average; with all rows in a step there is nothing to damp.
    """
    return spread * max(0.0, 1 / batch_size - 1 / num_rows)
