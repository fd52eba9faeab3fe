"""The column to predict: numbers for regression, classes for classification."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.data import statistics
from tasks.data.inference import value_kind
from tasks.data.io.table_builder import CORRECT, SHOWN, Table
from tasks.data.io.tabular import NUMBERS_WITH_TEXT
from tasks.data.levels import MOST_LEVELS, count_codes, sort_levels
from tasks.data.recipe import LabelKind
from tasks.data.report import Finding, error, note, warning
from tasks.data.schema import Request
from tasks.machine.arrays import Array
from tasks.machine.words import format_names, pluralize, quote_value
from tasks.serving.task import TaskName

FEW_VALUES = 10  # as many whole numbers may be classes
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).tiny)  # below it float32 has fewer digits
MOST_COARSE = 1e-3  # target deviations between two neighbouring float32 numbers; the gate ``parity`` allows no more
FEWEST = 2  # training rows of a class
PLAIN_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
MOST_NAMED = 5  # rare classes that have a line each; if there are more, one line reports all


class TargetValues(NamedTuple):
    """What there is to learn from each row that has a target."""

    values: Array  # (n,) float64, or labels of the smallest unsigned type
    is_known: Array  # bool (rows,) which rows these are
    class_names: tuple[str, ...]
    findings: tuple[Finding, ...]
    outside: int = 0  # rows that have a target but lie outside the window, and are left out

    def of_column(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """The values of a table's column in these rows."""
        return column if self.is_known.all() else column.filter(self.is_known)

    def name_row(self, table: Table, row: int) -> str:
        """Where one of these rows is in the table, in words."""
        return table.name_row(int(np.flatnonzero(self.is_known)[row]))

    def count_classes(self, rows: Any = slice(None)) -> Array:
        """The number of rows in each class ``(classes,)``, among all or some rows."""
        return count_codes(self.values[rows], len(self.class_names))


def read_target(table: Table, request: Request, task: TaskName | None) -> TargetValues:
    """The values of the target; empty if it is missing or unfit.

    Without a ``task``, numbers (a few of which may be invalid) mean regression, and everything else classification.
    """
    target = request.target
    if target is None or target not in table.data.column_names:
        return _read_nothing(table)
    kind = value_kind(table, target)
    if kind == "unfit":  # the reader has reported why
        return _read_nothing(table)
    if task is None:
        is_number = kind == "number" or (kind == "text" and table.number_share(target) >= NUMBERS_WITH_TEXT)
        task = "regression" if is_number and target not in request.options.category else "classification"
    is_text = kind == "text" and task == "regression"
    if is_text or kind == "date":
        what, action = "a date or a time", "use another --target"
        if is_text:
            action = f"{CORRECT}, or retrain with --task classification for classes"
            what = f"text, such as {table.example_of_text(target)}"
        expected = "numbers such as 1234.5" if task == "regression" else "numbers or classes"
        return _read_nothing(table, error("target-kind", target, f"the target {target} is {what}", expected, action))
    if task == "regression":
        targets = _read_numbers(table, target)
    else:
        targets = _read_classes(table, target, request.previous.class_names if request.previous else ())
    if len(targets.values) or any(each.is_error for each in targets.findings):
        return targets
    found = f"no row has a {target}"
    return _read_nothing(table, error("no-target", target, found, "a target to learn", "use another --target"))


def correct_advice(finding: Finding, target: str | None) -> Finding:
    """The finding about a column, with other advice if the column is the target, which cannot be left out."""
    if target is None or finding.column != target:
        return finding
    action = finding.action.replace(f"leave it out with --ignore {quote_value(target)}", "use another --target")
    return finding.model_copy(update={"action": action})


def _read_nothing(table: Table, *findings: Finding) -> TargetValues:
    return TargetValues(np.zeros(0), np.zeros(len(table.data), bool), (), findings)


def _read_numbers(table: Table, target: str) -> TargetValues:
    values = statistics.to_numbers(table.data[target], table.missing)
    is_known, is_infinite = ~np.isnan(values), np.abs(values) > LARGEST
    if not is_infinite.any():
        known = values[is_known]
        return TargetValues(known, is_known, (), tuple(_check_numbers(target, known)))
    row = int(is_infinite.argmax())
    return _read_nothing(
        table,
        error(
            "infinite-target",
            target,
            f"the target {target} is {values[row]} in {table.name_row(row)}",
            f"finite numbers of at most {LARGEST:.2g}",
            "correct or remove the row, or change the target's unit",
        ),
    )


