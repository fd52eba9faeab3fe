"""Classes with too few rows to learn from."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data.readers import columns
from tasks.data.report import Finding, error
from tasks.data.table.kinds import LOOKS, MOSTLY, SHOWN
from tasks.data.table.targets import Truth, class_counts
from tasks.machine.words import counted

FEWEST = 2  # training rows of a class
MOST_NAMED = 5  # rare classes that have a line each; more are told in one


def findings(truth: Truth, is_training: NDArray[np.bool_], target: str | None = None) -> Iterator[Finding]:
    """Classes that have rows and hardly any of the training part; ``is_training`` ``(n,)`` says which rows that is.

    ``target`` is the column of a table that names the classes: many rare ones may be numbers.
    """
    rows, in_training = (
        class_counts(values, len(truth.class_names)) for values in (truth.values, truth.values[is_training])
    )
    rare = np.flatnonzero((rows > 0) & (in_training < FEWEST))
    expected = f"at least {FEWEST} training rows of each class"
    if len(rare) > MOST_NAMED:
        yield _many([truth.class_names[code] for code in rare], len(truth.class_names), expected, target)
        return
    for code in rare.tolist():
        found = f"class {truth.class_names[code]!r} has {counted(int(rows[code]), 'row')}, "
        found += f"{in_training[code]} of them in the training part"
        yield error("rare-class", None, found, expected, "get more of them, or remove these rows")


def _many(names: list[str], number: int, expected: str, target: str | None) -> Finding:
    """That so many of the classes are rare, and what they are if they are numbers."""
    found = f"{len(names):,} of {number:,} classes have hardly a row, as {names[0][:SHOWN]!r}"
    if target is None:
        return error("rare-class", None, found, expected, "get more of them, or remove these rows")
    texts = pa.array(names)
    if columns.numbers(texts).null_count == 0:
        found = f"the target {target} has {number:,} different numbers, most in hardly a row"
        return error("rare-class", target, found, expected, "use linear-regression, which learns numbers")
    looks = pc.match_substring_regex(texts, LOOKS["numbers", "1234.5"])
    if pc.mean(looks).as_py() > MOSTLY:
        shown = names[looks.index(True).as_py()][:SHOWN]
        found, expected = f"{target} looks like numbers not written as such, as {shown!r}", "numbers such as 1234.5"
        return error("rare-class", target, found, expected, "write them so: linear-regression learns numbers")
    return error("rare-class", target, found, expected, "take another --target, or remove these rows")
