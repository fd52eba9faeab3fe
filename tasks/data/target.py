"""The column to predict: numbers for regression, classes for classification."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data import row_hash, statistics
from tasks.data.inference import FORMAT_PATTERNS, MOSTLY, NUMBERS_WITH_TEXT, SHOWN, example_of_text, value_kind
from tasks.data.io import tabular
from tasks.data.io.table import Table
from tasks.data.levels import MOST_LEVELS, count_codes, sort_levels
from tasks.data.report import Finding, error, note, warning
from tasks.data.row_hash import Hashes
from tasks.machine.words import counted
from tasks.serving.task import TaskName

FEW_VALUES = 10  # whole numbers that may be classes
LARGEST = float(np.finfo(np.float32).max)
MOST_COARSE = 1e-3  # deviations of a target between two neighbours of float32; the gate ``parity`` allows no more
FEWEST = 2  # training rows of a class
MOST_NAMED = 5  # rare classes that have a line each; more are told in one


class Truth(NamedTuple):
    """What there is to learn of each row that has it."""

    values: NDArray[Any]  # (n,) float64, or labels of the smallest unsigned type
    is_known: NDArray[np.bool_]  # (rows,) which rows these are
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    outside: int = 0  # rows that have a target and are left out: they are outside of the window

    def words(self) -> Callable[[Any], Hashes]:
        """A function that makes the words of some rows, for hashing."""
        return row_hash.hash_inputs(self.values, self.class_names or None)

    def count_classes(self, rows: Any = slice(None)) -> NDArray[np.int64]:
        """The rows of each class ``(classes,)``, of all or of some rows."""
        return count_codes(self.values[rows], len(self.class_names))


def infer_task(table: Table, target: str, is_category: bool) -> TaskName:
    """Regression for numbers, a few of them perhaps spoilt, classification for all else.

    ``is_category``: the user says that these are classes.
    """
    if is_category:
        return "classification"
    kind = value_kind(table, target)
    is_number = kind == "number" or (kind == "text" and table.number_share(target) >= NUMBERS_WITH_TEXT)
    return "regression" if is_number else "classification"


def read_target(table: Table, target: str, task: TaskName, class_names: tuple[str, ...] = ()) -> Truth:
    """The values of the target; ``class_names`` are those that version 1 fixed, in order."""
    kind, is_regression = value_kind(table, target), task == "regression"
    if kind in ("unfit", "date") or (kind == "text" and is_regression):
        found, expected = "nothing that can be learned", "numbers" if is_regression else "classes"
        action = "take another --target"
        if kind == "date":
            found = "a date or a time"
        elif kind == "text":
            found, expected = f"text, as {example_of_text(table, target)}", "numbers such as 1234.5"
            action = "mend them, or take softmax-regression for classes"
        return _unfit(table, error("target-kind", target, f"the target {target} is {found}", expected, action))
    return _read_numbers(table, target) if is_regression else _read_classes(table, target, class_names)


def _unfit(table: Table, finding: Finding) -> Truth:
    return Truth(np.zeros(0), np.zeros(len(table.data), bool), (), (finding,))


def _no_values(table: Table, target: str) -> Truth:
    finding = error("no-target", target, f"no row has a {target}", "a target to learn", "take another --target")
    return _unfit(table, finding)


def _read_numbers(table: Table, target: str) -> Truth:
    values = statistics.to_numbers(table.data[target])
    is_known, is_infinite = ~np.isnan(values), np.abs(values) > LARGEST
    if is_infinite.any():
        row = int(is_infinite.argmax())
        found = f"the target {target} is {values[row]} in {table.named(row)}"
        action = "mend or remove the row, or change the target's unit"
        expected = f"finite numbers of at most {LARGEST:.2g}"
        return _unfit(table, error("infinite-target", target, found, expected, action))
    values = values[is_known]
    if not len(values):
        return _no_values(table, target)
    findings = tuple(check_constant(target, values, ()) or _check_numbers(target, values))
    return Truth(values, is_known, (), findings)


def _check_numbers(target: str, values: NDArray[np.float64]) -> Iterator[Finding]:
    """Whether float32, in which a model predicts, tells values apart; and whether they may be meant as classes."""
    low, high, deviation = float(values.min()), float(values.max()), float(values.std())
    largest = np.float32(max(abs(low), abs(high)))
    spacing = float(largest - np.nextafter(largest, np.float32(0)))
    if spacing > MOST_COARSE * deviation:
        found = f"float32 tells values of the target {target} apart by {spacing:.3g} only"
        found += f"; they deviate by {deviation:.3g}"
        expected = f"at most {MOST_COARSE:g} of their deviation"
        yield error("offset", target, found, expected, "subtract an offset from the target")
    if high - low < FEW_VALUES and np.array_equal(values, np.floor(values)):
        found = f"the target {target} has whole numbers from {low:g} to {high:g} only"
        yield note("few-values", target, found, "softmax-regression learns them as classes")


def _read_classes(table: Table, target: str, fixed: tuple[str, ...]) -> Truth:
    levels = table.levels(target)
    if not levels.num_used:
        return _no_values(table, target)
    if levels.num_used > MOST_LEVELS:
        found = f"the target {target} has {levels.num_used:,} different values"
        action, expected = "take linear-regression for numbers, or another --target", f"at most {MOST_LEVELS:,} classes"
        return _unfit(table, error("too-many-classes", target, found, expected, action))
    current = sort_levels(levels.names())
    names = fixed or current
    codes = levels.encode(names)
    is_known = ~np.isnan(codes)
    labels = (codes if is_known.all() else codes[is_known]).astype(np.min_scalar_type(len(names) - 1))
    return Truth(labels, is_known, names, tuple(_check_classes(target, current, fixed)))


def _check_classes(target: str, current: tuple[str, ...], fixed: tuple[str, ...]) -> Iterator[Finding]:
    """What is wrong with the names of classes, or other than version 1 fixed it."""
    if len(current) == 1:
        yield _constant(target, current[0])
    if odd := [name for name in current if name.splitlines() != [name]]:
        action = "rename the class, or leave its rows' target empty (null) where they have none"
        yield error("class-name", target, f"{target} has the class {odd[0]!r}", "names of one line", action)
    if fixed and (new := [name for name in current if name not in fixed]):
        found = f"the target {target} has {len(new):,} new class{'' if len(new) == 1 else 'es'}: "
        expected = f"the classes that version 1 fixed: {', '.join(fixed[:20])}"
        action = "remove these rows, or keep the new table under another --name"
        yield error("new-class", target, found + ", ".join(new[:10]), expected, action)
    if gone := [name for name in fixed if name not in current]:
        yield warning("class-without-rows", target, f"no row tonight has the class {', '.join(gone[:10])}")


def as_classes(truth: Truth) -> Truth:
    """Each value of a few numbers as a class."""
    values, labels = np.unique(truth.values, return_inverse=True)
    return truth._replace(values=labels, class_names=tuple(f"{value:g}" for value in values))


def check_constant(target: str, values: NDArray[Any], class_names: tuple[str, ...]) -> list[Finding]:
    """Whether there is nothing to learn from the values ``(n,)`` of some rows, for they are all the same."""
    if not len(values) or values.min() != values.max():
        return []
    return [_constant(target, class_names[values[0]] if class_names else f"{values[0]:g}")]


def _constant(target: str, value: str) -> Finding:
    found = f"the target {target} is {value} in every row"
    return error("constant-target", target, found, "different values", "take another --target")


def check_rare_classes(truth: Truth, is_training: NDArray[np.bool_], target: str | None = None) -> Iterator[Finding]:
    """Classes that have rows and hardly any of the training part; ``is_training`` ``(n,)`` says which rows that is.

    ``target`` is the column of a table that names the classes: many rare ones may be numbers.
    """
    rows, in_training = truth.count_classes(), truth.count_classes(is_training)
    rare = np.flatnonzero((rows > 0) & (in_training < FEWEST)).tolist()
    expected, action = f"at least {FEWEST} training rows of each class", "get more of them, or remove these rows"
    if len(rare) > MOST_NAMED:
        yield _many_rare([truth.class_names[code] for code in rare], len(truth.class_names), target, expected, action)
        return
    for code in rare:
        found = f"class {truth.class_names[code]!r} has {counted(int(rows[code]), 'row')}, "
        found += f"{in_training[code]} of them in the training part"
        yield error("rare-class", None, found, expected, action)


def _many_rare(names: list[str], number: int, target: str | None, expected: str, action: str) -> Finding:
    """That so many of the classes are rare, and what they are if they are numbers."""
    found = f"{len(names):,} of {number:,} classes have hardly a row, as {names[0][:SHOWN]!r}"
    if target is None:
        return error("rare-class", None, found, expected, action)
    texts = pa.array(names)
    matches = pc.match_substring_regex(texts, FORMAT_PATTERNS["numbers", "1234.5"])
    if tabular.parse_numbers(texts).null_count == 0:
        found = f"the target {target} has {number:,} different numbers, most in hardly a row"
        action = "use linear-regression, which learns numbers"
    elif pc.mean(matches).as_py() > MOSTLY:
        found = f"{target} looks like numbers not written as such, as {names[matches.index(True).as_py()][:SHOWN]!r}"
        expected, action = "numbers such as 1234.5", "write them so: linear-regression learns numbers"
    else:
        action = "take another --target, or remove these rows"
    return error("rare-class", target, found, expected, action)
