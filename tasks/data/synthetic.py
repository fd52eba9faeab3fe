"""The book's data for linear regression, generated (section 3.2.1)."""

import numpy as np
from numpy.typing import NDArray

from tasks.data.book import BookDataset
from tasks.data.dataset import Contents, Rows
from tasks.data.recipe import Column, Columns
from tasks.parameters import SYNTHETIC_LINEAR, Data
from tasks.records import RawDataset


class SyntheticLinear(BookDataset):
    """Two independent draws from ``y = Xw + b + noise``."""

    name = identifier = SYNTHETIC_LINEAR
    title = "Synthetic linear data"

    def fetch(self) -> RawDataset:
        """Nothing: there are no files."""
        return RawDataset(name=self.name, source="generated", files={})

    def summary(self, raw: RawDataset, data: Data) -> str:
        """The law that they are drawn from: there are no files to be wrong."""
        weights = " ".join(f"{w:+g}·x{number + 1}" for number, w in enumerate(data.synthetic_w))
        law = f"y = {weights} {data.synthetic_b:+g}, noise {data.synthetic_noise:g}"
        return f"{self.title}; {data.num_examples:,} training and as many test examples of {law}"

    def read(self, raw: RawDataset, data: Data, seed: int) -> Contents:
        """The training split, then the test split, drawn from one generator."""
        rng = np.random.default_rng(seed)
        w = np.asarray(data.synthetic_w)
        train, test = (
            Rows(*synthetic_data(w, data.synthetic_b, data.num_examples, rng, data.synthetic_noise)) for _ in range(2)
        )
        return Contents(
            train,
            test,
            recipe=Columns(columns=tuple(Column(name=f"x{number + 1}") for number in range(len(w)))),
            task="regression",
            true_parameters=(*data.synthetic_w, data.synthetic_b),
        )


def synthetic_data(
    w: NDArray[np.float64], b: float, num_examples: int, rng: np.random.Generator, noise: float = 0.01
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """``y = Xw + b + noise`` with standard normal ``X`` (section 3.2.1): features ``(n, len(w))``, target ``(n,)``."""
    X = rng.standard_normal((num_examples, len(w)))  # noqa: N806  (the book's letter)
    y = X @ w + b + rng.normal(0, noise, num_examples)
    return X.astype(np.float32), y.astype(np.float32)
