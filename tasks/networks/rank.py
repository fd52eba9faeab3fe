"""How many directions of a table's inputs count in a regression: those whose weights float32 or the data can tell.

Between columns that nearly determine one another the data say little: weights are then large, of either sign, and
cancel but for what rounding to float32 leaves. Directions without a weight make the answer that of minimum norm.
"""

import torch
from torch import Tensor

COLLINEAR = 1e-5  # singular values below this share of the largest count as none, whatever the target
LARGEST = 10.0  # norm of weights, in deviations of target and inputs: tried, 30 are refused by the gate of parity
CERTAIN = 4.0  # standard errors that a weight is away from 0
OFFSET = 50.0  # deviations of an input's mean from 0: from here on it is the offset that loses digits


def least(spectrum: tuple[Tensor, Tensor], products: Tensor, variance: float, num_rows: int, offsets: Tensor) -> float:
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
    told = int((weights.norm(dim=0) <= LARGEST).long().cumprod(dim=0).sum())
    gains = along.square() * variances
    noise = (variance - float(gains.sum())) / max(1, num_rows - rank - 1)
    if told in (0, rank) or (gains[told:] > CERTAIN**2 * noise).any():
        return COLLINEAR
    return float((variances[told - 1] * variances[told]).sqrt().sqrt() / variances[0].sqrt())


def determined(spectrum: tuple[Tensor, Tensor], least: float, widths: list[int]) -> Tensor:
    """The inputs ``(inputs,)`` that others determine: they have a part in a direction whose variance counts as none.

    That the ``widths`` last inputs of a column's indicators sum to one is no news.
    """
    variances, directions = spectrum
    none = directions[:, variances <= least**2 * variances.max()]
    for stop, width in zip(torch.tensor(widths).flip(0).cumsum(0).neg().tolist(), widths[::-1], strict=True):
        indicators = slice(len(none) + stop, len(none) + stop + width)
        none[indicators] -= none[indicators].mean(dim=0)
    determined: Tensor = none.norm(dim=1) > max(1e-3, least)
    return determined
