"""Tables of a user: one-hot categories without zeros, steps that no collinear columns slow down, weights averaged.

The book's networks know none of this. What is learned is the same kind of model: ``XW + b``, where the categories of a
row pick rows of a weight matrix.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.networks import metrics
from tasks.networks.examples import Examples, Split
from tasks.networks.softmax_regression import Loss, dropout
from tasks.networks.training import Measured, Network, Optimizer, joined, mean_figures

# Categories: one-hot inputs pick rows of a weight matrix, so rows are gathered and no zero is multiplied.
#
# ``effects`` are ``(slots, outputs)``, stored so that ``effects.T`` is contiguous. A category picks one of them by its
# code. Columns of few codes are taken in pairs, so that an example asks for half as much: ``pairs`` ``(combinations,
# 2)`` int64 has the two effects of each combination of codes, and ``places`` ``(n, groups)`` int64 say which
# combination an example has, or, behind all combinations, which effect of a column that is alone. Column by column a
# gather is five times as fast as row by row, and its gradient fifty times as fast as that of ``nn.EmbeddingBag``.

NONE = torch.zeros(0, 2, dtype=torch.int64)  # pairs


def sum_effects(effects: Tensor, pairs: Tensor, places: Tensor) -> Tensor:
    """The sum of the effects of each example's categories, ``(n, outputs)``."""
    if len(pairs):
        effects = torch.cat([_summed(effects, pairs).T, effects.T], dim=1).T
    return _summed(effects, places)


def effects_gradient(g: Tensor, effects: Tensor, pairs: Tensor, places: Tensor) -> Tensor:
    """The gradient by ``effects`` ``(slots, outputs)``: for each slot, the sum over its examples.

    ``g`` ``(n, outputs)`` is the gradient by the outputs. Of several outputs, scores, it sums to 0 as that of
    cross-entropy does, and so that of the last effects follows from the others': of two classes in half the time.
    """
    are_scores = g.shape[1] > 1
    gradient = _gradient(g[:, :-1] if are_scores else g, places, len(pairs) + len(effects))
    if len(pairs):
        gradient = gradient[len(pairs) :] + _gradient(gradient[: len(pairs)], pairs, len(effects))
    return torch.cat([gradient.T, -gradient.T.sum(dim=0, keepdim=True)]).T if are_scores else gradient


def slots_of_group(places: Tensor, pairs: Tensor) -> tuple[Tensor, ...]:
    """The slots ``(n,)`` of a group's columns, two or one, of which ``places`` ``(n,)`` are."""
    return (places - len(pairs),) if places[0] >= len(pairs) else pairs.T.index_select(1, places).unbind()


def _summed(rows: Tensor, at: Tensor) -> Tensor:
    """The sums of the rows at each of ``at`` ``(m, count)``, ``(m, outputs)``."""
    each = rows.T.index_select(1, at.T.flatten())
    return each.view(len(each), at.shape[1], len(at)).sum(dim=1).T if at.shape[1] > 1 else each.T


def _gradient(g: Tensor, at: Tensor, number: int) -> Tensor:
    """That of such sums by ``number`` rows ``(number, outputs)``."""
    gradient = torch.zeros(g.shape[1], number, dtype=g.dtype, device=g.device)
    return gradient.index_add_(1, at.T.flatten(), g.T.repeat(1, at.shape[1])).T


# Raw rows to inputs