def _check_numbers(target: str, values: Array) -> Iterator[Finding]:
    """Whether float32, in which a model predicts, can distinguish values, and whether they may be meant as classes."""
    if not len(values) or (low := values.min()) == (high := values.max()):  # which is reported as another fault
        return
    deviation = values.std()
    spacing = np.spacing(np.nextafter(np.float32(max(-low, high)), np.float32(0)))
    if spacing > MOST_COARSE * deviation:
        yield error(
            "offset",
            target,
            f"float32 can only distinguish values of the target {target} that are at least {spacing:.3g} apart; "
            f"their standard deviation is {deviation:.3g}",
            f"at most {MOST_COARSE:g} of their deviation",
            "subtract an offset from the target" if max(-low, high) >= SMALLEST else "scale the target up",
        )
    if high - low < FEW_VALUES and np.array_equal(values, np.floor(values)):
        yield note(
            "few-values",
            target,
            f"the target {target} has whole numbers from {low:g} to {high:g} only",
            "retrain with --task classification learns them as classes",
        )


def _read_classes(table: Table, target: str, fixed: tuple[str, ...]) -> TargetValues:
    levels = table.levels(target)
    if levels.num_used > MOST_LEVELS:
        return _read_nothing(
            table,
            error(
                "too-many-classes",
                target,
                f"the target {target} has {levels.num_used:,} different values",
                f"at most {MOST_LEVELS:,} classes",
                "use --task regression for numbers, or another --target",
            ),
        )
    current = sort_levels(levels.names())
    names = fixed or current
    codes = levels.encode(names)
    is_known = ~np.isnan(codes)
    labels = (codes if is_known.all() else codes[is_known]).astype(np.min_scalar_type(max(len(names) - 1, 0)))
    return TargetValues(labels, is_known, names, tuple(_check_classes(target, current, names)))


def find_label_kind(table: Table, request: Request, class_names: Sequence[str]) -> LabelKind:
    """What the names of classes mean, as version 1 fixed it, or as the target's values say.

    Text of typed files stays text, and so do numbers with leading zeros.
    """
    if request.previous:
        return request.previous.target_kind
    target = str(request.target)
    kind = value_kind(table, target) if class_names and target not in table.typed_texts else "text"
    if kind == "number" and all(map(PLAIN_NUMBER.fullmatch, class_names)):
        return "number" if len({*map(float, class_names)}) == len(class_names) else ""
    return "boolean" if kind == "boolean" else ""


def _check_classes(target: str, current: tuple[str, ...], names: tuple[str, ...]) -> Iterator[Finding]:
    """What is wrong with the names of classes, or differs from ``names``, which version 1 fixed."""
    if odd := [name for name in current if name.splitlines() != [name]]:
        yield error(
            "class-name",
            target,
            f"{target} has the class {odd[0]!r}",
            "names of one line",
            "rename the class, or leave its rows' target empty (null) where they have none",
        )
    if new := [name for name in current if name not in names]:
        yield error(
            "new-class",
            target,
            f"{target} has new classes: {format_names(new, 10)}",
            f"those that version 1 fixed: {format_names(names, 20)}",
            "remove these rows, or keep the new table under another --name",
        )
    if gone := [name for name in names if name not in current]:
        yield warning("class-without-rows", target, f"no row has the class {format_names(gone, 10)} any more")


def check_constant(target: str | None, targets: TargetValues) -> Iterator[Finding]:
    """Whether there is nothing to learn, for all values are the same."""
    values, names = targets.values, targets.class_names
    if len(values) and values.min() == values.max():
        found = f"the target {target} is {names[values[0]] if names else f'{values[0]:g}'} in every row"
        yield error("constant-target", target, found, "different values", "use another --target")


def check_rare_classes(targets: TargetValues, is_training: Array, target: str | None = None) -> Iterator[Finding]:
    """Classes that have rows, but hardly any in the training part; ``is_training`` ``(n,)`` says which rows that is.

    ``target`` is the column of a table that names the classes.
    """
    rows, in_training = targets.count_classes(), targets.count_classes(is_training)
    rare = np.flatnonzero((rows > 0) & (in_training < FEWEST)).tolist()
    expected, action = f"at least {FEWEST} training rows of each class", "get more of them, or remove these rows"
    if len(rare) > MOST_NAMED:
        example = repr(targets.class_names[rare[0]][:SHOWN])
        found = f"{len(rare):,} of {len(rows):,} classes have hardly any rows, such as {example}"
        if target:
            action += "; if these are numbers, use --task regression, and write them as 1234.5 if it cannot read them"
        yield error("rare-class", target, found, expected, action)
        return
    for code in rare:
        of_class = f"class {targets.class_names[code]!r} has {pluralize(int(rows[code]), 'row')}"
        found = f"{of_class}, {in_training[code]} of them in the training part"
        yield error("rare-class", None, found, expected, action)
