"""Which of today's test rows a kept version was not trained on, by the row digests that it was kept with (design 4.5).

Where the rule that split its rows is today's and goes by a hash of the row, it was trained on none. Where its digests
take in a column that is not beside the test rows of today, such as that of another rule, or what a split column said
when a row was still one for training, rows are told by features and target: a test row may be known that equals a row
which the version was trained on and today's training part no longer has.
"""

import functools

import numpy as np

from tasks.data import row_hash
from tasks.data.image_dataset import SPLIT_NAMES
from tasks.data.prepared_splits import read_arrays
from tasks.data.recipe import Columns, SplitRule
from tasks.data.row_hash import Hashes, is_in
from tasks.data.split import TRAINING
from tasks.data.table_rows import CONTENTS
from tasks.data.target import Truth
from tasks.judging.standards import read_rows
from tasks.machine.arrays import Array
from tasks.records import PreparedDataset, Splits
from tasks.store.verified import RESTORE

FIXED = ("rows", "copies", "group")  # rules by which a row stays on its side


class RowsOfToday:
    """The test rows ``(n,)`` that versions are compared on, by their digests; each kind of digest is made once."""

    def __init__(self, prepared: PreparedDataset) -> None:
        self.prepared = prepared
        self._digests = functools.cache(self._as_trained_on)

    def unseen_by(self, old: Splits) -> Array | str | None:
        """Where rows are that a version was not trained on ``(n,)`` bool, None: all are, or why nobody can tell.

        Raises:
            DataError: the file of its digests has changed.
        """
        then, now = old.split, self.prepared.split
        if then is None or now is None or (then == now and then.rule in FIXED):
            return None
        if old.rows is None or not old.rows.path.is_file():
            return "has no row digests: nobody knows which test rows of today it was trained on"
        kept = read_arrays(old.rows, RESTORE)
        if then.rule == "copies" and now.rule != "copies":
            return "was split by the number of the copy among equal rows, which the test rows of today do not have"
        if then.column is None or (then.rule == "time" and (then.rule, then.column) == (now.rule, now.column)):
            return ~_among(*self._digests(then), kept["train"])
        if CONTENTS not in kept:
            return f"has no row digests without {then.column}, which the test rows of today do not have"
        return ~_among(*self._contents, _gone(kept[CONTENTS], self._in_training))

    @functools.cached_property
    def _in_training(self) -> Hashes:
        """Features and target of today's training rows, sorted; of a rule without a column none is like a test row."""
        rows = self.prepared.rows
        found = read_arrays(rows, RESTORE) if rows else {}
        return found.get(CONTENTS, np.empty(0, np.uint64))

    @functools.cached_property
    def _contents(self) -> tuple[Hashes, Array]:
        rows, recipe = read_rows(self.prepared.test, self.prepared), self.prepared.recipe
        words = row_hash.hash_rows(recipe.columns, list(rows.features.T)) if isinstance(recipe, Columns) else rows.key
        truth = Truth(rows.truth, np.empty(0, bool), self.prepared.class_names, ())
        return _ordered(row_hash.update_hashes(words, truth.words()))

    def _as_trained_on(self, rule: SplitRule) -> tuple[Hashes, Array]:
        """The digests that rows have where a version under a rule was trained on them, as first copies."""
        key = read_rows(self.prepared.test, self.prepared).key
        if rule.rule == "copies":
            return _ordered(key)
        words, order = self._contents
        if rule.rule == "folders":
            words = row_hash.update_hashes(words, row_hash.hash_levels(SPLIT_NAMES)[TRAINING])
        if rule.rule == "time":
            words = row_hash.update_hashes(words, key[order])
        words = row_hash.update_hashes(words, row_hash.FIRST_COPY)
        again = np.argsort(words)
        return words[again], order[again]


def _ordered(words: Hashes) -> tuple[Hashes, Array]:
    """Hashes in order, and where each was."""
    order = np.argsort(words)
    return words[order], order


def _among(words: Hashes, order: Array, known: Hashes) -> Array:
    """Which rows ``(n,)`` have a word that is known; ``words`` are in order, and those of rows ``order``."""
    result = np.zeros(len(words), bool)
    result[order] = is_in(known, words)
    return result


def _gone(before: Hashes, now: Hashes) -> Hashes:
    """The words, sorted and each once, of which there were more before; both are sorted."""
    words, counts = np.unique(before, return_counts=True)
    return words[counts > np.searchsorted(now, words, "right") - np.searchsorted(now, words)]