@dataclass(frozen=True)
class Encoding:
    """How raw rows ``(n, columns)`` float32 become standardised numbers and the places of categories.

    The slots of all categorical columns are numbered one column after the other, ``num_slots`` of them; behind them
    every column has one more, that of a code without a weight of its own: a network learns the average effect there.
    ``pairs`` are those of columns that are taken in pairs, as above. The other tensors: ``numbers`` and
    ``categories`` are positions of columns, int64, of categories the first columns of all pairs, then the second ones,
    then those alone; ``mean`` and ``scale`` ``(numbers, 1)`` of the numbers, in the precision of the network;
    ``last`` ``(categories, 1)`` the number of levels, which is an unknown code, and ``stride`` ``(pairs, 1)`` the codes
    of a pair's second column, both float32; ``offset`` ``(groups, 1)`` int64 where a pair's combinations, and in
    ``alone`` a column's codes, begin, and what the code -1 of missing values takes off; ``alone`` the place of each
    such code; ``frequencies`` ``(categories, num_slots)`` the share of the training rows in each slot, of the column's
    own only.
    """

    numbers: Tensor
    mean: Tensor
    scale: Tensor
    categories: Tensor
    last: Tensor
    stride: Tensor
    offset: Tensor
    pairs: Tensor
    alone: Tensor
    frequencies: Tensor

    @property
    def num_slots(self) -> int:
        """How many effects there are to learn."""
        return self.frequencies.shape[1]

    def to(self, where: torch.device | torch.dtype) -> "Encoding":
        """The same on another device, or for a network of another precision."""
        keep = isinstance(where, torch.dtype)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Encoding(
            **{
                name: each if keep and name not in ("mean", "scale") else each.to(where)
                for name, each in values.items()
            }
        )

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Inputs ``(n, numbers)``, a missing one at its mean, and places ``(n, groups)`` int64, None without any.

        Of several minibatches at once, ``(minibatches, n, columns)``, those of each.
        """
        columns = rows.mT.contiguous()  # whose values then lie side by side, for this and for what networks do with it
        X = columns.index_select(-2, self.numbers).to(self.mean.dtype).sub_(self.mean).div_(self.scale)
        X.nan_to_num_(0.0, posinf=math.inf, neginf=-math.inf)
        if not len(self.categories):
            return X.mT, None
        codes = torch.minimum(columns.index_select(-2, self.categories).nan_to_num_(-1.0), self.last)
        pairs = len(self.stride)
        codes[..., :pairs, :].mul_(self.stride).add_(codes[..., pairs : 2 * pairs, :])
        if not len(self.alone):
            return X.mT, codes[..., :pairs, :].long().add_(self.offset).mT
        places = torch.cat([codes[..., :pairs, :], codes[..., 2 * pairs :, :]], dim=-2).long().add_(self.offset)
        alone = places[..., pairs:, :]
        alone.copy_(self.alone.index_select(0, alone.flatten()).view_as(alone))
        return X.mT, places.mT


@dataclass(frozen=True)
class Table:
    """Raw rows ``(n, columns)`` float32, wherever they lie, a file for instance; of these the ``members``, or all.

    ``truth`` ``(n,)`` is that of all rows that the table has: floating point, or labels of any type.
    """

    rows: Tensor
    truth: Tensor
    encoding: Encoding
    members: Tensor | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def y(self) -> Tensor:
        """The truth as networks take it: labels are int64, made anew each time."""
        return self.truth if self.truth.is_floating_point() else self.truth.long()

    @property
    def device(self) -> torch.device:
        """Where the examples are."""
        return self.truth.device

    @property
    def num_inputs(self) -> int:
        """Values of one example."""
        return self.rows.shape[1]

    def to(self, device: torch.device) -> "Table":
        """The same rows on another device."""
        members = None if self.members is None else self.members.to(device)
        return Table(self.rows.to(device), self.truth.to(device), self.encoding.to(device), members)

    def at(self, index: Tensor) -> "Table":
        """The examples at ``index``, of which only the index is copied."""
        members = index if self.members is None else self.members.index_select(0, index)
        return replace(self, truth=self.truth.index_select(0, index), members=members)

    def pieces(self, size: int) -> "Iterator[Table]":
        """The examples in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            if self.members is None:
                yield replace(self, rows=self.rows[part], truth=self.truth[part])
            else:
                yield replace(self, truth=self.truth[part], members=self.members[part])

    def minibatch(self, index: Tensor) -> tuple[Tensor, ...]:
        """Inputs, truth and places of the examples at ``index``."""
        (only,) = self.minibatches_at_once(index, len(index))
        return only

    def minibatches_at_once(self, order: Tensor, batch_size: int) -> list[tuple[Tensor, ...]]:
        """The same of ``order``, ``batch_size`` at a time, encoded by few calls."""
        at, whole = self.at(order), len(order) // batch_size * batch_size
        made: list[tuple[Tensor, ...]] = []
        for part in at.pieces(whole or len(order)):  # the last minibatch may be a smaller one
            inputs = part._inputs(min(batch_size, len(part)))
            made += zip(inputs[0], part.y.split(batch_size), *inputs[1:], strict=True)
        return made

    def minibatches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """The same one after another."""
        return map(self.minibatch, order.split(batch_size))

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """Inputs and places of all examples, minibatch by minibatch."""
        return (piece._inputs() for piece in self.pieces(batch_size))

    def resident(self) -> Split:
        """The same examples encoded once, for many passes over few rows."""
        X, *places = self._inputs()
        return Split(X, self.y, extras=tuple(places))

    def _inputs(self, size: int | None = None) -> tuple[Tensor, ...]:
        """Inputs and places, of minibatches if they have a ``size``, which all examples fill."""
        rows = self.rows if self.members is None else _at(self.rows, self.members)
        X, places = self.encoding(rows if size is None else rows.view(-1, size, rows.shape[1]))
        return (X,) if places is None else (X, places)


