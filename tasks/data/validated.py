"""What ``validate`` hands to ``preprocess``: data that are fit to be trained on."""

from typing import TypeAlias

from tasks.data.images.fixed import FixedImages
from tasks.data.report import AcceptedFinding, ColumnProfile
from tasks.data.table.fixed import FixedRecipe
from tasks.records import PreparedDataset, RawDataset
from tasks.store.record import FileRef, Record, Sha256

Fixed: TypeAlias = FixedRecipe | FixedImages  # by earlier versions of a name


class ValidatedTable(Record):
    """An own table whose rows are encoded and on their side of the split; nothing is fitted to them yet.

    ``train`` and ``test`` are the prepared splits (``tasks/data/splits.py``), ``rows`` the digests of training rows
    and of the others.
    """

    recipe: FixedRecipe
    digest: Sha256
    train: FileRef
    test: FileRef
    raw_test: FileRef  # with all digits, where float32 loses some
    validation: FileRef | None = None  # rows that a column names so: watched, on neither side
    num_train: int
    num_test: int
    rows: FileRef
    has_missing: tuple[bool, ...]  # of each column, whether any row has no value there
    has_dates: bool = False  # of a split by time
    profiles: tuple[ColumnProfile, ...]  # of each column, last of the target
    accepted: tuple[AcceptedFinding, ...] = ()


class ValidatedDataset(Record):
    """Raw files, what validation says of them, and of own data what came of their rows."""

    raw: RawDataset
    report: FileRef | None = None
    table: ValidatedTable | None = None
    images: PreparedDataset | None = None  # nothing is fitted to them
    sheet: FileRef | None = None  # of own images: a picture of some of each class
