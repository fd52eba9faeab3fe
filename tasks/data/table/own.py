"""A user's own table as a data set: found where it is, validated, and prepared like any other."""

from tasks.data.dataset import Validated
from tasks.data.table.fixed import FixedRecipe
from tasks.data.validated import ValidatedDataset
from tasks.parameters import Data
from tasks.records import PreparedDataset, RawDataset
from tasks.serving.task import TaskName


class OwnTable:
    """The table at ``source``; it is called by the name of its model, for files' names are nobody else's business."""

    def __init__(self, name: str, source: str) -> None:
        self.name = self.title = self.identifier = name
        self.source = source

    def fetch(self) -> RawDataset:
        """Where the files are and how they look; nothing is copied."""
        raise NotImplementedError

    def validate(self, raw: RawDataset, data: Data, task: TaskName, kept: FixedRecipe | None) -> Validated:
        """Read all rows, and say which column is what, which row is whose, and what is wrong."""
        raise NotImplementedError

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The splits that validation wrote, and their recipe fitted to the training part."""
        raise NotImplementedError
