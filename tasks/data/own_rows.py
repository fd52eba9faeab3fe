"""The rows of own data, whether a table's or images, and how they become a data set: examined, split, written."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import statistics
from tasks.data.io import date_parts, tabular
from tasks.data.io.table_builder import Table
from tasks.data.levels import find_levels
from tasks.data.prepared_splits import (
    PREPARE_ANEW,
    SPLIT_KEY,
    Arrays,
    PreviousSchema,
    ValidatedDataset,
    Validation,
    read_arrays,
    write_arrays,
)
from tasks.data.recipe import Column, SplitRule
from tasks.data.report import ColumnProfile, DataReport, Finding, error, warning
from tasks.data.row_hash import PARTS, Hashes
from tasks.data.schema import describe_split
from tasks.data.split import TEST, TRAINING, VALIDATION, SplitAssignment
from tasks.data.target import LARGEST, TargetValues
from tasks.errors import DataError
from tasks.machine import parallel, resources
from tasks.machine.arrays import Array
from tasks.machine.words import pluralize
from tasks.parameters import Data
from tasks.records import ChampionData, PreparedDataset, RawDataset
from tasks.serving.task import TASKS, TaskName
from tasks.store import artifact_paths, folders, locks
from tasks.store.record_base import FileRef

SIDES = {"train": TRAINING, "test": TEST, "validation": VALIDATION}


@dataclass(frozen=True, kw_only=True)
class OwnRows(ABC):
    """The ``n`` rows that can be learned from, in the order of their source."""

    targets: TargetValues
    rule: SplitRule
    split: SplitAssignment
    digests: Hashes  # (n,)
    ordering: Future[dict[str, Hashes]]  # the result of ``sort_digests``: it is slow, and files are written meanwhile
    profiles: tuple[ColumnProfile, ...] = ()  # for each column of a table, the last one for the target
    has_separate_copies: bool = False  # whether equal training rows may be in different folds

    block_rows: ClassVar[int] = 2**15  # rows that are read at a time
    most_ordered: ClassVar[int] = 2**18  # beyond this, rows stay as they came: sorting so many takes seconds

    def report_split(self) -> dict[str, Any]:
        """What a report says about the split."""
        return {"split": self.rule} | {f"num_{side}": self.split.count(SIDES[side]) for side in SIDES}

    def describe_split(self) -> str:
        """How many rows are on each side, in words, and why."""
        train, test, validation = (self.split.count(split_id) for split_id in SIDES.values())
        watched = f", {validation:,} validation" if validation else ""
        return f"{train:,} training{watched} and {pluralize(test, 'test row')} ({describe_split(self.rule)})"

    @abstractmethod
    def read_inputs(self, numbers: Any) -> Array:
        """The model's inputs ``(m, …)`` of some rows; for images, the rows must be in order."""

    def write_side(self, side: str, schema: PreviousSchema, scratch: Path) -> FileRef:
        """Write the rows of a side to a file in the folder ``scratch``.

        Minibatches are drawn by position. Few rows of a table are sorted by their digests, so that the model's bytes do
        not depend on the order in which the rows came; many rows stay in the order in which they came.
        """
        split_id = SIDES[side]
        readers: dict[str, Callable[[Array], Array]] = {
            schema.recipe.input.name: self.read_inputs,
            TASKS[schema.task].target: self.targets.values.__getitem__,
            SPLIT_KEY: (self.digests if side == "train" and self.has_separate_copies else self.split.keys).__getitem__,
        }
        first = {key: read(np.zeros(1, np.int64)) for key, read in readers.items()}
        count, is_ordered = self.split.count(split_id), len(self.digests) <= self.most_ordered
        specs = {key: (each.dtype, (count, *each.shape[1:])) for key, each in first.items()}
        batches = {key: map(read, self._number_blocks(split_id, is_ordered)) for key, read in readers.items()}
        return write_arrays(scratch / side, specs, batches)

    def _number_blocks(self, split_id: int, is_ordered: bool) -> Iterator[Array]:
        """The numbers of the rows of a side, block by block."""
        is_mine = self.split.split_ids == split_id
        if is_ordered:
            mine = np.flatnonzero(is_mine)
            yield from np.split(
                mine[np.argsort(self.digests[mine])], range(self.block_rows, len(mine), self.block_rows)
            )
        else:
            for start in range(0, len(is_mine), self.block_rows):
                yield start + np.flatnonzero(is_mine[start : start + self.block_rows])

    def draw_sheet(self) -> bytes | None:
        """A picture (PNG) of some images of each class; None for a table."""
        return None

    def map_side(self, side: str, schema: PreviousSchema, scratch: Path) -> Arrays:
        """One side, mapped to a file in the folder ``scratch``: it may be larger than memory."""
        return read_arrays(self.write_side(side, schema, scratch), PREPARE_ANEW)


