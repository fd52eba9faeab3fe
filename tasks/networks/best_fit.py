"""The fits that no training beats: closed form for squared loss (section 3.1.1.3), converged L-BFGS for Huber.

``X`` is ``(n, inputs)`` and ``y`` is ``(n,)``, float32; everything is computed in float64.
"""

import torch
from torch import Tensor, nn


def with_ones(X: Tensor) -> Tensor:
    """``X`` in float64 with a column of ones for the bias, ``(n, inputs + 1)``."""
    return torch.cat([X.double(), torch.ones(len(X), 1, dtype=torch.float64)], dim=1)


def least_squares_fit(X: Tensor, y: Tensor) -> Tensor:
    """The closed-form solution (section 3.1.1.3), weights and bias ``(inputs + 1,)`` float64."""
    solution: Tensor = torch.linalg.lstsq(with_ones(X), y.double().unsqueeze(1), driver="gelsd").solution
    return solution.squeeze(1)


def huber_fit(X: Tensor, y: Tensor) -> Tensor:
    """The minimiser of ``nn.SmoothL1Loss(beta=0.5)``, by L-BFGS from the least-squares fit; shaped like that."""
    fit = least_squares_fit(X, y).requires_grad_()
    inputs, target, loss = with_ones(X), y.double(), nn.SmoothL1Loss(beta=0.5)
    optimizer = torch.optim.LBFGS([fit], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(inputs @ fit, target)
        value.backward()
        return value

    optimizer.step(closure)
    return fit.detach()
