"""The rows of a table that a model learns from and is judged on."""

from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from tasks.data.report import ColumnProfile
from tasks.data.row_hash import Hashes
from tasks.data.split import TRAINING, Split
from tasks.data.statistics import Encoded
from tasks.data.table.targets import Truth
from tasks.machine import side_by_side

CONTENTS = "contents"  # of training rows: features and target hashed, without the column that splits


class Rows(NamedTuple):
    """The rows that have a target, encoded, in the order of the table."""

    features: Encoded
    truth: Truth
    split: Split
    digests: Hashes  # (n,) of rows
    lossy: tuple[int, ...]  # columns of which float32 has not all digits
    has_missing: tuple[bool, ...]  # of each column
    ordering: Future[dict[str, Hashes]]  # digests of training rows and of all others; and ``CONTENTS``
    profiles: tuple[ColumnProfile, ...]  # of each column, last of the target

    @property
    def ordered(self) -> dict[str, Hashes]:
        """Digests, each part sorted: it takes a while, in which files are written already."""
        return self.ordering.result()

    def digests_of(self, is_training: bool) -> Hashes:
        """Those of training rows, or of all others, sorted."""
        return self.ordered["train" if is_training else "other"]


def ordered(split: Split, digests: Hashes, contents: Hashes | None) -> dict[str, Hashes]:
    """What a file of row digests holds; ``contents`` ``(n,)`` are there where digests have more: a column that splits.

    They are features and target, hashed; of training rows they are kept.
    """
    is_training = split.split_ids == TRAINING
    parts = {"train": digests[is_training], "other": digests[~is_training]}
    if contents is not None:
        parts[CONTENTS] = contents[is_training]
    side_by_side.each(np.ndarray.sort, tuple(parts.values()))
    return parts