def sort_digests(split: SplitAssignment, digests: Hashes) -> dict[str, Hashes]:
    """The content of a file of row digests."""
    is_training = split.split_ids == TRAINING
    parts = {"train": digests[is_training], "other": digests[~is_training]}
    parallel.map_in_threads(np.ndarray.sort, tuple(parts.values()))
    return parts


# Rows of tables


@dataclass(frozen=True, kw_only=True)
class TableRows(OwnRows):
    """The rows of a table that have a target, encoded."""

    table: Table
    features: NDArray[np.float32]  # (columns, n) as a model takes them: codes of levels, NaN where there is no value

    def read_inputs(self, numbers: Any) -> Array:
        """The features ``(m, columns)`` of some rows."""
        return np.ascontiguousarray(self.features[:, numbers].T)


def encode_column(table: Table, column: Column, targets: TargetValues, into: Array) -> tuple[Finding | None, bool]:
    """Write a column's values, for the rows that have a target, into an array like ``TableRows.features``.

    Returns what is wrong with them, and whether float32 holds all their digits.
    """
    if column.part:
        into[:] = date_parts.read_dates(targets.of_column(table.data[column.source])).take(column.part)
        return None, True
    name, values = column.name, targets.of_column(table.data[column.name])
    if column.kind == "category":
        find_levels(values).encode(column.levels, into=into)
        return None, True
    is_exact, row = True, 0
    for chunk in values.chunks:
        exact, part = tabular.to_numbers(chunk, missing=table.missing), into[row : row + len(chunk)]
        with np.errstate(over="ignore"):
            part[:] = exact
        is_exact &= np.count_nonzero(part != exact) == np.count_nonzero(np.isnan(exact))
        row += len(chunk)
    is_infinite = np.isinf(into)
    if is_infinite.any():
        row = int(is_infinite.argmax())
        found = f"{name} is {statistics.to_numbers(values.slice(row, 1))[0]:g} in {targets.name_row(table, row)}"
        action = f"correct the value, or leave the column out with --ignore {name}"
        return error("infinite-value", name, found, f"numbers up to {LARGEST:.3g}", action), True
    if not is_exact and np.nanmin(into) == np.nanmax(into):
        exact = statistics.to_numbers(values)
        if (low := np.nanmin(exact)) < (high := np.nanmax(exact)):
            is_tiny = np.nanmin(into) == 0
            number, remedy = ("0", "scale it up") if is_tiny else ("one number", "subtract an offset from it")
            found = f"{name} lies between {low:.12g} and {high:.12g}, which are {number} in float32"
            action = f"{remedy}, or leave it out with --ignore {name}"
            return warning("offset", name, found, action), is_exact
    return None, is_exact


# Data sets


class Examination(NamedTuple):
    """What was found: everything if there are no errors, otherwise as much as possible."""

    report: DataReport
    schema: PreviousSchema | None
    rows: Any  # the OwnRows that were read, or None


