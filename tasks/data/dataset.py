"""What a data set can do, whichever it is: fetch its raw files, and give raw rows and the truth of each split."""

from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from tasks.data.recipe import Recipe
from tasks.parameters import Data
from tasks.records import RawDataset
from tasks.serving.task import TaskName


class Rows(NamedTuple):
    """One split: inputs ``(n, …)`` as the data set has them, before any recipe, and the truth ``(n,)``."""

    inputs: NDArray[Any]
    truth: NDArray[Any]


class Contents(NamedTuple):
    """What is in a data set: the raw rows of each split, how a model takes them, and what there is to learn."""

    train: Rows
    test: Rows
    recipe: Recipe
    task: TaskName
    class_names: tuple[str, ...] = ()
    true_parameters: tuple[float, ...] | None = None  # weights, then the bias: only generated data have them


class Dataset(Protocol):
    """A data set; ``tasks/data/datasets.py`` finds it by its name."""

    name: str  # of its folder in artifacts/datasets/
    title: str  # how people call it
    identifier: str  # on the Hugging Face Hub; of one that is not there, its name

    def fetch(self) -> RawDataset:
        """Bring its raw files into its folder, verified.

        Raises:
            SourceUnreachable: none of its sources answers; they may, later.
            DataError: a raw file is missing or not what it should be.
        """

    def read(self, raw: RawDataset, data: Data, seed: int) -> Contents:
        """Both splits of its raw files, by what the user asked for; ``seed`` is for data that are generated.

        Raises:
            DataError: a raw file is broken.
        """
