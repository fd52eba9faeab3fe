"""User tables: one-hot categories without zeros, steps that collinear columns do not slow down, averaged weights.

The book's networks have none of this. What is learned is the same kind of model, ``XW + b``, where the categories of a
row select rows of a weight matrix.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tasks.networks import metrics
from tasks.networks.examples import DeviceExamples, Split
from tasks.networks.softmax_regression import LossFunction
from tasks.networks.training import (
    Network,
    Optimizer,
    ScratchNetwork,
    average_metrics,
    concatenate,
    copy_parameters,
    set_parameters,
)

# Categories: one-hot inputs pick rows of a weight matrix, so rows are gathered and no zero is multiplied.
#
# ``effects`` are ``(slots, outputs)``, stored so that ``effects.T`` is contiguous. A category selects one of them by
# its code. Columns with few codes are taken in pairs, so that an example needs half as many lookups: ``crossed_slots``
# ``(combinations, 2)`` int64 has the two slots of each combination of codes, and ``category_indices`` ``(n, groups)``
# int64 say which combination an example has. A column that is left alone is paired with "nobody", whose slot comes
# after all others and has no effect. Column by column, a gather is five times as fast as row by row, and its gradient
# fifty times as fast as that of ``nn.EmbeddingBag``.


def sum_effects(effects: Tensor, crossed_slots: Tensor, category_indices: Tensor) -> Tensor:
    """The sum of the effects of each example's categories, ``(n, outputs)``."""
    with_nobody = nn.functional.pad(effects.T, (0, 1)).T
    return _sum_rows(_sum_rows(with_nobody, crossed_slots), category_indices)


def differentiate_effects(g: Tensor, effects: Tensor, crossed_slots: Tensor, category_indices: Tensor) -> Tensor:
    """The gradient by ``effects`` ``(slots, outputs)``: for each slot, the sum over its examples.

    ``g`` ``(n, outputs)`` is the gradient by the outputs. With several outputs, which are scores, it sums to 0, as that
    of cross-entropy does; the gradient of the last effects therefore follows from the others, which takes half the time
    for two classes.
    """
    are_scores = g.shape[1] > 1
    of_pairs = _add_to_rows(g[:, :-1] if are_scores else g, category_indices, len(crossed_slots))
    gradient = _add_to_rows(of_pairs, crossed_slots, len(effects) + 1)[:-1]
    return torch.cat([gradient.T, -gradient.T.sum(dim=0, keepdim=True)]).T if are_scores else gradient


def _sum_rows(rows: Tensor, at: Tensor) -> Tensor:
    """The sum ``(m, outputs)`` of the rows at each of ``at`` ``(m, count)``."""
    each = rows.T.index_select(1, at.T.flatten())
    return each.view(len(each), at.shape[1], len(at)).sum(dim=1).T if at.shape[1] > 1 else each.T


def _add_to_rows(g: Tensor, at: Tensor, number: int) -> Tensor:
    """The gradient of such sums by ``number`` rows ``(number, outputs)``."""
    gradient = torch.zeros(g.shape[1], number, dtype=g.dtype, device=g.device)
    return gradient.index_add_(1, at.T.flatten(), g.T.repeat(1, at.shape[1])).T


# From raw rows to inputs


