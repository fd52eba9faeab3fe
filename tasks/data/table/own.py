"""A user's own table as a data set: found where it is, validated, and prepared like any other."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.data import mapped, statistics
from tasks.data.dataset import Validated
from tasks.data.sources import tables
from tasks.data.sources.tables import Selection, TableFiles
from tasks.data.splits import PREPARE_ANEW
from tasks.data.table import asked, writing
from tasks.data.table.examining import examine
from tasks.data.table.fixed import FixedRecipe
from tasks.data.table.targets import class_counts
from tasks.data.validated import Fixed, ValidatedDataset
from tasks.errors import DataError, UsageError
from tasks.machine import side_by_side
from tasks.parameters import Data
from tasks.parameters.own_data import OwnData
from tasks.records import ChampionData, PreparedDataset, RawDataset
from tasks.serving.task import TaskName
from tasks.store import artifact_paths, folders, locks, names


def read(
    files: TableFiles, data: OwnData, task: TaskName | None, kept: FixedRecipe | None, scratch: Path
) -> tables.Table:
    """All rows, each column as what it is known to be: a class ``1`` is a name and no number, a kept boolean no 0 or 1.

    Where features are named, no others are read.

    Raises:
        UsageError: options that cannot be meant.
        DataError: not a row can be read.
    """
    asked.require_sound(data, kept)
    known = {column.name: column.kind for column in kept.columns} if kept else {}
    rule = asked.split_by(data, kept)
    used = frozenset(filter(None, (asked.target(data, kept), rule and rule[1], *data.features, *known)))
    selection = Selection(
        as_text=asked.as_text(data, kept, task == "classification"),
        as_boolean=frozenset(name for name, kind in known.items() if kind == "boolean"),
        ignore=asked.ignored(data, kept),
        only=used if data.features else None,
    )
    return tables.read(files, selection, scratch / "spool.arrow")


class OwnTable:
    """The table at ``source``; it is called by the name of its model, for files' names are nobody else's business."""

    def __init__(self, name: str, source: str) -> None:
        self.name = self.title = self.identifier = name
        self.source = source

    def fetch(self) -> RawDataset:
        """Where the files are and how they look; nothing is copied."""
        files = tables.find(self.source)
        return RawDataset(name=self.name, source=files.source, files={}, look=files.digest)

    def validate(
        self, raw: RawDataset, data: Data, task: TaskName, kept: Fixed | None, champion: ChampionData | None
    ) -> Validated:
        """Read all rows, and say which column is what, which row is whose, and what is wrong."""
        kept = kept if isinstance(kept, FixedRecipe) else None
        with scratch_folder(self.name) as folder:
            table = read(tables.find(self.source), data, task, kept, folder)
            now = side_by_side.beside(tables.find, self.source)
            report, recipe, rows = examine(table, self.name, data, task, kept, folder, champion)
            if now.result().digest != raw.look:
                raise DataError(f"{self.source} has changed while it was read", "files that stay", "run it again")
            if recipe is None or rows is None:
                if not report.errors:  # or the run would go on without data
                    raise UsageError(
                        f"nothing to learn in {self.source}", "a column to predict", "name it with --target"
                    )
                return Validated(report)
            made = writing.write(self.name, table, rows, recipe, folder)
            accepted = champion.accepting(*report.accepted) if champion else ()
            return Validated(report, made.model_copy(update={"accepted": accepted}))

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The splits that validation wrote, and their recipe fitted to the training part."""
        table = validated.table
        if table is None:
            raise ValueError("a table that was not validated")
        train = mapped.read(table.train, PREPARE_ANEW)
        fixed = table.recipe
        classes = class_counts(train["labels"], len(fixed.class_names)).tolist() if fixed.class_names else ()
        named = {"name": self.name, "title": self.title, "identifier": self.identifier}
        recipe = statistics.fit_recipe(fixed.columns, fixed.target, train, table.has_missing)
        learned = {"recipe": recipe, "class_counts": tuple(classes)}
        return PreparedDataset(**(dict(fixed) | dict(table) | named | learned), report=validated.report)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder beside the data set's files, whose lock is held; what a killed run left there is removed."""
    folder = artifact_paths.dataset(name)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(artifact_paths.dataset_lock(name), f"another process prepares {folder}; waiting for it"):
        folders.sweep(names.DOWNLOAD, folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=names.DOWNLOAD_PREFIX) as scratch:
            yield Path(scratch)
