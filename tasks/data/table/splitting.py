"""Which rows are the test split: by a rule that version 1 of a name fixes, and never by a seed (design 4.5)."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data.findings import error
from tasks.data.levels import find_levels, format_values
from tasks.data.report import Finding
from tasks.data.table import hashing
from tasks.data.table.hashing import Words
from tasks.data.table.split_rule import SplitRule
from tasks.machine.words import counted

FEWEST_TEST, FEWEST_TRAINING, FEWEST_GROUPS = 10, 20, 10
VALIDATION, TRAINING, TEST = 0, 1, 2  # sides
SIDES = {
    "train": TRAINING, "training": TRAINING, "test": TEST, "false": TRAINING, "true": TEST,
    "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION,
}  # fmt: skip


class Split(NamedTuple):
    """The side of each row ``(n,)`` uint8, and the key by which a validation part is cut, ``(n,)``."""

    sides: NDArray[np.uint8]
    keys: Words
    findings: tuple[Finding, ...] = ()

    def count(self, side: int) -> int:
        """The rows on one side."""
        return int(np.count_nonzero(self.sides == side))


def threshold(share: float) -> np.uint64:
    """Below which a hash is one of the test split."""
    return np.uint64(int(share * 2.0**64))


def by_hash(keys: Words, share: float) -> Split:
    """The lowest hashes are the test split."""
    return Split(np.where(keys < threshold(share), TEST, TRAINING).astype(np.uint8), keys)


def by_group(values: Words, share: float) -> Split:
    """All rows of a group are on one side."""
    keys = np.zeros(len(values), np.uint64)
    hashing.absorb(keys, values)
    split = by_hash(keys, share)
    if (groups := hashing.num_distinct(keys)) < FEWEST_GROUPS:
        found, expected = counted(groups, "group"), f"at least {FEWEST_GROUPS}"
        return split._replace(findings=(error("too-few-rows", None, found, expected, "more groups, or no --split-by"),))
    return split


def by_time(values: Words, share: float) -> Split:
    """The latest rows are the test split: the cut is the moment nearest to the share.

    Rows of one moment are on one side.
    """
    ordered = np.sort(values)
    wanted = len(values) * (1 - share)
    moment = ordered[min(len(values) - 1, int(wanted))]
    cuts = [int(np.searchsorted(ordered, moment, side)) for side in ("left", "right")]
    cut = min(cuts, key=lambda each: abs(each - wanted))
    first = ordered[cut] if cut < len(ordered) else np.uint64(2**64 - 1)
    return Split(np.where(values >= first, TEST, TRAINING).astype(np.uint8), values)


def by_column(column: pa.ChunkedArray, keys: Words) -> Split:
    """A column says which rows are which: train, test or validation in any case, or true of test rows.

    Rows for validation are the test split where there are no others; else they are watched during training.
    """
    found = find_levels(column)
    names = [(name or "").strip().lower() for name in format_values(found.used)]
    unknown = [name for name, count in zip(names, found.counts, strict=True) if count and name not in SIDES]
    codes = np.array([SIDES.get(name, VALIDATION) for name in names] + [VALIDATION], np.uint8)
    if TEST not in codes:
        codes[:-1][codes[:-1] == VALIDATION] = TEST
    findings = []
    if unknown:
        said = f"the split column says {', '.join(map(repr, unknown[:5]))}"
        expected = "train, test or validation, or true and false"
        findings.append(error("split-column", None, said, expected, "rename them"))
    return Split(found.take(codes), keys, tuple(findings))


By = tuple[pa.ChunkedArray, Words | None]  # the column that splits and its words, if not by the column's own say


def split(rule: SplitRule, by: By | None, hashed: Words, digests: Words) -> Split:
    """The sides of rows with these row hashes and row digests, by a rule, and ``by`` its column with its words."""
    if by is None:
        return by_hash(digests if rule.rule == "copies" else hashed, rule.test)
    splits, words = by
    faults = gaps(splits, rule)
    if words is None:
        found = by_column(splits, hashed)
    else:
        found = (by_group if rule.rule == "group" else by_time)(words, rule.test)
    return found._replace(findings=(*faults, *found.findings))


def shortages(split: Split) -> tuple[Finding, ...]:
    """What is missing for a model and a verdict on it."""
    test, training = split.count(TEST), split.count(TRAINING)
    if test >= FEWEST_TEST and training >= FEWEST_TRAINING:
        return ()
    found = f"{counted(test, 'test row')} and {counted(training, 'training row')}"
    expected = f"at least {FEWEST_TEST} and {FEWEST_TRAINING}"
    action = "get more rows, or split them otherwise, as by another --test share"
    return (error("too-few-rows", None, found, expected, action),)


def gaps(column: pa.ChunkedArray, rule: SplitRule) -> tuple[Finding, ...]:
    """Rows that a column cannot split, for it has no value there."""
    is_missing = pc.is_null(column, nan_is_null=True)
    missing = pc.sum(is_missing).as_py() or 0
    if not missing:
        return ()
    found = f"{rule.column} is missing in {counted(missing, 'row')}"
    return (error("split-missing", None, found, "a value in every row", f"fill it in, or split without {rule.column}"),)