class Encoding(NamedTuple):
    """How raw rows ``(n, columns)`` float32 become standardised numbers and the indices of categories.

    The slots of all categorical columns are numbered one column after the other; there are ``num_slots`` of them. After
    them, every column has one more slot for a code without a weight of its own, which learns the average effect.
    ``crossed_slots`` are as above. The other tensors are:

    - ``numbers`` and ``categories``, int64: positions of columns; for categories first those of the first columns of
      all pairs, then those of the second columns;
    - ``limits`` ``(numbers, 2)``: what the numbers are clamped to, ``(0,)`` where none is;
    - ``mean`` and ``scale`` ``(numbers, 1)``: those of the numbers, in the precision of the network;
    - ``last`` ``(categories, 1)`` float32: the number of levels, which is the unknown code (for nobody -1, so that its
      code is always unknown);
    - ``stride`` ``(pairs, 1)`` float32: the number of codes of a pair's second column;
    - ``offset`` ``(pairs, 1)`` int64: where a pair's combinations begin, corrected for the code -1 of missing values;
    - ``frequencies`` ``(columns, num_slots)``: the share of the training rows in each slot, for its own column only.
    """

    numbers: Tensor
    limits: Tensor
    mean: Tensor
    scale: Tensor
    categories: Tensor
    last: Tensor
    stride: Tensor
    offset: Tensor
    crossed_slots: Tensor
    frequencies: Tensor

    @property
    def num_slots(self) -> int:
        """How many effects can be learned."""
        return self.frequencies.shape[1]

    def to(self, device: torch.device) -> "Encoding":
        """The same on another device."""
        return Encoding(*(tensor.to(device) for tensor in self))

    def encode(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Inputs ``(n, numbers)``, a missing one at its mean, and category indices ``(n, groups)`` int64 if any.

        Several minibatches ``(minibatches, n, columns)`` may be encoded at once, each into its own inputs and indices.
        """
        columns = rows.mT.contiguous()  # makes a column's values adjacent, for this and for what networks do with them
        X = columns.index_select(-2, self.numbers).to(self.mean.dtype)
        if len(self.limits):
            X = X.clamp_(self.limits[:, :1], self.limits[:, 1:])
        X.sub_(self.mean).div_(self.scale)
        X.nan_to_num_(0.0, posinf=math.inf, neginf=-math.inf)
        if not len(self.categories):
            return (X.mT,)
        codes = torch.minimum(columns.index_select(-2, self.categories).nan_to_num_(-1.0), self.last)
        first, second = codes.chunk(2, dim=-2)
        return X.mT, first.mul_(self.stride).add_(second).long().add_(self.offset).mT


@dataclass(frozen=True)
class TableExamples:
    """Raw rows ``(n, columns)`` float32, wherever they are stored, such as in a file; only the ``members``, or all.

    ``targets`` ``(n,)`` cover all rows of the table: floating point, or labels of any type.
    """

    rows: Tensor
    targets: Tensor
    encoding: Encoding
    members: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def y(self) -> Tensor:
        """The truth in the form that networks take: labels are int64, created anew each time."""
        return self.targets if self.targets.is_floating_point() else self.targets.long()

    @property
    def device(self) -> torch.device:
        """Where the examples are."""
        return self.targets.device

    @property
    def num_inputs(self) -> int:
        """The number of values in one example."""
        return self.rows.shape[1]

    def select(self, index: Tensor) -> "TableExamples":
        """The examples at ``index``; only the index is copied."""
        members = index if self.members is None else self.members.index_select(0, index)
        return replace(self, targets=self.targets.index_select(0, index), members=members)

    def pieces(self, size: int) -> "Iterator[TableExamples]":
        """The examples in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            rows = self.rows[part] if self.members is None else self.rows
            members = None if self.members is None else self.members[part]
            yield TableExamples(rows, self.targets[part], self.encoding, members)

    def minibatches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """Inputs, truth and category indices of each minibatch, encoded in a few calls; the last may be smaller."""
        at, whole = self.select(order), len(order) // batch_size * batch_size
        for part in at.pieces(whole or len(order)):
            size = min(batch_size, len(part))
            X, *category_indices = self.encoding.encode(part._read().view(-1, size, self.num_inputs))
            yield from zip(X, part.y.split(size), *category_indices, strict=True)

    def iterate_in_order(self, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """Inputs and category indices of all examples, minibatch by minibatch."""
        return (self.encoding.encode(piece._read()) for piece in self.pieces(batch_size))

    def resident(self) -> Split:
        """The same examples encoded once, for many passes over few rows."""
        X, *category_indices = self.encoding.encode(self._read())
        return Split(X, self.y, extras=tuple(category_indices))

    def _read(self) -> Tensor:
        """The raw rows ``(n, columns)``; numpy copies short ones in half the time that torch takes."""
        if self.members is None:
            return self.rows
        if self.rows.device.type != "cpu":
            return self.rows.index_select(0, self.members)
        return torch.from_numpy(np.take(self.rows.numpy(), self.members.numpy(), axis=0))


# The network


class TabularNetwork(ScratchNetwork):
    """``XW + b`` plus, for each category, the effects of its slot: one output per class, or the prediction.

    It starts at zero, from which training reaches the solution of minimum norm where columns are collinear. ``X`` is
    ``(n, numbers)`` in the precision of ``encoding``, ``category_indices`` ``(n, groups)`` int64; outputs are
    ``(n, outputs)``, or ``(n,)`` for a regression. ``loss_gradient`` is the derivative of a loss by the outputs, one
    row per example. After the effects of the slots there is one more for each categorical column, for codes without a
    slot.
    """

    def __init__(self, encoding: Encoding, num_outputs: int, loss_gradient: LossFunction) -> None:
        sizes = len(encoding.numbers), encoding.num_slots + len(encoding.frequencies)
        self.W, self.effects = (encoding.mean.new_zeros(num_outputs, size).T for size in sizes)
        self.b, self.num_slots = encoding.mean.new_zeros(num_outputs), encoding.num_slots
        self.crossed_slots = encoding.crossed_slots
        self.loss_gradient = loss_gradient
        self.is_regression = num_outputs == 1
        self.measure = metrics.regression if self.is_regression else metrics.classification

    def __call__(self, X: Tensor, category_indices: Tensor | None = None) -> Tensor:
        """Outputs ``(n, outputs)``, or predictions ``(n,)``."""
        o = (self.W.T @ X.T).T + self.b
        o = o if category_indices is None else o + sum_effects(self.effects, self.crossed_slots, category_indices)
        return o.squeeze(1) if self.is_regression else o

    def backward(self, X: Tensor, y: Tensor, category_indices: Tensor | None = None) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the outputs."""
        o = self(X, category_indices)
        g = self.loss_gradient(o, y).view(len(y), -1) / len(y)
        self.W.grad = (g.T @ X).T
        if category_indices is not None:
            self.effects.grad = differentiate_effects(g, self.effects, self.crossed_slots, category_indices)
        self.b.grad = g.sum(dim=0)
        return o

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(numbers, outputs)``, ``effects`` ``(slots, outputs)`` if there are any, and ``b`` ``(outputs,)``."""
        return {"W": self.W, **({"effects": self.effects} if len(self.effects) else {}), "b": self.b}


def differentiate_loss(loss: nn.Module) -> LossFunction:
    """The derivative of one of torch's losses, summed over examples, by the outputs: the concise ``loss_gradient``.

    For scores it is computed class by class, which for the few classes of a table is five times as fast.
    """

    def gradient(o: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            o = o.detach().requires_grad_()
            value = loss(o, y) if o.dim() == 1 else loss(o.T.unsqueeze(0), y.unsqueeze(0))
            (found,) = torch.autograd.grad(value.sum(), o)
        return found

    return gradient


# How many directions of the inputs count in a regression: those whose weights float32 or the data can determine
#
# Where columns nearly determine one another, the data say little: the weights are large, of either sign, and cancel
# except for what rounding to float32 leaves. Leaving these directions without weights gives the solution of minimum
# norm.

COLLINEAR = 1e-5  # singular values below this share of the largest count as zero, whatever the target
LARGEST_NORM = 10.0  # norm of weights, in deviations of target and inputs: 30 were tried, and fail the parity gate
SIGNIFICANT = 4.0  # standard errors between a weight and 0
OFFSET = 50.0  # deviations between an input's mean and 0: from here on the offset itself loses digits


# Mean and covariance of the inputs

MOMENT_ROWS = 2**15  # that are encoded at once
CERTAIN = 1e-9  # of all variance: with a larger ridge a covariance is inverted, five times as fast as by its directions


@dataclass(frozen=True)
class FeatureMoments:
    """Mean ``(inputs,)``, covariance and variances, float64, of numbers and one-hot slots; the slots come last.

    With very many inputs, ``covariance`` ``(first, first)`` covers the first of them, and the others only have their
    ``variances`` ``(others,)``. Examples count by their class weight; ``weight`` is the mean of these weights. Singular
    values below the share ``least`` of the largest count as zero. ``products`` ``(first,)`` is the covariance with a
    regression's target, and ``target_variance`` the target's own variance; for classes both are 0.
    """

    mean: Tensor
    covariance: Tensor
    variances: Tensor
    weight: float
    products: Tensor
    target_variance: float
    num_rows: int
    least: float = COLLINEAR

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = torch.linalg.eigh(self.covariance)
        return found

    @property
    def spread(self) -> float:
        """The mean squared length of an example's inputs from their mean."""
        return float(self.covariance.trace() + self.variances.sum())

    def invert(self, ridge: float, num_columns: int) -> tuple[Tensor, Tensor]:
        """The inverse of the covariance and ``ridge`` times the identity.

        It consists of a matrix ``(first, first)`` and a diagonal ``(others,)``.

        Without a ridge that counts, collinear directions are left out: starting from zero, steps then end at the
        solution of minimum norm. Where the covariance is not known completely, an upper bound of it is inverted: a
        covariance is at most the sum of its diagonal blocks times their number. The blocks are that of the first inputs
        together, and one for every other of all ``num_columns``; the block of a column's indicators is at most their
        frequencies.
        """
        first = len(self.covariance)
        blocks = (first > 0) + num_columns - first if len(self.variances) else 1
        if ridge > CERTAIN * self.spread:
            of_first = torch.linalg.inv(blocks * self.covariance + ridge * torch.eye(first).to(self.covariance))
        else:
            variances, directions = self._spectrum
            largest = variances[-1:].sum()
            usable = variances > (self.least**2 * largest if ridge < COLLINEAR**2 * largest else -ridge / 2)
            of_first = (directions * torch.where(usable, 1 / (blocks * variances + ridge), 0.0)) @ directions.T
        bound = blocks * (self.variances + self.weight * self.mean[first:] ** 2) + ridge
        return of_first, torch.where(bound > 0, 1 / bound, 0.0)

    def with_effective_rank(self, offsets: Tensor) -> "FeatureMoments":
        """The same moments with the share ``least`` that float32 and the target can distinguish.

        It exceeds ``COLLINEAR`` only where the least-squares weights are too large for float32 and those of the
        directions left out cannot be told from 0. ``offsets`` ``(inputs,)`` are the means, in deviations, before inputs
        were standardised.
        """
        variances, directions = (each.flip(-1) for each in self._spectrum)
        rank = int((variances > COLLINEAR**2 * variances[:1]).sum())
        variances, directions = variances[:rank], directions[:, :rank]
        along = directions.T @ self.products / variances
        weights = (directions * along).cumsum(dim=1) * (offsets.abs() / OFFSET).clamp(min=1).unsqueeze(1)
        told = int((weights.norm(dim=0) <= LARGEST_NORM).long().cumprod(dim=0).sum())
        gains = along.square() * variances
        noise = (self.target_variance - float(gains.sum())) / max(1, self.num_rows - rank - 1)
        if told in (0, rank) or (gains[told:] > SIGNIFICANT**2 * noise).any():
            return self
        least = float((variances[told - 1] * variances[told]).sqrt().sqrt() / variances[0].sqrt())
        return replace(self, least=least)

    def find_collinear(self, widths: list[int]) -> list[int]:
        """The inputs that others determine: they contribute to a direction whose variance counts as zero.

        That a column's indicators, of which ``widths`` has the number, sum to one is not reported; nor are constants.
        """
        variances, directions = self._spectrum
        none = directions[:, variances <= self.least**2 * variances.max()]
        for stop, width in zip(torch.tensor(widths).flip(0).cumsum(0).neg().tolist(), widths[::-1], strict=True):
            indicators = slice(len(none) + stop, len(none) + stop + width)
            none[indicators] -= none[indicators].mean(dim=0)
        is_determined = (none.norm(dim=1) > max(1e-3, self.least)) & (self.covariance.diagonal() > 0)
        return [int(at) for at in is_determined.nonzero()]


@torch.no_grad()
def compute_moments(
    split: DeviceExamples, encoding: Encoding, class_weights: Tensor | None, first: int
) -> FeatureMoments:
    """The moments of a split, summed piece by piece; no one-hot matrix is ever made.

    ``class_weights`` is ``(classes,)``; ``first`` says how many inputs have a covariance: all of them, the numbers, or
    none. A regression's target is summed as one more number, which comes first.
    """
    num_slots, crossed_slots, ahead = encoding.num_slots, encoding.crossed_slots, int(split.y.is_floating_point())
    is_whole = first == len(encoding.numbers) + num_slots
    # Sums of products: of target, numbers and a one; of these with slots, the last being "no slot"; of slots with
    # others.
    width, some, first = ahead + len(encoding.numbers) + 1, num_slots + 1, ahead + first
    zeros = partial(torch.zeros, dtype=torch.float64, device=split.device)
    sums, cross, between = zeros(width, width), zeros(some, width), zeros(some * some if is_whole else 0)
    for piece in split.pieces(MOMENT_ROWS):
        ((X, *category_indices),) = piece.iterate_in_order(len(piece))
        y = piece.y.double().unsqueeze(1)
        Z = torch.cat([y[:, :ahead], X.double(), torch.ones_like(y)], dim=1)
        w = Z[:, -1] if class_weights is None else class_weights.double()[piece.y]
        weighted = Z * w.unsqueeze(1)
        sums += Z.T @ weighted
        of_groups = (crossed_slots.T.index_select(1, at) for each in category_indices for at in each.T)
        # "Nobody", with which a column may be paired, does not count.
        nobody = num_slots + len(encoding.frequencies)
        columns = [slots.clamp(max=num_slots) for group in of_groups for slots in group if slots[0] < nobody]
        for at, column in enumerate(columns):
            cross.index_add_(0, column, weighted)
            for other in columns[:at] if is_whole else ():
                between.index_add_(0, column * some + other, w)
    n, totals, squares = len(split), torch.cat([sums, cross])[:, -1], torch.cat([sums.diagonal(), cross[:, -1]])
    if is_whole:
        between = between.view(some, some)
        between = between + between.T + torch.diag(cross[:, -1])
        sums = torch.cat([torch.cat([sums, cross.T], dim=1), torch.cat([cross, between], dim=1)])
    inputs = torch.arange(width + num_slots, device=split.device)
    inputs = inputs[inputs != width - 1]
    weight = totals[width - 1] / n
    mean = totals[inputs] / totals[width - 1]
    second = sums[inputs[:first]][:, inputs[:first]]
    covariance = second / n - torch.outer(mean[:first], mean[:first]) * weight
    variances, products = (squares[inputs] / n - mean**2 * weight)[first:], covariance[:ahead].sum(dim=0)
    of_target = products[ahead:], float(products[:ahead].sum())
    return FeatureMoments(mean[ahead:], covariance[ahead:, ahead:], variances, float(weight), *of_target, n)


# Steps of the right length in every direction
#
# The covariance of the inputs is the curvature of the squared loss and bounds that of the other losses, up to a
# constant. SGD on weights V of *whitened* inputs, whose covariance is the identity, converges as fast as on the book's
# synthetic data. With ``W = R.T V``, a step of V is a step of W against ``R.T R`` times its gradient, and ``R.T R`` is
# the inverse of the covariance. So networks keep the weights of unwhitened inputs, and their optimizer multiplies
# gradients.

# From gradients by inputs and bias to steps of inputs, unknown codes and bias.
Preconditioner = Callable[[Tensor], Tensor]
Conditioning = tuple[FeatureMoments, Preconditioner]


def make_preconditioner(
    moments: FeatureMoments, ridge: float, frequencies: Tensor, dtype: torch.dtype
) -> Preconditioner:
    """What turns gradients ``(inputs + 1, outputs)`` into steps ``(inputs + columns + 1, outputs)`` of this ``dtype``.

    ``frequencies`` is ``(columns, slots)``: after the slots there is one more effect per column, that of an unknown
    code, which moves by the average of the others and so remains the average effect.
    """
    num_numbers = len(moments.mean) - frequencies.shape[1]
    inverse, of_others = moments.invert(ridge, num_numbers + len(frequencies))
    is_matrix = not len(of_others) and dtype != torch.float64  # one product instead of many, computed in float64
    exact = moments.mean if is_matrix else moments.mean.to(dtype)
    mean, others = exact.unsqueeze(1), of_others.to(exact).unsqueeze(1)
    inverse, frequencies, first = inverse.to(exact), frequencies.to(exact), len(inverse)

    def multiply(gradient: Tensor) -> Tensor:
        centred = gradient[:-1] - mean * gradient[-1:]
        step = torch.cat([inverse @ centred[:first], others * centred[first:]])
        of_bias = gradient[-1:] / moments.weight - mean.T @ step
        return torch.cat([step, frequencies @ step[num_numbers:], of_bias])

    if not is_matrix:
        return multiply
    matrix = multiply(torch.eye(len(mean) + 1).to(exact)).T.to(dtype)
    return lambda gradient: (gradient.T @ matrix).T


ROUNDING = 1e-12  # of a gradient, in standard deviations of the target: below it, nothing is left to learn


class PreconditionedSGD:
    """An optimizer whose gradients are multiplied by the inverse covariance, penalty included."""

    def __init__(
        self, optimizer: Optimizer, net: TabularNetwork, conditioning: Future[Conditioning], weight_decay: float
    ) -> None:
        """The first step waits for ``conditioning``."""
        self._optimizer, self._net, self._conditioning, self._weight_decay = optimizer, net, conditioning, weight_decay
        self.param_groups, self.zero_grad = optimizer.param_groups, optimizer.zero_grad
        self._first_length: float | None = None  # of the gradient in whitened inputs
        self._newton_decrement = torch.zeros(())  # its square: about twice what the last step gains

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter."""
        net, gradients = self._net, self._net.gradients()
        W, b = gradients["W"], gradients["b"]
        effects = gradients.get("effects", W[:0])
        if self._weight_decay:
            W.add_(net.W, alpha=self._weight_decay)
            effects.add_(net.effects, alpha=self._weight_decay)
        # Class by class, as they are stored: their product then takes a fifth of the time.
        gradient = torch.cat([W.T, effects.T[:, : net.num_slots], b.unsqueeze(1)], dim=1).T
        step, inputs = self._conditioning.result()[1](gradient), len(gradient) - 1
        self._newton_decrement = (step[:inputs] * gradient[:inputs]).sum() + (step[-1] * gradient[-1]).sum()
        W.copy_(step[: len(W)])
        effects.copy_(step[len(W) : -1])
        b.copy_(step[-1])
        self._optimizer.step()

    def has_converged(self, tolerance: float) -> bool:
        """Whether the last gradient is ``tolerance`` of its size when this was first asked, or is only rounding."""
        length = math.sqrt(max(0.0, float(self._newton_decrement)))  # rounding may make it slightly negative
        self._first_length = self._first_length or length
        return length <= max(ROUNDING, tolerance * self._first_length)


# Epochs: one exact step for few rows; for many rows, minibatches whose weights are averaged

STEP_ROWS = 2**13  # whose outputs stay in the cache
MEASURED = 2**16  # examples whose figures are computed at once
TOGETHER = 2**20  # values of the minibatches made at once: each call that makes them takes Python's lock from the steps


def train_epoch_whole(
    net: Network, optimizer: Optimizer, split: DeviceExamples, batch_size: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Take one step by the gradient of all examples, summed piece by piece; no order or batch size changes it."""
    params = net.parameters()
    total, measured = [torch.zeros_like(param) for param in params], []
    for piece in split.pieces(STEP_ROWS):
        optimizer.zero_grad()
        ((X, *category_indices),) = piece.iterate_in_order(len(piece))
        measured.append((net.measure(net.backward(X, piece.y, *category_indices), piece.y), len(piece)))
        for each, gradient in zip(total, net.gradients().values(), strict=True):
            each.add_(gradient, alpha=len(piece) / len(split))
    for each, param in zip(total, params, strict=True):
        param.grad = each
    optimizer.step()
    return average_metrics(measured)


class AveragedSGD:
    """Epochs of one step per minibatch; each epoch leaves the mean of the weights of all steps so far.

    The noise of minibatches averages out, so that the learning rate need not fall (Polyak and Juditsky, 1992). Step t
    has weight t, so the first steps count next to nothing (Shamir and Zhang, 2013). Alternatives were tried: with the
    square or third power of t, two and three times as much of the objective is left after a pass, and equal weights
    leave more of the start.
    """

    def __init__(
        self, prefetch: Callable[[Iterator[Any]], Iterator[Any]], objective: Callable[[], float] | None
    ) -> None:
        """``prefetch`` passes minibatches on, several at a time, and may make the next ones meanwhile.

        If there is an ``objective``, it is followed: its value for the mean weights is computed after each epoch, and
        before that once for the mean weights after half of the first epoch.
        """
        self._prefetch, self._objective = prefetch, objective
        self._values: list[float] = []
        self._order: Tensor | None = None  # that of the next epoch
        self._steps = 0
        self._mean: list[Tensor] = []
        self._last: list[Tensor] = []  # the weights from which the next step is taken

    def __call__(
        self, net: Network, optimizer: Optimizer, split: DeviceExamples, batch_size: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Take the steps of one epoch, in a newly drawn order; the order of the next epoch is drawn meanwhile."""

        def draw() -> Tensor:
            return torch.randperm(len(split), generator=generator, dtype=torch.int32)

        order = draw() if self._order is None else self._order
        params = net.parameters()
        if not self._mean:
            self._mean = self._last = copy_parameters(net)
        set_parameters(net, self._last)
        measured, seen, rest = [], [], len(split)
        half, full = math.ceil(rest / batch_size) // 2, min(batch_size, rest)
        largest = max(1, TOGETHER // (batch_size * split.num_inputs))
        sizes = (batch_size * min(2**at, largest) for at in itertools.count())  # the first ones are waited for
        ends = itertools.takewhile(rest.__gt__, itertools.accumulate(sizes))
        indices = (index.to(split.device, torch.int64) for index in order.tensor_split([*ends]))
        made = self._prefetch(list(split.minibatches(index, batch_size)) for index in indices)
        with ThreadPoolExecutor(1) as beside:  # the next steps
            following = beside.submit(draw)
            for X, y, *category_indices in itertools.chain.from_iterable(made):
                if self._steps == half:
                    self._follow(net)
                if len(y) < full:  # the last: each of its examples counts as much as any
                    for group in optimizer.param_groups:
                        group["lr"] *= len(y) / full
                optimizer.zero_grad()
                seen.append((net.backward(X, y, *category_indices), y))
                optimizer.step()
                self._steps += 1
                for each, param in zip(self._mean, params, strict=True):
                    each.lerp_(param.detach(), 2 / (1 + self._steps))
                rest -= len(y)
                if len(seen) * batch_size >= MEASURED or not rest:
                    o, y = concatenate([each for each, _ in seen]), torch.cat([each for _, each in seen])
                    measured.append((beside.submit(net.measure, o, y), len(y)))
                    seen.clear()
        self._order = following.result()
        self._follow(net)
        self._last = copy_parameters(net)
        set_parameters(net, self._mean)
        return average_metrics((each.result(), count) for each, count in measured)

    def has_settled(self, tolerance: float, least: int) -> bool:
        """Whether, after ``least`` epochs or more, the last doubling of epochs gained at most the share ``tolerance``.

        The first epoch is compared with its own first half.
        """
        number = len(self._values) - 1
        earlier, now = self._values[number // 2], self._values[-1]
        return number >= least and earlier - now <= tolerance * abs(now)

    def _follow(self, net: Network) -> None:
        """Compute the objective for the mean weights."""
        if self._objective is not None:
            last = copy_parameters(net)
            set_parameters(net, self._mean)
            self._values.append(self._objective())
            set_parameters(net, last)
