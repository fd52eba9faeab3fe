"""Prepared splits as tensors: ``preprocess`` wrote them; ``train``, ``evaluate`` and ``export`` read them."""

from typing import Literal

import torch

from tasks.data.prepared_splits import read_split
from tasks.networks.examples import Split
from tasks.records import PreparedDataset


def load_split(prepared: PreparedDataset, name: Literal["train", "test", "validation"]) -> Split:
    """Read a prepared split: pixels stay uint8 and are scaled to 0…1 one minibatch at a time.

    Raises:
        DataError: the file is missing or has changed since it was prepared.
    """
    rows = read_split(getattr(prepared, name), prepared)
    X, y = map(torch.from_numpy, rows[:2])  # noqa: N806  (the book's letter)
    return Split(X, y if y.is_floating_point() else y.long(), prepared.recipe.scale)