@dataclass(frozen=True)
class OwnDataset(ABC):
    """Data at ``source``; they are named after their model, since the names of the user's files are private."""

    name: str
    source: str

    @abstractmethod
    def fetch(self) -> RawDataset:
        """Where the data are and how they look; nothing is copied."""

    @abstractmethod
    def examine(
        self, data: Data, task: TaskName, previous: Any, champion: ChampionData | None, scratch: Path
    ) -> Examination:
        """Read all rows, and determine the role of each column, the split of each row, and what is wrong.

        ``previous`` is the schema that an earlier version fixed, or None.
        """

    def validate(
        self,
        raw: RawDataset,
        data: Data,
        task: TaskName,
        previous: PreviousSchema | None,
        champion: ChampionData | None,
    ) -> Validation:
        """Examine the data, and write their splits if there are no errors."""
        with scratch_folder(self.name) as scratch:
            found, schema, rows = self.examine(data, task, previous, champion, scratch)
            report = found.without_places(raw.source)
            if not raw.is_always_read and self.fetch().look != raw.look:
                raise DataError(f"{self.source} has changed while it was read", "files that stay", "run it again")
            prepared, sheet = None, rows.draw_sheet() if rows else None
            if schema and rows:
                prepared = write_splits(self.name, rows, schema, scratch)
                accepted = champion.merge_accepted(*report.accepted_findings) if champion else ()
                prepared = prepared.model_copy(update={"accepted": accepted})
            return Validation(report, prepared, sheet)

    def prepare(self, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
        """The splits that validation wrote, and their recipe fitted to the training part."""
        if (prepared := validated.prepared) is None:
            raise ValueError("own data that were not validated")
        facts: dict[str, Any] = {"report": validated.report, "sheet": validated.sheet}
        if columns := prepared.recipe.columns:
            both = zip(columns, prepared.profiles, strict=False)  # the last profile is the target's
            named = tuple(each.model_copy(update={"has_missing": profile.missing > 0}) for each, profile in both)
            recipe = prepared.recipe.model_copy(update={"columns": named})
            facts["recipe"] = statistics.fit_recipe(recipe, read_arrays(prepared.train, PREPARE_ANEW))
        return prepared.model_copy(update=facts)


def write_splits(name: str, rows: OwnRows, schema: PreviousSchema, scratch: Path) -> PreparedDataset:
    """Write all files of error-free data, in parallel; ``scratch`` is a folder on the same disk."""

    def write(side: str) -> FileRef:
        written = rows.write_side(side, schema, scratch)
        return place_file(written, artifact_paths.split_file(name, side, written.sha256))

    sides = [side for side, split_id in SIDES.items() if rows.split.count(split_id)]
    with ThreadPoolExecutor(resources.count_cores()) as pool:
        writing, digests = pool.map(write, sides), rows.ordering.result()
        row_digests, digest = write_digests(name, digests, scratch), schema.digest([digests[part] for part in PARTS])
    files = dict(zip(sides, writing, strict=True))
    return PreparedDataset(
        **files,
        raw_test=files["test"],
        name=name,
        title=name,
        identifier=name,
        digest=digest,
        num_train=rows.split.count(TRAINING),
        num_test=rows.split.count(TEST),
        task=schema.task,
        class_names=schema.class_names,
        split=schema.split,
        class_counts=tuple(rows.targets.count_classes(rows.split.split_ids == TRAINING).tolist()),
        rows=row_digests,
        recipe=schema.recipe,
        ignored=schema.ignored,
        left_out=schema.left_out,
        profiles=rows.profiles,
        has_dates=rows.split.has_dates,
    )


def write_digests(name: str, digests: dict[str, Hashes], scratch: Path) -> FileRef:
    """Write the row digests of each part, sorted, to a file of their own."""
    specs = {part: (np.uint64, each.shape) for part, each in digests.items()}
    written = write_arrays(scratch / "rows", specs, {part: [each] for part, each in digests.items()})
    return place_file(written, artifact_paths.row_digests(name, written.sha256))


def place_file(file: FileRef, target: Path) -> FileRef:
    """Move a written file to the name that its content gives it."""
    file.path.replace(target)
    return FileRef(path=target, sha256=file.sha256)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder beside the data set's files, whose lock is held; leftovers of a killed run are removed."""
    folder = artifact_paths.dataset(name)
    folder.mkdir(parents=True, exist_ok=True)
    with locks.hold_lock(artifact_paths.dataset_lock(name), f"another process is preparing {folder}; waiting for it"):
        folders.sweep(artifact_paths.DOWNLOAD, folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=artifact_paths.DOWNLOAD_PREFIX) as scratch:
            yield Path(scratch)