def _at(rows: Tensor, members: Tensor) -> Tensor:
    """Some of the rows ``(n, columns)``; numpy copies short ones in half the time of torch."""
    if rows.device.type != "cpu":
        return rows.index_select(0, members)
    return torch.from_numpy(np.take(rows.numpy(), members.numpy(), axis=0))


# The network


class TabularNetwork:
    """``XW + b`` and, of each category, the effects of its slot: one output a class, or the prediction.

    It starts at zero: that is the answer of minimum norm where columns are collinear. ``X`` is ``(n, numbers)``,
    ``places`` ``(n, groups)`` int64 of ``pairs``; outputs are ``(n, outputs)``, of a regression ``(n,)``.
    ``loss_gradient`` is the derivative of a loss by them, one row an example.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        num_slots: int,
        pairs: Tensor,
        loss_gradient: Loss,
        dropout_probability: float = 0.0,
    ) -> None:
        self.W, self.effects = torch.zeros(num_outputs, num_inputs).T, torch.zeros(num_outputs, num_slots).T
        self.b, self.pairs = torch.zeros(num_outputs), pairs
        self.loss_gradient, self.dropout_probability = loss_gradient, dropout_probability
        self.is_regression = num_outputs == 1
        self.measure = metrics.regression if self.is_regression else metrics.classification

    def to(self, where: torch.device | torch.dtype) -> "TabularNetwork":
        """Move the parameters to a device, or to another precision."""
        self.W, self.effects, self.b = self.W.to(where), self.effects.to(where), self.b.to(where)
        self.pairs = self.pairs.to(where) if isinstance(where, torch.device) else self.pairs
        return self

    def parameters(self) -> list[Tensor]:
        """What the optimizer moves, the bias last."""
        return list(self.weights().values())

    def __call__(self, X: Tensor, places: Tensor | None = None) -> Tensor:
        """Outputs ``(n, outputs)``, or predictions ``(n,)``."""
        o = (self.W.T @ X.T).T + self.b
        o = o if places is None else o + sum_effects(self.effects, self.pairs, places)
        return o.squeeze(1) if self.is_regression else o

    def backward(self, X: Tensor, y: Tensor, places: Tensor | None = None) -> Tensor:
        """Leave the gradient of the minibatch's mean loss in the parameters; return the outputs."""
        if self.dropout_probability:
            X = dropout(X, self.dropout_probability)
        o = self(X, places)
        g = self.loss_gradient(o, y).view(len(y), -1) / len(y)
        self.W.grad = (g.T @ X).T
        if places is not None:
            self.effects.grad = effects_gradient(g, self.effects, self.pairs, places)
        self.b.grad = g.sum(dim=0)
        return o

    def weights(self) -> dict[str, Tensor]:
        """``W`` ``(numbers, outputs)``, ``effects`` ``(slots, outputs)`` if there are any, and ``b`` ``(outputs,)``."""
        return {"W": self.W, **({"effects": self.effects} if len(self.effects) else {}), "b": self.b}

    def gradients(self) -> dict[str, Tensor | None]:
        """The gradients of the last step, shaped like ``weights()``; None before the first."""
        return {name: weight.grad for name, weight in self.weights().items()}


