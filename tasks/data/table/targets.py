"""The column to predict: numbers for regression, classes for classification."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import row_hash, statistics
from tasks.data.report import Finding, error, note, warning
from tasks.data.row_hash import Hashes
from tasks.data.sources.tables import Table
from tasks.data.table.kinds import NUMBERS_WITH_TEXT, SHOWN, plain_kind
from tasks.data.table.levels import FEW, MOST_LEVELS, count_codes, in_order
from tasks.machine import side_by_side
from tasks.machine.words import counted
from tasks.serving.task import TaskName

FEW_VALUES = 10  # whole numbers that may be classes
LARGEST = float(np.finfo(np.float32).max)
MOST_COARSE = 1e-3  # deviations of a target between two neighbours of float32; the gate ``parity`` allows no more


class Truth(NamedTuple):
    """What there is to learn of each row that has it."""

    values: NDArray[Any]  # (n,) float64, or labels of the smallest unsigned type
    is_known: NDArray[np.bool_]  # (rows,) which rows these are
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    outside: int = 0  # rows that have a target and are left out: they are outside of the window

    def words(self) -> Callable[[Any], Hashes]:
        """What makes the hash inputs of some rows."""
        of_codes = row_hash.hash_levels(self.class_names) if self.class_names else None

        def words_of(rows: Any) -> Hashes:
            with np.errstate(over="ignore"):
                return row_hash.hash_inputs(self.values[rows], of_codes)

        return words_of


def task_of(table: Table, target: str, is_category: bool) -> TaskName:
    """What a target looks like: numbers, a few of them perhaps spoilt, are for regression, all else are classes.

    ``is_category``: the user says so.
    """
    if is_category:
        return "classification"
    kind = plain_kind(table, target)
    is_number = kind == "number" or (kind == "text" and table.number_share(target) >= NUMBERS_WITH_TEXT)
    return "regression" if is_number else "classification"


def truth(table: Table, target: str, task: TaskName, kept: tuple[str, ...] = ()) -> Truth:
    """The values of the target; ``kept`` are the classes that version 1 fixed, in order."""
    kind = plain_kind(table, target)
    wrong = "a date or a time" if kind == "date" else "text" if kind == "text" and task == "regression" else ""
    if wrong or kind == "unfit":
        found = f"the target {target} is {wrong or 'nothing that can be learned'}"
        action, expected = "take another --target", "numbers" if task == "regression" else "classes"
        if wrong == "text":
            row, value = table.first_no_number(target) or (0, "")
            found += f", as {value[:SHOWN]!r} in {table.named(row)}"
            expected, action = "numbers such as 1234.5", "mend them, or take softmax-regression for classes"
        return _nothing(table, error("target-kind", target, found, expected, action))
    return _numbers(table, target) if task == "regression" else _classes(table, target, kept)


def _nothing(table: Table, *findings: Finding) -> Truth:
    return Truth(np.zeros(0), np.zeros(len(table.data), bool), (), findings)


def _numbers(table: Table, target: str) -> Truth:
    values = statistics.to_numbers(table.data[target])
    is_known = ~np.isnan(values)
    is_infinite = np.abs(values) > LARGEST
    if is_infinite.any():
        row = int(is_infinite.argmax())
        found = f"the target {target} is {values[row]} in {table.named(row)}"
        expected = f"finite numbers of at most {LARGEST:.2g}"
        action = "mend or remove the row, or change the target's unit"
        return _nothing(table, error("infinite-target", target, found, expected, action))
    values = values[is_known]
    if not len(values):
        return _nothing(table, _none(target))
    if values.min() == values.max():
        return Truth(values, is_known, (), tuple(constant(target, values, ())))
    return Truth(values, is_known, (), (*_coarse(target, values), *_few(target, values)))


def _few(target: str, values: NDArray[np.float64]) -> Iterator[Finding]:
    """Whether numbers may be meant as classes."""
    low, high = values.min(), values.max()
    if high - low < FEW_VALUES and np.array_equal(values, np.floor(values)):
        found = f"the target {target} has whole numbers from {low:g} to {high:g} only"
        action = "softmax-regression learns them as classes"
        yield note("few-values", target, found, action)


def _coarse(target: str, values: NDArray[np.float64]) -> Iterator[Finding]:
    """Whether float32, in which a model predicts, cannot tell the values of a target apart."""
    largest = np.float32(np.abs(values).max())
    spacing, deviation = float(largest - np.nextafter(largest, np.float32(0))), float(values.std())
    if spacing > MOST_COARSE * deviation:
        found = (
            f"float32 tells values of the target {target} apart by {spacing:.3g} only; they deviate by {deviation:.3g}"
        )
        expected = f"at most {MOST_COARSE:g} of their deviation"
        yield error("offset", target, found, expected, "subtract an offset from the target")


def _classes(table: Table, target: str, kept: tuple[str, ...]) -> Truth:
    found = table.levels(target)
    number = int((found.counts > 0).sum())
    if not number:
        return _nothing(table, _none(target))
    if number > MOST_LEVELS:
        said = f"the target {target} has {number:,} different values"
        action = "take linear-regression for numbers, or another --target"
        return _nothing(table, error("too-many-classes", target, said, f"at most {MOST_LEVELS:,} classes", action))
    tonight = in_order(found.names())
    codes = found.of(kept or tonight)
    findings = [_constant(target, tonight[0])] if len(tonight) == 1 else []
    if odd := [name for name in tonight if name.splitlines() != [name]]:
        action = "rename the class, or leave its rows' target empty (null) where they have none"
        findings.append(error("class-name", target, f"{target} has the class {odd[0]!r}", "names of one line", action))
    if kept and (new := [name for name in tonight if name not in kept]):
        said = f"the target {target} has {counted(len(new), 'new class' if len(new) == 1 else 'new classe')}: "
        known = f"the classes that version 1 fixed: {', '.join(kept[:20])}"
        action = "remove these rows, or keep the new table under another --name"
        findings.append(error("new-class", target, said + ", ".join(new[:10]), known, action))
    if kept and (gone := [name for name in kept if name not in tonight]):
        said = f"no row tonight has the class {', '.join(gone[:10])}"
        findings.append(warning("class-without-rows", target, said))
    is_known = ~np.isnan(codes)
    smallest = np.min_scalar_type(max(len(kept or tonight) - 1, 0))
    codes = codes if is_known.all() else codes[is_known]
    return Truth(codes.astype(smallest), is_known, kept or tonight, tuple(findings))


def class_counts(labels: NDArray[Any], number: int) -> NDArray[np.int64]:
    """The rows of each of so many classes ``(number,)``.

    Block by block: to be counted, labels become eight times as large.
    """
    if number <= FEW:
        return count_codes(labels, number)
    blocks = np.array_split(labels, 1 + len(labels) // row_hash.BLOCK)
    return sum(side_by_side.each(lambda each: np.bincount(each, minlength=number), blocks), np.zeros(number, np.int64))


def constant(target: str, values: NDArray[Any], class_names: tuple[str, ...]) -> Iterator[Finding]:
    """Whether there is nothing to learn from the values ``(n,)`` of some rows, for they are all the same."""
    if len(values) and (values == values[0]).all():
        yield _constant(target, class_names[values[0]] if class_names else f"{values[0]:g}")


def _none(target: str) -> Finding:
    return error("no-target", target, f"no row has a {target}", "a target to learn", "take another --target")


def _constant(target: str, value: str) -> Finding:
    found = f"the target {target} is {value} in every row"
    return error("constant-target", target, found, "different values", "take another --target")
