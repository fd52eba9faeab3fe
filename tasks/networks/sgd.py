"""Minibatch stochastic gradient descent from scratch (section 3.2.6)."""

from collections.abc import Iterable

import torch
from torch import Tensor


class SGD:
    """The two methods of ``torch.optim.SGD`` that a training loop needs, so that one loop serves both.

    The book's ``sgd`` divides by the batch size; here the gradient is that of the mean loss already
    (see ``training``, "Sum or mean").
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        self.params = list(params)
        self.lr = lr

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient."""
        for param in self.params:
            if param.grad is not None:
                param.sub_(param.grad, alpha=self.lr)

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for param in self.params:
            param.grad = None
