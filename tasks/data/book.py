"""What the book's data sets have in common: they are what they always were, and are prepared whole."""

from abc import ABC, abstractmethod

from tasks.data import splits
from tasks.data.dataset import Contents, Validated
from tasks.data.report import DataReport
from tasks.data.validated import Fixed, ValidatedDataset
from tasks.parameters import Data
from tasks.records import ChampionData, PreparedDataset, RawDataset
from tasks.serving.task import TaskName


class BookDataset(ABC):
    """A data set whose splits are known."""

    name: str
    title: str
    identifier: str

    @abstractmethod
    def summary(self, raw: RawDataset, data: Data) -> str:
        """One line that says that its raw files are what they should be.

        Raises:
            DataError: they are not.
        """

    @abstractmethod
    def read(self, raw: RawDataset, data: Data, seed: int) -> Contents:
        """Both splits of its raw files, by what the user asked for; ``seed`` is for data that are generated.

        Raises:
            DataError: a raw file is broken.
        """

    def validate(
        self, raw: RawDataset, data: Data, task: TaskName, kept: Fixed | None, champion: ChampionData | None
    ) -> Validated:
        """A report of one line: there is nothing to infer."""
        return Validated(DataReport(name=self.name, summary=self.summary(raw, data)))

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """Both splits as their recipe makes them."""
        return splits.prepare(self, self.read(validated.raw, data, seed))
