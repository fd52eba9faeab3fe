"""What a column is, inferred over all its rows (design 4.5)."""

from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data import statistics
from tasks.data.readers import columns
from tasks.data.report import Finding, error, note, warning
from tasks.data.sources.tables import Table
from tasks.data.table.levels import Levels
from tasks.machine.words import counted

FeatureKind = Literal["number", "boolean", "category"]
NUMBERS_WITH_TEXT = 0.9  # share of values that read as numbers, from which the others are faults
FEW_ROWS = 200
SINGLE_LEVELS, OF_FEW_ROWS = 0.5, 0.9  # share of rows with a level of their own, above which a column has ids
SHOWN = 40  # characters of a value
MOSTLY = 0.5  # share of values that people take for numbers or dates, from which it is said that they are text
LOOKS = {
    ("numbers", "1234.5"): r"^[$€£¥]?\s?-?(\d{1,3}([.,'\x{a0}\x{202f}]\d{3})+|\d+)([.,]\d+)?\s?[%$€£¥]?$",
    ("dates", "2024-12-31"): r"^(\d{1,2}[./-]\d{1,2}[./-](\d{2}|\d{4})|\d{4}/\d{1,2}/\d{1,2})([ T]\d{1,2}:.*)?$",
}


class Kind(NamedTuple):
    """What a column is: a feature's kind, or why it is none; and what is wrong with it."""

    name: str  # number, boolean, category, date, id or unfit
    finding: Finding | None = None

    @property
    def is_feature(self) -> bool:
        """Whether a model can take it."""
        return self.name in ("number", "boolean", "category")


def infer(table: Table, name: str, is_category: bool) -> Kind:
    """The kind of a column that no version has fixed yet; ``is_category``: the user says so."""
    kind = plain_kind(table, name)
    if kind == "unfit":
        return Kind("unfit")  # the reader has said why
    if is_category:
        return Kind("category")
    if kind == "text":
        return _of_text(table, name)
    if kind == "date":
        return Kind("date", note("date", name, f"{name} holds dates or times and is no feature; left out"))
    return Kind("boolean") if kind == "boolean" else Kind("number", _counts_rows(table, name))


def _counts_rows(table: Table, name: str) -> Finding | None:
    """That a column of numbers may be an id: another whole number in every row, and hardly any left out."""
    low, high = table.limits(name)
    if not FEW_ROWS <= len(table.data) <= high - low + 1 < 2 * len(table.data):
        return None
    values = statistics.to_numbers(table.data[name])  # of which no missing one equals itself
    if not np.array_equal(values, np.floor(values)) or np.bincount((values - low).astype(np.int64)).max() > 1:
        return None
    found = f"{name} has another whole number in every row, as an id has"
    action = f"leave it out with --ignore {name} if it is one"
    return warning("counts-rows", name, found, action)


def plain_kind(table: Table, name: str) -> str:
    """What the values are by themselves: number, boolean, date, null, unfit, or text that reads as none of these."""
    column = table.data[name]
    if any(each.severity == "error" and each.column == name for each in table.findings):
        return "unfit"
    kind = columns.kind_of(column.type)
    if kind != "text":
        return kind
    has_many = not pa.types.is_dictionary(column.type)  # distinct ones, of which some tell as much as all
    if has_many and column.num_chunks and _kind_of_text(column.chunk(0).drop_null()) == "text":
        return "text"
    return _kind_of_text(table.levels(name).used.drop_null())


def _kind_of_text(values: pa.Array) -> str:
    if not len(values):
        return "null"
    if columns.numbers(values).null_count == 0:
        return "number"
    if statistics.parse_booleans(values) is not None:
        return "boolean"
    return "text" if statistics.parse_dates(values) is None else "date"


def _of_text(table: Table, name: str) -> Kind:
    found = table.levels(name)
    values = int(found.counts.sum())
    read = found.counts[columns.numbers(found.values).is_valid().to_numpy(zero_copy_only=False)]
    if read.sum() >= NUMBERS_WITH_TEXT * values:
        return Kind("unfit", no_number(table, name))
    singles = int((found.counts == 1).sum())
    is_id = singles > values * (OF_FEW_ROWS if values < FEW_ROWS else SINGLE_LEVELS)
    if odd := _written_otherwise(table, name, found, "left out as an id" if is_id else "taken as a category"):
        return Kind("id" if is_id else "category", odd)
    if is_id:
        said = f"{name} looks like an id: {singles:,} of {counted(values, 'row')} hold a value that no other has"
        return Kind(
            "id", note("id", name, f"{said}; left out", f"--category {name} takes it as a feature all the same")
        )
    return Kind("category")


def _written_otherwise(table: Table, name: str, found: Levels, outcome: str) -> Finding | None:
    """That most of a text column's values look like numbers or dates, and are not written as such."""
    for (what, form), pattern in LOOKS.items():
        looks = pc.match_substring_regex(found.values, pattern).fill_null(False).to_numpy(zero_copy_only=False)
        if found.counts[looks].sum() > MOSTLY * found.counts.sum():
            row, value = table.first_no_number(name) or (0, "")
            said = (
                f"{name} looks like {what} not written as such, as {value[:SHOWN]!r} in {table.named(row)}; {outcome}"
            )
            action = f"write {what} as {form}, and nothing where one is missing, or say --category or --ignore {name}"
            return warning("looks-like", name, said, action)
    return None


def no_number(table: Table, name: str, is_kept: bool = False) -> Finding:
    """That a column of numbers has text in it, and where; ``is_kept``: since version 1 it may not be another."""
    row, value = table.first_no_number(name) or (0, "")
    otherwise = f"take the column with --category {name} or not at all with --ignore {name}"
    found = f"{name} is {value[:SHOWN]!r} in {table.named(row)}"
    expected = "a number, as version 1 took it" if is_kept else "a number, as in most rows"
    action = f"mend the value, or {'keep the new table under another --name' if is_kept else otherwise}"
    return error("text-among-numbers", name, found, expected, action)


def misfit(table: Table, name: str, kind: FeatureKind, is_category: bool) -> Finding | None:
    """What is wrong where version 1 took a column as ``kind`` and it is another now; a wholly missing one fits all.

    Dates are levels only where the user says so (``is_category``).
    """
    now = plain_kind(table, name)
    if kind == "category" and (now != "date" or table.is_text(name) or is_category):
        return None
    if now in ("null", "unfit", kind):
        return None
    if kind == "number" and now == "text":
        return no_number(table, name, is_kept=True)
    column = table.data[name]
    row = int(np.argmax(pc.is_valid(column).to_numpy()))
    found = f"{name} is a {now} now, as {str(column[row].as_py())[:SHOWN]!r} in {table.named(row)}"
    action = "mend the data, or keep the new table under another --name"
    return error("retyped-column", name, found, f"a {kind}, as version 1 took it", action)
