"""What parameters choose from."""

import re
from enum import StrEnum

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
DEFAULT_SEED = 42
FASHION_MNIST = "fashion-mnist"
SYNTHETIC_LINEAR = "synthetic-linear"


def is_name(text: str) -> bool:
    """Whether ``text`` may name a model; anything else never becomes part of a path."""
    return re.fullmatch(NAME_PATTERN, text) is not None


class ModelName(StrEnum):
    """The two models of chapter 3."""

    SOFTMAX_REGRESSION = "softmax-regression"
    LINEAR_REGRESSION = "linear-regression"


class Implementation(StrEnum):
    """The book's two ways of writing each model."""

    SCRATCH = "scratch"
    CONCISE = "concise"


WRITTEN_FOR: dict[Implementation, tuple[ModelName, ...]] = {
    Implementation.SCRATCH: (ModelName.SOFTMAX_REGRESSION, ModelName.LINEAR_REGRESSION),
    Implementation.CONCISE: (ModelName.SOFTMAX_REGRESSION, ModelName.LINEAR_REGRESSION),
}  # the networks themselves: tasks/fitting/trainer.py


class Loss(StrEnum):
    """What training minimises. Softmax regression has cross-entropy only."""

    CROSS_ENTROPY = "cross-entropy"
    SQUARED = "squared"
    HUBER = "huber"


class Schedule(StrEnum):
    """How the learning rate changes from epoch to epoch."""

    CONSTANT = "constant"
    COSINE = "cosine"
    STEP = "step"


class Device(StrEnum):
    """Where to compute; ``auto`` takes the GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Runner(StrEnum):
    """What runs the shards of a batch prediction."""

    THREADS = "threads"
    DASK = "dask"
