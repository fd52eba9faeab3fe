"""What the columns of a table are, inferred over all rows, and which become features (design 4.5)."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data import statistics
from tasks.data.io import tabular
from tasks.data.io.table import Table
from tasks.data.levels import MOST_LEVELS, Levels, extend_levels
from tasks.data.recipe import Column
from tasks.data.report import Finding, error, note, warning
from tasks.data.schema import Request, Roles
from tasks.machine.words import counted

NUMBERS_WITH_TEXT = 0.9  # share of values that read as numbers, from which the others are faults
FEW_ROWS = 200
SINGLE_LEVELS, OF_FEW_ROWS = 0.5, 0.9  # share of rows with a level of their own, above which a column has ids
SHOWN = 40  # characters of a value
MOSTLY = 0.5  # share of values that people take for numbers or dates, from which it is said that they are text
FORMAT_PATTERNS = {
    ("numbers", "1234.5"): r"^[$€£¥]?\s?-?(\d{1,3}([.,'\x{a0}\x{202f}]\d{3})+|\d+)([.,]\d+)?\s?[%$€£¥]?$",
    ("dates", "2024-12-31"): r"^(\d{1,2}[./-]\d{1,2}[./-](\d{2}|\d{4})|\d{4}/\d{1,2}/\d{1,2})([ T]\d{1,2}:.*)?$",
}
Kind = tuple[str, Finding | None]  # number, boolean, category, date, id or unfit; and what there is to say of it


class Features(NamedTuple):
    """The columns of a model, and what there is to say of all that might have been."""

    columns: tuple[Column, ...]  # nothing fitted
    left_out: dict[str, str]  # why the others are: date, id, or "left out" by version 1, whatever they are
    findings: tuple[Finding, ...]


def infer_features(table: Table, roles: Roles, request: Request) -> Features:
    """The features of a table, inferred or as the previous schema has them."""
    taken, findings = list[Column](), list[Finding]()
    passed_over = request.previous.passed_over if request.previous else set[str]()
    left_out = dict.fromkeys(passed_over - {roles.split_column, *roles.ignored}, "left out")
    names = set(table.data.column_names)
    for name in (each for each in roles.features if each in names):
        known, is_category = request.known.get(name), name in request.options.category
        kind, finding = _compare_kind(table, known, is_category) if known else _infer_kind(table, name, is_category)
        column = None
        if kind in ("date", "id"):
            left_out[name] = kind
        elif kind == "category" and not _is_error(finding):
            findings += [finding] if finding else []
            column, finding = _find_category(table, name, known)
        elif kind != "unfit" and not _is_error(finding):
            column = known or Column.model_validate({"name": name, "kind": kind})
        taken += [column] if column else []
        findings += [finding] if finding else []
    if not taken and not any(map(_is_error, findings)):
        found = f"no column is left to predict {roles.target or 'anything'} from"
        action = "give more columns, or take one that was left out with --category"
        findings.append(error("no-features", None, found, "at least one number, boolean or category", action))
    return Features(tuple(taken), left_out, tuple(findings))


def _is_error(finding: Finding | None) -> bool:
    return finding is not None and finding.severity == "error"


def value_kind(table: Table, name: str) -> str:
    """What the values are by themselves: number, boolean, date, null, unfit, or text that reads as none of these."""
    column = table.data[name]
    if any(_is_error(each) and each.column == name for each in table.findings):
        return "unfit"  # the reader has said why
    kind = tabular.kind_of(column.type)
    if kind != "text":
        return kind
    has_many = not pa.types.is_dictionary(column.type)  # distinct ones, of which some tell as much as all
    if has_many and column.num_chunks and _kind_of_texts(column.chunk(0).drop_null()) == "text":
        return "text"
    return _kind_of_texts(table.levels(name).used.drop_null())


def _kind_of_texts(values: pa.Array) -> str:
    if not len(values):
        return "null"
    if tabular.parse_numbers(values).null_count == 0:
        return "number"
    if statistics.parse_booleans(values) is not None:
        return "boolean"
    return "text" if statistics.parse_dates(values) is None else "date"


def _infer_kind(table: Table, name: str, is_category: bool) -> Kind:
    """The kind of a column that no version has fixed yet; ``is_category``: the user says so."""
    kind = value_kind(table, name)
    if kind == "unfit":
        return "unfit", None
    if is_category or kind == "boolean":
        return "category" if is_category else "boolean", None
    if kind == "text":
        return _infer_kind_of_text(table, name)
    if kind == "date":
        return "date", note("date", name, f"{name} holds dates or times and is no feature; left out")
    if not _counts_rows(table, name):
        return "number", None
    found = f"{name} has another whole number in every row, as an id has"
    return "number", warning("counts-rows", name, found, f"leave it out with --ignore {name} if it is one")


def _counts_rows(table: Table, name: str) -> bool:
    """Whether a column of numbers may be an id: another whole number in every row, and hardly any left out."""
    low, high = table.limits(name)
    if not FEW_ROWS <= len(table.data) <= high - low + 1 < 2 * len(table.data):
        return False
    values = statistics.to_numbers(table.data[name])  # of which no missing one equals itself
    return np.array_equal(values, np.floor(values)) and np.bincount((values - low).astype(np.int64)).max() <= 1


def _infer_kind_of_text(table: Table, name: str) -> Kind:
    levels = table.levels(name)
    values, singles = int(levels.counts.sum()), int((levels.counts == 1).sum())
    is_number = tabular.parse_numbers(levels.values).is_valid().to_numpy(zero_copy_only=False)
    if levels.counts[is_number].sum() >= NUMBERS_WITH_TEXT * values:
        return "unfit", _text_among_numbers(table, name)
    is_id = singles > values * (OF_FEW_ROWS if values < FEW_ROWS else SINGLE_LEVELS)
    finding = _unusual_format(table, name, levels, "left out as an id" if is_id else "taken as a category")
    if is_id and finding is None:
        found = f"{name} looks like an id: {singles:,} of {counted(values, 'row')} hold a value that no other has"
        finding = note("id", name, f"{found}; left out", f"--category {name} takes it as a feature all the same")
    return "id" if is_id else "category", finding


def _unusual_format(table: Table, name: str, levels: Levels, outcome: str) -> Finding | None:
    """That most of a text column's values look like numbers or dates, and are not written as such."""
    for (what, form), pattern in FORMAT_PATTERNS.items():
        matches = pc.match_substring_regex(levels.values, pattern).fill_null(False).to_numpy(zero_copy_only=False)
        if levels.counts[matches].sum() > MOSTLY * levels.counts.sum():
            found = f"{name} looks like {what} not written as such, as {example_of_text(table, name)}; {outcome}"
            action = f"write {what} as {form}, and nothing where one is missing, or say --category or --ignore {name}"
            return warning("looks-like", name, found, action)
    return None