def differentiate(loss: nn.Module) -> Loss:
    """The derivative of a loss of torch's, summed over examples, by the outputs: the concise ``loss_gradient``.

    Of scores it goes class by class, which of the few classes of a table is five times as fast.
    """

    def gradient(o: Tensor, y: Tensor) -> Tensor:
        with torch.enable_grad():
            o = o.detach().requires_grad_()
            value = loss(o, y) if o.dim() == 1 else loss(o.T.unsqueeze(0), y.unsqueeze(0))
            (found,) = torch.autograd.grad(value.sum(), o)
        return found

    return gradient


# How many directions of the inputs count in a regression: those whose weights float32 or the data can tell
#
# Between columns that nearly determine one another the data say little: weights are then large, of either sign, and
# cancel but for what rounding to float32 leaves. Directions without a weight make the answer that of minimum norm.

COLLINEAR = 1e-5  # singular values below this share of the largest count as none, whatever the target
LARGEST_NORM = 10.0  # norm of weights, in deviations of target and inputs: tried, 30 are refused by the gate of parity
SIGNIFICANT = 4.0  # standard errors that a weight is away from 0
OFFSET = 50.0  # deviations of an input's mean from 0: from here on it is the offset that loses digits


def least_singular_value(
    spectrum: tuple[Tensor, Tensor], products: Tensor, variance: float, num_rows: int, offsets: Tensor
) -> float:
    """The share of the largest singular value, below which singular values count as none.

    It is above ``COLLINEAR`` only where the weights of least squares are too large for float32, and those of the
    directions left out cannot be told from 0. ``spectrum``: eigenvalues, the largest last, and eigenvectors of the
    inputs' covariance; ``products`` ``(inputs,)`` their covariance with the target, of which ``variance`` is the own;
    ``offsets`` ``(inputs,)`` the means in deviations, before they were standardised.
    """
    variances, directions = (each.flip(-1) for each in spectrum)
    rank = int((variances > COLLINEAR**2 * variances[:1]).sum())
    variances, directions = variances[:rank], directions[:, :rank]
    along = directions.T @ products / variances
    weights = (directions * along).cumsum(dim=1) * (offsets.abs() / OFFSET).clamp(min=1).unsqueeze(1)
    told = int((weights.norm(dim=0) <= LARGEST_NORM).long().cumprod(dim=0).sum())
    gains = along.square() * variances
    noise = (variance - float(gains.sum())) / max(1, num_rows - rank - 1)
    if told in (0, rank) or (gains[told:] > SIGNIFICANT**2 * noise).any():
        return COLLINEAR
    return float((variances[told - 1] * variances[told]).sqrt().sqrt() / variances[0].sqrt())


def find_determined(spectrum: tuple[Tensor, Tensor], least: float, widths: list[int]) -> Tensor:
    """The inputs ``(inputs,)`` that others determine: they have a part in a direction whose variance counts as none.

    That the ``widths`` last inputs of a column's indicators sum to one is no news.
    """
    variances, directions = spectrum
    none = directions[:, variances <= least**2 * variances.max()]
    for stop, width in zip(torch.tensor(widths).flip(0).cumsum(0).neg().tolist(), widths[::-1], strict=True):
        indicators = slice(len(none) + stop, len(none) + stop + width)
        none[indicators] -= none[indicators].mean(dim=0)
    is_determined: Tensor = none.norm(dim=1) > max(1e-3, least)
    return is_determined


# Mean and covariance of the inputs

MOMENT_ROWS = 2**15  # encoded at once
CERTAIN = 1e-9  # of all variance: a larger ridge lets a covariance be inverted, which takes a fifth of its directions


