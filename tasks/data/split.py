"""Which rows are the test split: by a rule that version 1 of a name fixes, and never by a seed."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.data import row_hash, statistics
from tasks.data.inference import value_kind
from tasks.data.io import date_parts, tabular
from tasks.data.io.table_builder import SHOWN, Table
from tasks.data.io.tabular import DateForm
from tasks.data.levels import Levels, find_levels, format_values
from tasks.data.prepared_splits import hold_out
from tasks.data.recipe import SplitRule
from tasks.data.report import Finding, error
from tasks.data.row_hash import Hashes
from tasks.data.schema import Request
from tasks.data.target import TargetValues
from tasks.machine.arrays import Array
from tasks.machine.words import pluralize

VALIDATION_SHARE = 0.2
MIN_TEST, MIN_TRAINING, MIN_GROUPS = 10, 20, 10
VALIDATION, TRAINING, TEST = 0, 1, 2  # split ids
SPLIT_WORDS = {
    "train": TRAINING, "training": TRAINING, "test": TEST, "testing": TEST, "t10k": TEST,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
}  # fmt: skip
SPLIT_IDS = {**SPLIT_WORDS, "false": TRAINING, "true": TEST}  # values that a column may have
SIGN = np.uint64(1 << 63)
HOUR = 3_600_000_000  # microseconds
HOURS = {"h": 1, "d": 24, "w": 7 * 24}


class RowTimes(NamedTuple):
    """The time of each row ``(n,)`` float64, NaN if missing: microseconds since 1970, or another number."""

    values: Array
    are_dates: bool
    fault: Finding | None = None  # of text: what is wrong with it


class SplitAssignment(NamedTuple):
    """The split id of each row ``(n,)`` uint8, and the key by which a validation part is cut, ``(n,)``."""

    split_ids: NDArray[np.uint8]
    keys: Hashes
    findings: tuple[Finding, ...] = ()
    has_dates: bool = False  # keys are of dates

    def count(self, split_id: int) -> int:
        """The number of rows in one split."""
        return int(np.count_nonzero(self.split_ids == split_id))

    @property
    def is_valid(self) -> bool:
        """Whether the rule gives every row a side; otherwise the split ids say nothing."""
        return not any(each.is_error for each in self.findings)


def hold_out_validation(split: SplitAssignment) -> SplitAssignment | None:
    """Hold out a fifth of the training rows for validation, whole groups or the latest, unless there is such a part.

    None where either part would be empty.
    """
    if not split.count(VALIDATION):
        ids, training = split.split_ids.copy(), np.flatnonzero(split.split_ids == TRAINING)
        ids[training[hold_out(split.keys[training], VALIDATION_SHARE)]] = VALIDATION
        split = split._replace(split_ids=ids)
    return split if split.count(VALIDATION) and split.count(TRAINING) else None


def split_by_hash(keys: Hashes, share: float) -> SplitAssignment:
    """Make the rows with the lowest hashes the test split."""
    return SplitAssignment(np.where(keys < row_hash.find_threshold(share), np.uint8(TEST), np.uint8(TRAINING)), keys)


def split_by_column(
    rule: SplitRule, column: pa.ChunkedArray, name_row: Callable[[int], str], hashing: Future[Hashes]
) -> tuple[SplitAssignment, Hashes]:
    """Rows split by the column of a rule, and what this column puts into row digests.

    For ``time`` this is the keys of ``encode_times``. For other rules the name of a value is hashed like that of a
    level, so that 7 is the same group whether a file has it as an integer, a float or text. ``name_row`` says where a
    row is; ``hashing`` computes row hashes meanwhile.
    """
    name, fault, missing = str(rule.column), None, None
    if rule.is_by_time:
        times = read_times(name, column, rule.form, name_row)
        inputs = encode_times(times.values)
        split = split_by_time(inputs, rule.test)._replace(has_dates=times.are_dates)
        fault = times.fault
    else:
        levels = find_levels(column)
        inputs = _hash_names(levels)
        split = split_by_group(inputs, rule.test) if rule.rule == "group" else split_by_names(levels, hashing.result())
    if num_missing := pc.sum(pc.is_null(column, nan_is_null=True)).as_py():
        found, action = f"{name} is missing in {pluralize(num_missing, 'row')}", f"fill it in, or split without {name}"
        missing = error("split-missing", None, found, "a value in every row", action)
    return split._replace(findings=(*filter(None, (fault, missing)), *split.findings)), inputs


def _hash_names(levels: Levels) -> Hashes:
    """The input of each row ``(n,)`` of a column from the name of its value; ids have as many values as rows."""
    values, size = levels.values, row_hash.BLOCK
    pieces = (format_values(values.slice(start, size)) for start in range(0, len(values), size))
    return levels.take(row_hash.hash_levels(itertools.chain.from_iterable(pieces)))


def split_by_group(groups: Hashes, share: float) -> SplitAssignment:
    """Put all rows of a group into the same split."""
    split = split_by_hash(row_hash.update_hashes(np.zeros_like(groups), groups), share)
    if (num_groups := len(np.unique(split.keys))) >= MIN_GROUPS:
        return split
    found, action = pluralize(num_groups, "group"), "more groups, or no --split-by"
    return split._replace(findings=(error("too-few-rows", None, found, f"at least {MIN_GROUPS}", action),))


def split_by_time(times: Hashes, share: float) -> SplitAssignment:
    """The latest rows are the test split: the cut is the time nearest to the share.

    Rows with the same time are in the same split.
    """
    is_training = hold_out(~times, 1 - share)  # the earliest: their complements are the largest
    return SplitAssignment(np.where(is_training, np.uint8(TRAINING), np.uint8(TEST)), times)


def split_by_names(levels: Levels, keys: Hashes) -> SplitAssignment:
    """Split by a column's words: train, test or validation in any case, or true for test rows.

    Validation rows become the test split if there is no other; otherwise they are watched during training.
    """
    names = [(name or "").strip().lower() for name in format_values(levels.used_levels)]
    ids = np.array([SPLIT_IDS.get(name, VALIDATION) for name in names] + [VALIDATION], np.uint8)
    if TEST not in ids:
        ids[:-1][ids[:-1] == VALIDATION] = TEST
    split = SplitAssignment(levels.take(ids), keys)
    unknown = [name for name, count in zip(names, levels.counts, strict=True) if count and name not in SPLIT_IDS]
    if not unknown:
        return split
    said = f"the split column says {', '.join(map(repr, unknown[:5]))}"
    expected = "train, test or validation, or true and false"
    return split._replace(findings=(error("split-column", None, said, expected, "rename them"),))


def find_time_form(rule: SplitRule, table: Table) -> str:
    """The form of dates in text by which rows are split: as version 1 fixed it, or as all rows of the column show it.

    It is empty for ISO 8601, and where rows are not split by dates in text of one form.
    """
    name = str(rule.column)
    if rule.form or not rule.is_by_time or not table.is_text(name):
        return rule.form
    read_as = date_parts.find_form(table.levels(name), name)
    return read_as.form if isinstance(read_as, DateForm) else ""


def read_times(name: str, column: pa.ChunkedArray, form: str, name_row: Callable[[int], str]) -> RowTimes:
    """The time of each row: a number unchanged, a date as microseconds since 1970.

    Dates in text are in this ``form``; if it is empty, in the one that they show. Without a zone they are in UTC.
    ``name_row`` says where a row of the column is.
    """
    if (kind := tabular.kind_of(column.type)) != "text":
        return RowTimes(statistics.to_numbers(column), kind == "date")
    levels = find_levels(column)
    texts = levels.used_levels
    numbers = tabular.parse_numbers(texts)
    read_as = DateForm(form, needs_date=True) if form else date_parts.find_form(levels, name) or date_parts.ISO_8601
    if numbers.null_count == texts.null_count and read_as != date_parts.MONTHS:
        return RowTimes(levels.take(np.append(tabular.to_numbers(numbers), np.nan)), are_dates=False)
    action = f"rewrite them, or split without --time-column {name}"
    if isinstance(read_as, Finding):
        return RowTimes(np.full(len(column), np.nan), False, read_as.model_copy(update={"action": action}))
    dates, fault = date_parts.read_dates(texts, read_as._replace(zone="UTC")), None
    if (is_odd := np.isnat(dates.moments) & np.asarray(texts.is_valid())).any():
        text = texts[int(np.argmax(is_odd))]
        row = pc.index(column.cast(pa.string()), text).as_py()
        found = f"{name} is not a date or time like the others: {text.as_py()[:SHOWN]!r} in {name_row(row)}"
        expected = "numbers, or dates of one form, such as 2024-12-31T23:59:59 or 31.12.2024"
        fault = error("no-moment", name, found, expected, action)
    elif "" in dates.zones and len(dates.zones) > 1:
        fault = error("mixed-zones", name, f"{name} has times with a zone and times without", "one of the two", action)
    moments = tabular.to_numbers(pa.array(dates.moments))
    return RowTimes(levels.take(np.append(moments, np.nan)), True, fault)


def encode_times(times: NDArray[np.float64]) -> Hashes:
    """A key ``(n,)`` for each time, such that keys sort in the order of times; 0 for NaN.

    It is made from the bits of the float64: all are flipped for a negative number, otherwise only the highest.
    """
    bits = (times + 0.0).view(np.uint64)
    keys = np.where(bits >= SIGN, ~bits, bits | SIGN)
    keys[np.isnan(times)] = 0
    return keys


def decode_times(keys: Hashes) -> NDArray[np.float64]:
    """The times from which ``encode_times`` made the keys ``(n,)``, such as a prepared split's keys; NaN for 0.

    For dates these are microseconds since 1970 (``Splits.has_dates`` says whether they are dates).
    """
    values = np.where(keys >= SIGN, keys ^ SIGN, ~keys).view(np.float64)
    values[keys == 0] = np.nan
    return values


def check_min_rows(split: SplitAssignment) -> Iterator[Finding]:
    """What is missing for a model and for a verdict on it."""
    test, training = split.count(TEST), split.count(TRAINING)
    if test < MIN_TEST or training < MIN_TRAINING:
        found = f"{pluralize(test, 'test row')} and {pluralize(training, 'training row')}"
        action = "get more rows, or split them differently, for example with another --test share"
        yield error("too-few-rows", None, found, f"at least {MIN_TEST} and {MIN_TRAINING}", action)


def keep_window(table: Table, targets: TargetValues, request: Request) -> TargetValues:
    """The truth in a window of time, such as ``90d``, that ends with the newest row that has a target.

    A row without a time is kept, and reported as a fault later.
    """
    column, window = request.split.column, request.options.window
    if column is None or column not in table.data.column_names or not len(targets.values):
        return targets
    form, values = find_time_form(request.split, table), targets.of_column(table.data[column])
    if value_kind(table, column) == "number" and form != date_parts.MONTH_FORM:
        found = f"{column} holds numbers, and --window {window} counts hours, days or weeks"
        action = "write them as 2024-12-31T23:59:59, or leave --window out"
        return targets._replace(findings=(*targets.findings, error("window", column, found, "dates or times", action)))
    times = read_times(column, values, form, partial(targets.name_row, table)).values
    width = float(window[:-1]) * HOURS[window[-1]] * HOUR
    is_inside = ~(times <= np.fmax.reduce(times, initial=-np.inf) - width)
    is_known = targets.is_known.copy()
    is_known[is_known] = is_inside
    return targets._replace(values=targets.values[is_inside], is_known=is_known, outside=int((~is_inside).sum()))