def example_of_text(table: Table, name: str) -> str:
    """The first value of a text column that reads as no number, and where it is."""
    row, value = table.first_no_number(name) or (0, "")
    return f"{value[:SHOWN]!r} in {table.named(row)}"


def _text_among_numbers(table: Table, name: str, is_fixed: bool = False) -> Finding:
    """That a column of numbers has text in it; ``is_fixed``: since version 1 it may not be anything else."""
    expected = "a number, as in most rows"
    action = f"take the column with --category {name} or not at all with --ignore {name}"
    if is_fixed:
        expected, action = "a number, as version 1 took it", "keep the new table under another --name"
    found = f"{name} is {example_of_text(table, name)}"
    return error("text-among-numbers", name, found, expected, f"mend the value, or {action}")


def _compare_kind(table: Table, known: Column, is_category: bool) -> Kind:
    """The kind that version 1 took a column for, and what is wrong if it is another now; a missing column fits all.

    Dates are levels only where the user says so (``is_category``).
    """
    name, kind, now = known.name, known.kind, value_kind(table, known.name)
    is_level = kind == "category" and (now != "date" or table.is_text(name) or is_category)
    if is_level or now in ("null", "unfit", kind):
        return kind, None
    if kind == "number" and now == "text":
        return kind, _text_among_numbers(table, name, is_fixed=True)
    column = table.data[name]
    row = int(np.argmax(pc.is_valid(column).to_numpy()))
    found = f"{name} is a {now} now, as {str(column[row].as_py())[:SHOWN]!r} in {table.named(row)}"
    action = "mend the data, or keep the new table under another --name"
    return kind, error("retyped-column", name, found, f"a {kind}, as version 1 took it", action)


def _find_category(table: Table, name: str, known: Column | None) -> tuple[Column | None, Finding | None]:
    """The column with its levels, unless these are too many; and that, or which of them are new."""
    old, levels = known.levels if known else (), table.levels(name)
    now = extend_levels(old, levels.names()) if levels.num_used <= MOST_LEVELS else ()
    if (number := max(len(now), levels.num_used)) > MOST_LEVELS:
        found, action = f"{name} has {number:,} levels", f"leave it out with --ignore {name}, or group its values"
        if known:
            found += ", with those that earlier versions took"
            action = "group its values, and give the new table another --name"
        return None, error("too-many-levels", name, found, f"at most {MOST_LEVELS:,}", action)
    finding = None
    if known and (new := now[len(old) :]):
        more = ", …" if len(new) > 10 else ""
        finding = warning("new-levels", name, f"{name} has new levels: {', '.join(new[:10])}{more}")
    return Column(name=name, kind="category", levels=now), finding