@dataclass(frozen=True)
class Moments:
    """Mean ``(inputs,)``, covariance and variances, float64, of numbers and one-hot slots, which come last.

    Of very many inputs ``covariance`` ``(first, first)`` is that of the first, of the others there are ``variances``
    ``(others,)`` alone. Examples count by their class weight; ``weight`` is the mean of these. Singular values below
    the share ``least`` of the largest count as none. ``products`` ``(first,)`` is the covariance with a regression's
    target, and ``target_variance`` that target's own; of classes both are 0.
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
        variances, directions = torch.linalg.eigh(self.covariance)
        return variances, directions

    @property
    def spread(self) -> float:
        """The mean squared length of an example's inputs from their mean."""
        return float(self.covariance.trace() + self.variances.sum())

    def inverse(self, ridge: float, num_columns: int) -> "Inverse":
        """The inverse of the covariance and ``ridge`` times the identity.

        Without a ridge that counts, collinear directions are left out: from zero, steps then end at the answer of
        minimum norm.
        Where it is not known whole: of what is never less. A covariance is at most the sum of its diagonal blocks
        times their number: those of the first inputs together, and of every other of all ``num_columns``; and the
        block of a column's indicators is at most their frequencies.
        """
        first = len(self.covariance)
        blocks = (first > 0) + num_columns - first if len(self.variances) else 1
        if ridge > CERTAIN * self.spread:
            of_first = torch.linalg.inv(blocks * self.covariance + ridge * torch.eye(first).to(self.covariance))
        else:
            of_first = self._inverse_of_first(ridge, blocks)
        bound = blocks * (self.variances + self.weight * self.mean[first:] ** 2) + ridge
        return Inverse(of_first, torch.where(bound > 0, 1 / bound, 0.0))

    def _inverse_of_first(self, ridge: float, blocks: int) -> Tensor:
        variances, directions = self._spectrum
        largest = variances[-1:].sum()
        usable = variances > (self.least**2 * largest if ridge < COLLINEAR**2 * largest else -ridge / 2)
        return (directions * torch.where(usable, 1 / (blocks * variances + ridge), 0.0)) @ directions.T

    def with_effective_rank(self, offsets: Tensor) -> "Moments":
        """The same with the ``least_singular_value`` that float32 and the target tell apart."""
        least = least_singular_value(self._spectrum, self.products, self.target_variance, self.num_rows, offsets)
        return self if least == self.least else replace(self, least=least)

    def collinear(self, widths: list[int]) -> list[int]:
        """The inputs that others determine, constants aside; the last are indicators, ``widths`` of each column."""
        found = find_determined(self._spectrum, self.least, widths)
        return [int(at) for at in torch.nonzero(found & (self.covariance.diagonal() > 0))]


@dataclass(frozen=True)
class Inverse:
    """Of a covariance of which a part is its diagonal: ``of_first`` ``(first, first)``, ``of_others`` ``(others,)``."""

    of_first: Tensor
    of_others: Tensor

    def to(self, like: Tensor) -> "Inverse":
        """The same where, and in the precision in which, another tensor is."""
        return Inverse(self.of_first.to(like), self.of_others.to(like))

    def __call__(self, gradient: Tensor) -> Tensor:
        """Its product with ``gradient`` ``(inputs, outputs)``."""
        first = len(self.of_first)
        if not len(self.of_others):
            return self.of_first @ gradient
        return torch.cat([self.of_first @ gradient[:first], self.of_others.unsqueeze(1) * gradient[first:]])


@torch.no_grad()
def compute_moments(
    split: Examples,
    num_numbers: int,
    num_slots: int,
    class_weights: Tensor | None,
    first: int,
    pairs: Tensor = NONE,
) -> Moments:
    """The moments of a split, summed piece by piece; no one-hot matrix is ever made.

    Slots from ``num_slots`` on are none, and ``pairs`` are as above.
    ``class_weights`` ``(classes,)``; ``first``: how many inputs have a covariance, all of them, the numbers or none.
    The target of a regression is summed as one more number, the first.
    """
    device, some, whole = split.device, num_slots + 1, first == num_numbers + num_slots
    ahead = int(split.y.is_floating_point())
    width, first = ahead + num_numbers + 1, ahead + first
    numbers = torch.zeros(width, width, dtype=torch.float64, device=device)
    cross = torch.zeros(some, width, dtype=torch.float64, device=device)
    together = torch.zeros(some * some if whole else 0, dtype=torch.float64, device=device)
    for piece in split.pieces(MOMENT_ROWS):
        ((X, *places),) = piece.in_order(len(piece))
        y = piece.y.double().unsqueeze(1)
        Z = torch.cat([y[:, :ahead], X.double(), torch.ones_like(y)], dim=1)
        w = Z[:, -1] if class_weights is None else class_weights.double()[piece.y]
        weighted = Z if class_weights is None else Z * w.unsqueeze(1)
        numbers += Z.T @ weighted
        columns = [
            column.clamp(max=num_slots) for each in places for at in each.T for column in slots_of_group(at, pairs)
        ]
        for at, column in enumerate(columns):
            cross.index_add_(0, column, weighted)
            for other in columns[:at] if whole else ():
                together.index_add_(0, column * some + other, w)
    n, cross = len(split), cross[:-1]
    second, squares = numbers[:-1, :-1], torch.cat([numbers.diagonal()[:-1], cross[:, -1]])
    if whole:
        between = together.view(some, some)[:-1, :-1]
        slots_block = between + between.T + torch.diag(cross[:, -1])
        second = torch.cat([second, cross[:, :-1].T], dim=1)
        second = torch.cat([second, torch.cat([cross[:, :-1], slots_block], dim=1)])
    weight = numbers[-1, -1] / n
    mean = torch.cat([numbers[:-1, -1], cross[:, -1]]) / numbers[-1, -1]
    covariance = second[:first, :first] / n - torch.outer(mean[:first], mean[:first]) * weight
    variances, products = (squares / n - mean**2 * weight)[first:], covariance[:ahead].sum(dim=0)
    of_target = products[ahead:], float(products[:ahead].sum())
    return Moments(mean[ahead:], covariance[ahead:, ahead:], variances, float(weight), *of_target, n)


