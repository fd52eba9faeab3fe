"""The rows of a table that a model learns from and is judged on."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data.table import hashing
from tasks.data.table.hashing import Words
from tasks.data.table.profile import ColumnProfile
from tasks.data.table.splitting import TRAINING, Split
from tasks.data.table.targets import Truth

CONTENTS = "contents"  # of training rows: features and target hashed, without the column that splits


class Rows(NamedTuple):
    """The rows that have a target, encoded, in the order of the table."""

    features: NDArray[np.float32]  # (columns, n), mapped
    truth: Truth
    split: Split
    digests: Words  # (n,) of rows
    lossy: tuple[int, ...]  # columns of which float32 has not all digits
    has_missing: tuple[bool, ...]  # of each column
    contents: Words | None  # (n,) features and target, hashed, where the digests have more: a column that splits
    profiles: tuple[ColumnProfile, ...]  # of each column, last of the target

    def digests_of(self, is_training: bool) -> Words:
        """Those of training rows, or of all others, sorted."""
        return hashing.ordered(self.digests[(self.split.sides == TRAINING) == is_training])

    def contents_of_training(self) -> dict[str, Words]:
        """Those of training rows, sorted, where there are any."""
        if self.contents is None:
            return {}
        return {CONTENTS: hashing.ordered(self.contents[self.split.sides == TRAINING])}
