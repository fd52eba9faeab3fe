"""Many softmax regressions side by side, as trials of a search are: one product a step serves them all (section 3.6).

A minibatch is read and converted once. The weights of all lie one below the other, ``(trials * outputs, inputs)``, in
the layout in which both products of a step are fastest on a CPU, and the more rows there are the faster.
"""

import torch
from torch import Tensor

from tasks.networks.examples import Examples

VALUES = 2**18  # inputs of a piece that is measured: they stay in the processor's cache


class SoftmaxRegressions:
    """``o = WX.T + b`` of every trial, with its gradient written out; they start alike and differ in their steps.

    ``X`` is ``(n, …)`` float32, ``y`` ``(n,)`` int64. ``class_weights`` ``(outputs,)`` say how much an example of
    each class counts; None: all the same. With a ``mean`` ``(inputs,)`` they see inputs less it (``centring``).
    """

    def __init__(
        self, W: Tensor, num_trials: int, class_weights: Tensor | None = None, mean: Tensor | None = None
    ) -> None:
        """``W`` ``(outputs, inputs)`` is the start of each."""
        self.num_outputs = len(W)
        self.W = W.repeat(num_trials, 1)
        self.b = self.W.new_zeros(len(self.W), 1)
        self.class_weights, self.mean = class_weights, mean
        if mean is not None:
            self.b.add_((self.W @ mean).unsqueeze(1))

    def __call__(self, X: Tensor) -> Tensor:
        """Scores ``(trials, outputs, n)`` of flat inputs, as they see them."""
        return torch.addmm(self.b, self.W, X.T).view(-1, self.num_outputs, len(X))

    def begin(self, lr: Tensor, weight_decay: Tensor) -> None:
        """Take the next steps by each trial's own ``lr`` and ``weight_decay``, both ``(trials,)``.

        The latter pulls the weights, not the bias (section 4.5).
        """
        self._lr, self._kept = lr.view(-1, 1, 1), 1 - self._by_row(lr * weight_decay)

    def step(self, X: Tensor, y: Tensor) -> None:
        """Move every trial against the gradient of its mean cross-entropy.

        The derivative of cross-entropy by the scores is ``softmax(o) - y`` with one-hot ``y`` (section 3.4.6).
        """
        X = self._seen(X)
        g = torch.softmax(self(X), dim=1)
        g -= g.new_zeros(self.num_outputs, len(y)).scatter_(0, y.unsqueeze(0), 1.0)
        if self.class_weights is not None:
            g *= self.class_weights[y]
        g *= self._lr
        g = g.view(len(self.W), len(y))
        self.W *= self._kept
        self.W.addmm_(g, X, alpha=-1 / len(y))
        self.b.sub_(g.sum(dim=1, keepdim=True), alpha=1 / len(y))

    def losses(self, split: Examples) -> Tensor:
        """The mean cross-entropy of each trial on a whole split ``(trials,)`` float64, by its logarithm of softmax."""
        weights = split.y.new_ones(self.num_outputs) if self.class_weights is None else self.class_weights
        total = torch.zeros(len(self.W) // self.num_outputs, dtype=torch.float64, device=self.W.device)
        for piece in split.pieces(max(1, VALUES // split.num_inputs)):
            ((X,),), y = piece.in_order(len(piece)), piece.y
            o = torch.log_softmax(self(self._seen(X)), dim=1)
            total -= o[:, y, torch.arange(len(y), device=y.device)].double() @ weights[y].double()
        return total / weights[split.y].double().sum()

    def keep(self, trials: list[int]) -> None:
        """Go on with these trials alone, by their position."""
        self.W, self.b = (
            each.view(-1, self.num_outputs, each.shape[1])[trials].flatten(0, 1) for each in (self.W, self.b)
        )

    def _seen(self, X: Tensor) -> Tensor:
        X = X.flatten(1)
        return X if self.mean is None else X - self.mean

    def _by_row(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self.num_outputs).unsqueeze(1)