# Steps that are as long as they should be in every direction
#
# The covariance of the inputs is the squared loss's curvature and bounds that of the others, up to a constant. SGD on
# weights V of *whitened* inputs, whose covariance is the identity, converges as fast as on the book's synthetic data.
# With ``W = R.T V``, a step of V is a step of W against ``R.T R`` times its gradient, and ``R.T R`` is the inverse of
# the covariance: so networks keep the weights of the inputs as they are, and their optimizer multiplies gradients.

# From gradients by inputs and bias to steps of inputs, unknown codes and bias.
Preconditioner = Callable[[Tensor], Tensor]


def make_preconditioner(moments: Moments, inverse: Inverse, frequencies: Tensor, dtype: torch.dtype) -> Preconditioner:
    """What turns gradients ``(inputs + 1, outputs)`` into steps ``(inputs + columns + 1, outputs)`` of this ``dtype``.

    ``frequencies`` ``(columns, slots)``: behind the slots there is one more effect a column, that of an unknown code,
    which moves by the average of the others and so stays the average effect.
    """
    is_matrix = not len(inverse.of_others) and dtype != torch.float64  # one product for many, found in float64
    exact = moments.mean if is_matrix else moments.mean.to(dtype)
    mean, inverse, frequencies = exact.unsqueeze(1), inverse.to(exact), frequencies.to(exact)

    def found(gradient: Tensor) -> Tensor:
        step = inverse(gradient[:-1] - mean * gradient[-1:])
        of_bias = gradient[-1:] / moments.weight - mean.T @ step
        return torch.cat([step, frequencies @ step[len(step) - frequencies.shape[1] :], of_bias])

    if not is_matrix:
        return found
    matrix = found(torch.eye(len(mean) + 1).to(exact)).T.to(dtype)
    return lambda gradient: (gradient.T @ matrix).T


class PreconditionedSGD:
    """An optimizer whose gradients are multiplied by the inverse covariance, penalty included."""

    def __init__(
        self,
        optimizer: Optimizer,
        net: Network,
        preconditioner: Future[Preconditioner],
        num_slots: int,
        weight_decay: float,
    ) -> None:
        """``preconditioner`` is waited for by the first step."""
        self._optimizer, self._net, self._weight_decay = optimizer, net, weight_decay
        self._preconditioner, self._num_slots = preconditioner, num_slots
        self.newton_decrement: Callable[[], Tensor] = lambda: torch.zeros(())  # about twice what the last step gains

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer that takes the steps."""
        return self._optimizer.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self._optimizer.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter."""
        gradients: dict[str, Any] = self._net.gradients()
        W, b = gradients["W"], gradients["b"]
        effects = gradients.get("effects", W[:0])
        if self._weight_decay:
            weights = self._net.weights()
            W.add_(weights["W"], alpha=self._weight_decay)
            effects.add_(weights.get("effects", effects), alpha=self._weight_decay)
        # Class by class, as they lie: so their product takes a fifth of the time.
        gradient = torch.cat([W.T, effects.T[:, : self._num_slots], b.unsqueeze(1)], dim=1).T
        step, inputs = self._preconditioner.result()(gradient), len(gradient) - 1
        self.newton_decrement = lambda: (step[:inputs] * gradient[:inputs]).sum() + (step[-1] * gradient[-1]).sum()
        W.copy_(step[: len(W)])
        effects.copy_(step[len(W) : -1])
        b.copy_(step[-1])
        self._optimizer.step()


