"""What a data set can do, whichever it is: fetch its raw files, say whether they are fit, and prepare its splits."""

from typing import NamedTuple, Protocol

from tasks.data.recipe import Recipe
from tasks.data.report import DataReport
from tasks.data.validated import Fixed, ValidatedDataset, ValidatedTable
from tasks.machine.arrays import Array
from tasks.parameters import Data
from tasks.records import ChampionData, PreparedDataset, RawDataset
from tasks.serving.task import TaskName


class Rows(NamedTuple):
    """One split: inputs ``(n, …)`` as the data set has them, before any recipe, and the truth ``(n,)``."""

    inputs: Array
    truth: Array


class Contents(NamedTuple):
    """What is in a data set: the raw rows of each split, how a model takes them, and what there is to learn."""

    train: Rows
    test: Rows
    recipe: Recipe
    task: TaskName
    class_names: tuple[str, ...] = ()
    true_parameters: tuple[float, ...] | None = None  # weights, then the bias: only generated data have them


class Validated(NamedTuple):
    """What was found, and of own data without errors its rows."""

    report: DataReport
    table: ValidatedTable | None = None
    images: PreparedDataset | None = None
    sheet: bytes | None = None  # of own images: a picture (PNG) of some of each class


class Named(Protocol):
    """What a data set is called."""

    name: str  # of its folder in artifacts/datasets/
    title: str  # how people call it
    identifier: str  # on the Hugging Face Hub; of one that is not there, its name


class Dataset(Named, Protocol):
    """A data set; ``tasks/data/datasets.py`` finds it."""

    def fetch(self) -> RawDataset:
        """Bring its raw files into its folder, verified; own files stay where they are.

        Raises:
            SourceUnreachable: none of its sources answers; they may, later.
            DataError: a raw file is missing or not what it should be.
        """

    def validate(
        self, raw: RawDataset, data: Data, task: TaskName, kept: Fixed | None, champion: ChampionData | None
    ) -> Validated:
        """All that is to be said of its raw files; ``kept`` is what earlier versions fixed.

        ``champion`` says what data the champion was made of.

        Raises:
            UsageError: options that cannot be meant, whatever the data.
            DataError: the data cannot be read at all; what can be is a finding.
        """

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """Both splits, by what the user asked for; ``seed`` is for data that are generated.

        Raises:
            DataError: a file is broken.
        """