# The order of an epoch: numbers from 0, int32, as parts of one random permutation

AT_ONCE = 2**21  # numbers that are shuffled in one: beyond the processor's cache each swap takes ten times as long
PARTS = 8  # of more; a power of two
SORTED = 2**16  # numbers that are sorted by part at once, in the cache


def shuffle_in_parts(n: int, generator: torch.Generator) -> Iterator[Tensor]:
    """A random permutation of ``n`` numbers.

    Of many each falls into a part by lot, and a part is shuffled when it is asked for: all orders are as likely
    as by one shuffle (Rao, 1961; Sandelius, 1962), and nobody waits for all of it.
    """
    if n <= AT_ONCE:
        yield torch.randperm(n, generator=generator, dtype=torch.int32)
        return
    lots = torch.empty(-(-n // 8), dtype=torch.int64).random_(generator=generator)  # the lowest bits of each byte
    members: list[list[NDArray[Any]]] = [[] for _ in range(PARTS)]
    part_of = lots.view(torch.uint8)[:n].bitwise_and_(PARTS - 1).numpy()
    for start in range(0, n, SORTED):
        block = part_of[start : start + SORTED]
        by_part = np.argsort(block, kind="stable").astype(np.int32) + np.int32(start)
        firsts = np.bincount(block, minlength=PARTS).cumsum()[:-1]
        for part, some in zip(members, np.split(by_part, firsts), strict=True):
            part.append(some)
    for part in members:
        numbers = torch.from_numpy(np.concatenate(part))
        yield numbers.index_select(0, torch.randperm(len(numbers), generator=generator, dtype=torch.int32))


def regroup(parts: Iterable[Tensor], sizes: Iterable[int]) -> Iterator[Tensor]:
    """The numbers of all parts in their order, so many at a time; the last may be fewer."""
    following, rest = iter(parts), torch.empty(0, dtype=torch.int32)
    for size in sizes:
        while len(rest) < size and (part := next(following, None)) is not None:
            rest = torch.cat([rest, part])
        if not len(rest):
            return
        yield rest[:size]
        rest = rest[size:]


# Epochs: one exact step for few rows, and for many rows minibatches whose weights are averaged

STEP_ROWS = 2**13  # whose outputs stay in the cache
MEASURED = 2**16  # examples whose figures are computed at once
TOGETHER = 2**20  # values of the minibatches made at once: each call that makes them takes Python's lock from the steps
AVERAGING_POWER = (
    1  # tried: 2 and 3 leave twice and three times as much of the objective after a pass, 0 more of the start
)
Minibatches = list[tuple[Tensor, ...]]


def train_epoch_whole(
    net: Network, optimizer: Optimizer, split: Examples, batch_size: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Take one step by the gradient of all examples, summed piece by piece; no order or batch size changes it."""
    params = net.parameters()
    total, measured = [torch.zeros_like(param) for param in params], []
    for piece in split.pieces(STEP_ROWS):
        optimizer.zero_grad()
        ((X, *places),) = piece.in_order(len(piece))
        measured.append((net.measure(net.backward(X, piece.y, *places), piece.y), len(piece)))
        for each, param in zip(total, params, strict=True):
            if param.grad is not None:
                each.add_(param.grad, alpha=len(piece) / len(split))
    for each, param in zip(total, params, strict=True):
        param.grad = each
    optimizer.step()
    return mean_figures(measured)


class AveragedSGD:
    """Epochs of one step a minibatch, each of which leaves the mean of the weights of all steps until then.

    The noise of minibatches averages out, so that the learning rate need not fall (Polyak and Juditsky, 1992). Step t
    counts by t to the power ``AVERAGING_POWER``, and so the first ones next to nothing (Shamir and Zhang, 2013).
    """

    def __init__(self, first: Iterable[Tensor], ahead: Callable[[Iterator[Any]], Iterator[Any]] = iter) -> None:
        """``first`` are the parts of the first epoch's order, which may be drawn already.

        ``ahead`` passes on minibatches, some at a time, and parts of an order, and may make the next meanwhile.
        """
        self._first: Iterable[Tensor] | None = first
        self._ahead = ahead
        self._steps = 0
        self._halfway: list[Tensor] = []  # the mean when half of the first epoch was over
        self._mean: list[Tensor] = []
        self._last: list[Tensor] = []  # the weights from which the next step is taken

    def __call__(
        self, net: Network, optimizer: Optimizer, split: Examples, batch_size: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Take the steps of one epoch, in an order whose parts are asked for when they are needed."""
        parts = shuffle_in_parts(len(split), generator) if self._first is None else self._first
        self._first = None
        params = net.parameters()
        self._set(params, self._last)
        self._mean = self._mean or [torch.zeros_like(param) for param in params]
        measured, seen, rest, whole = [], [], len(split), min(batch_size, len(split))
        half = math.ceil(len(split) / batch_size) // 2
        together = max(1, TOGETHER // (batch_size * split.num_inputs))
        sizes = (batch_size * min(2**at, together) for at in itertools.count())  # the first ones are waited for
        parts = self._ahead(iter(parts)) if len(split) > AT_ONCE else parts  # of one part nothing is left to draw
        drawn = (some.to(split.device, torch.int64) for some in regroup(parts, sizes))
        made: Iterator[Minibatches] = (split.minibatches_at_once(index, batch_size) for index in drawn)
        with ThreadPoolExecutor(1) as beside:  # the next steps
            for X, y, *places in itertools.chain.from_iterable(self._ahead(made)):
                if self._steps == half:
                    self._halfway = [each.clone() for each in self._mean]
                if len(y) < whole:  # the last: each of its examples counts as much as any
                    for group in optimizer.param_groups:
                        group["lr"] *= len(y) / whole
                optimizer.zero_grad()
                seen.append((net.backward(X, y, *places), y))
                optimizer.step()
                self._count(params)
                rest -= len(y)
                if len(seen) * batch_size >= MEASURED or not rest:
                    o, y = joined([each for each, _ in seen]), torch.cat([each for _, each in seen])
                    measured.append((beside.submit(net.measure, o, y), len(y)))
                    seen.clear()
        self._last = [param.detach().clone() for param in params]
        self._set(params, self._mean)
        return mean_figures((each.result(), count) for each, count in measured)

    @contextmanager
    def at_halfway(self, net: Network) -> Iterator[None]:
        """The network as it was when half of the first epoch was over, while the block runs."""
        params = net.parameters()
        now = [param.detach().clone() for param in params]
        self._set(params, self._halfway)
        yield
        self._set(params, now)

    def _count(self, params: list[Tensor]) -> None:
        self._steps += 1
        for each, param in zip(self._mean, params, strict=True):
            each.lerp_(param.detach(), (AVERAGING_POWER + 1) / (AVERAGING_POWER + self._steps))

    @torch.no_grad()
    def _set(self, params: list[Tensor], values: list[Tensor]) -> None:
        for param, value in zip(params, values, strict=False):  # of the first epoch there are none
            param.copy_(value)


def until_converged(epochs: Iterable[Measured], decrement: Callable[[], float], tolerance: float) -> Iterator[Measured]:
    """Pass measurements on until the gradient is ``tolerance`` of what it was, in whitened inputs.

    ``decrement`` is that gradient's squared length.
    """
    first = math.nan
    for measured in epochs:
        yield measured
        length = math.sqrt(max(0.0, decrement()))  # rounding may leave less than nothing of it
        first = length if math.isnan(first) else first
        if length <= tolerance * first:
            return


def until_settled(
    epochs: Iterable[Measured],
    objective: Callable[[], float],
    halfway: Callable[[], float],
    tolerance: float,
    least: int,
) -> Iterator[Measured]:
    """Pass measurements on until twice as many epochs, and ``least``, have not lowered ``objective`` by ``tolerance``.

    That is a share of the objective. The first epoch is compared with half of it, of which ``halfway`` is the value.
    """
    values: list[float] = []
    for number, measured in enumerate(epochs, 1):
        yield measured
        values += [objective()] if values else [halfway(), objective()]
        if number >= least and values[number // 2] - values[-1] <= tolerance * abs(values[-1]):
            return
