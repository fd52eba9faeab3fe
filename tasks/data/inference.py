"""The kinds of a table's columns, inferred over all rows, and which columns become features."""

import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradmill.rows import DATES, PIVOT, SHORT_YEAR
from tasks.data import statistics
from tasks.data.io import date_parts, tabular
from tasks.data.io.number_forms import CURRENCY
from tasks.data.io.table_builder import CORRECT, SHOWN, Table
from tasks.data.levels import MOST_LEVELS, extend_levels
from tasks.data.recipe import INDEX_NAMES, Column
from tasks.data.report import Finding, error, note, warning
from tasks.data.schema import Request, assign_roles
from tasks.machine import parallel
from tasks.machine.words import format_names, pluralize, quote_value

FEW_ROWS = 200
MIN_COUNTED = 100  # rows; fewer whole numbers without a gap may well be years or ranks
SINGLE_LEVELS, OF_FEW_ROWS = 0.5, 0.9  # share of rows with a level of their own, above which a column is taken for ids
MOSTLY = 0.5  # share of values that people read as numbers or dates, from which a finding says that they are text
UNIT = "%|‰|°[CF]?|[mck]?m[²³23]?|[mk]?g|t|[mc]?l|s|min|h|kWh?|MW|[kMG]i?B|Mio\\.?|Mrd\\.?"
NUMBER = r"[-+]?(\d{1,3}([.,'\x{a0}\x{202f}]\d{3})+|\d+)([.,]\d+)?"
DAY = r"\d{1,2}[./-]\d{1,2}[./-](\d{2}|\d{4})|\d{4}/\d{1,2}/\d{1,2}"
SHORT_MONTH = (  # how months begin in English, German, Dutch, French, Spanish, Portuguese and Italian
    "(jan|gen|ene|feb|f[ée]v|m[aä]r|mrz|maa|apr|a[vb]r|may|mai|mei|mag|jui?n|giu|jui?l|lug|aug|ao[uû]|ago|sep|set|oct|"
    "o[ku]t|ott|nov|d[eé][cz]|dic)"
)
MONTH = rf"{SHORT_MONTH}\p{{L}}*\.?"
YEAR = r"(19|20)\d\d"
MONTH_OF_YEAR = (
    rf"{MONTH}[ -]{YEAR}|{SHORT_MONTH}\.?[ -]\d\d|{YEAR}[/-](0?[1-9]|1[0-2])|(0?[1-9]|1[0-2])/{YEAR}|"
    rf"{YEAR}[ -]?Q[1-4]|Q[1-4][ /-]?{YEAR}"
)
FORMAT_PATTERNS = {
    ("numbers", "1234.5"): rf"^\(?({CURRENCY})?\s?{NUMBER}([.,][-\x{2013}]+)?\s?({UNIT}|{CURRENCY})?\)?$",
    ("dates", "2024-12-31"): rf"(?i)^({DAY}|\d+[ -]{MONTH}[ -]\d+|{MONTH} \d+,? \d+|{MONTH_OF_YEAR})([ T]\d+:.*)?$",
}
CODE = r"^\S*\d\S*$"
InferredKind = tuple[str, *tuple[Finding, ...]]  # number, boolean, category, parts, date, id, text or unfit; findings


class Features(NamedTuple):
    """The columns of a model, and the findings about all columns that might have been among them."""

    columns: tuple[Column, ...]  # nothing is fitted yet
    left_out: dict[str, str]  # why others are: date, id, or "" if version 1 did so, whatever they are
    ignored: tuple[str, ...]  # sorted
    findings: list[Finding]


def infer_features(table: Table, request: Request) -> Features:
    """The features of a table, inferred, or as in the previous schema."""
    names, ignored, findings = assign_roles(request, table.header)
    columns = list[Column]()
    left_out = dict.fromkeys(request.passed_over.difference(ignored, [request.split.column]), "")
    names = [name for name in names if name in table.data.column_names]
    kinds = parallel.map_in_threads(lambda name: _infer_kind(table, name, request), names)
    for name, (kind, *found) in zip(names, kinds, strict=True):
        findings += found
        if kind == "category":
            of_name, *found = _find_category(table, name, request.known.get(name))
            columns += of_name
            findings += found
        elif kind in ("number", "boolean"):
            new = Column(name=name, kind=kind, form=table.forms.get(name, ""))
            columns.append(request.known.get(name) or new)
        elif kind == "parts":
            of_name, *found = _find_parts(table, name, request, names)
            columns += of_name
            findings += found
        elif kind != "unfit":
            left_out[name] = kind
    if request.previous and not request.options.no_date_parts:
        findings += _tell_of_parts(table, left_out)
    if not columns and not any(each.is_error for each in findings):
        action = "give more columns, or take one that was left out with --category"
        if request.split.is_by_time and request.split.column in request.reserved:
            name = quote_value(str(request.split.column))
            action = f"give more columns, or learn from months and weekdays with --features {name}"
        findings.append(
            error(
                "no-features",
                None,
                f"no column is left to predict {request.target or 'anything'} from",
                "at least one number, boolean or category",
                action,
            )
        )
    return Features(tuple(columns), left_out, ignored, findings)


def value_kind(table: Table, name: str) -> str:
    """The kind of the values by themselves: number, boolean, date, null, unfit, or text that reads as none of these."""
    if any(each.is_error and each.column == name and not _is_partial_index(each) for each in table.findings):
        return "unfit"  # the reader has reported why
    column = table.data[name]
    kind = tabular.kind_of(column.type)
    if kind != "text":
        return kind
    has_many = not pa.types.is_dictionary(column.type)  # many distinct texts, a sample of which tells as much as all
    if has_many and column.num_chunks and _kind_of_texts(column.chunk(0).drop_null()) == "text":
        return "text"
    return _kind_of_texts(table.levels(name).used_levels.drop_null())


def _kind_of_texts(values: pa.Array) -> str:
    if not len(values):
        return "null"
    if tabular.parse_numbers(values).null_count == 0:
        return "number"
    if pc.all(pc.is_in(pc.ascii_lower(values), pa.array(tabular.TRUTH_VALUES))).as_py():
        return "boolean"
    return "text" if date_parts.parse_dates(values) is None else "date"


def _infer_kind(table: Table, name: str, request: Request) -> InferredKind:
    """The kind of a column: as version 1 fixed it, as the user says, or as its values say."""
    kind, is_category = value_kind(table, name), name in request.options.category
    if known := request.known.get(name):
        return _compare_kind(table, known, kind, is_category)
    if name in request.parts:
        return (kind if kind == "unfit" else "parts",)
    if is_category and kind != "unfit":
        return ("category",)
    if name in INDEX_NAMES and name not in request.options.features and _names_rows(table, name, kind, request):
        found = f"{name} is an index: a different {'text' if kind == 'text' else 'whole number'} in every row"
        return "index", note("index", name, f"{found}; left out", "a feature where --features names it")
    if kind == "date" and not request.options.no_date_parts and name not in table.durations:
        return ("parts",)
    if kind == "text":
        return _infer_kind_of_text(table, name)
    if name in table.durations:
        found = f"{name} holds durations and is no feature; left out"
        return kind, note("date", name, found, "convert it to a number, such as seconds, to train on it")
    if kind == "date":
        return kind, note("date", name, f"{name} holds dates or times and is no feature; left out")
    if kind == "number" and _counts_rows(table, name, request):
        found = f"{name} has a different whole number in every row, as an id would"
        return kind, warning("counts-rows", name, found, f"leave it out with --ignore {name} if it is one")
    if kind == "number" and (zeros := _find_leading_zeros(table, name)):
        return kind, zeros
    return ("number" if kind == "null" else kind,)


def _names_rows(table: Table, name: str, kind: str, request: Request) -> bool:
    """Whether a column has a different whole number, or a different text, in every row of each file that has it.

    A code for missing values may be one of them.
    """
    if kind not in ("number", "text"):
        return False
    column, num_codes = table.data[name], len(request.missing)
    files = [column.slice(first, last - first) for first, last in itertools.pairwise(table.starts)]
    values = np.zeros(1) if kind == "text" else statistics.to_numbers(column.drop_null())
    are_whole = np.array_equal(values, np.floor(values))  # NaN does not equal itself
    return are_whole and all(
        each.null_count <= num_codes and len(each.drop_null().unique()) == len(each) - each.null_count
        for each in files
        if each.null_count < len(each)
    )


def drop_partial_indexes(findings: Iterable[Finding], features: Features, request: Request) -> list[Finding]:
    """The reader's findings without those of row names that only some files have and that no model takes."""
    used = {column.input_name for column in features.columns} | {request.target, request.split.column}
    return [each for each in findings if not _is_partial_index(each) or each.column in used]


def _is_partial_index(finding: Finding) -> bool:
    return finding.rule == "missing-column" and finding.column in INDEX_NAMES


def _find_leading_zeros(table: Table, name: str) -> Finding | None:
    """A warning of numbers with leading zeros, as zip codes have them."""
    texts = [table.padded_values[name]] if name in table.padded_values else []
    if table.is_text(name):  # with spaces, or of files that give numbers as text
        levels = table.levels(name).used_levels
        texts = levels.filter(pc.match_substring_regex(levels, tabular.LEADING_ZERO)).to_pylist()
    if not texts:
        return None
    found = f"{name} is read as numbers, although values such as {texts[0].strip()} begin with 0"
    return warning("leading-zeros", name, found, f"if it is a code and not a quantity, use --category {name}")


def _counts_rows(table: Table, name: str, request: Request) -> bool:
    """Whether a column of numbers may be an id: another whole number in every row, and hardly any left out.

    A code for missing values may be one of them.
    """
    column, (low, high) = table.data[name], table.limits(name)
    num_values = len(column) - column.null_count
    if column.null_count > len(request.missing) or not MIN_COUNTED <= num_values <= high - low + 1 < 2 * num_values:
        return False
    values = statistics.to_numbers(column.drop_null())  # NaN does not equal itself
    return np.array_equal(values, np.floor(values)) and np.bincount((values - low).astype(np.int64)).max() <= 1


def _infer_kind_of_text(table: Table, name: str) -> InferredKind:
    levels = table.levels(name)
    values, singles = int(levels.counts.sum()), int((levels.counts == 1).sum())
    if table.number_share(name) >= tabular.NUMBERS_WITH_TEXT:
        found, expected = f"{name} is {table.example_of_text(name)}", "a number, as in most rows"
        return "unfit", error(
            "text-among-numbers",
            name,
            found,
            expected,
            f"{CORRECT}, make the column a category with --category {name}, or leave it out with --ignore {name}",
        )
    if singles <= values * (OF_FEW_ROWS if values < FEW_ROWS else SINGLE_LEVELS):
        kind, outcome = "category", "taken as a category"
    else:
        kind, outcome = "id" if _are_codes(levels.used_levels) else "text", "left out"
    for (what, form), pattern in FORMAT_PATTERNS.items():  # that most values look like, without its usual form
        matches = pc.match_substring_regex(levels.values, pattern).fill_null(False).to_numpy(zero_copy_only=False)
        if levels.counts[matches].sum() > MOSTLY * values:
            found = f"{name} looks like {what} not written as such: {table.example_of_text(name)}; {outcome}"
            action = f"write {what} as {form}, and nothing where one is missing, or use --category or --ignore {name}"
            return kind, warning("looks-like", name, found, action)
    if kind == "category":
        return (kind,)
    found = (
        f"{name} {'looks like an id' if kind == 'id' else 'is text'}: {singles:,} of {pluralize(values, 'row')} hold"
    )
    found += " a value that no other has; left out"
    return kind, note(kind, name, found, f"--category {name} takes it as a feature all the same")


def _are_codes(values: pa.Array) -> bool:
    """Whether most of these texts are single words with a digit, as ids are, unlike names, addresses and sentences."""
    share: float = pc.mean(pc.match_substring_regex(values, CODE)).as_py()
    return share > MOSTLY


def _compare_kind(table: Table, known: Column, now: str, is_category: bool) -> InferredKind:
    """The kind that version 1 inferred, and a finding if it is another now; a wholly missing column fits any kind.

    Dates are levels only where the user says so (``is_category``).
    """
    name, kind = known.name, known.kind
    is_level = kind == "category" and (now != "date" or table.is_text(name) or is_category)
    if is_level or now in ("null", "unfit", kind):
        return (kind,)
    if kind == "number" and now == "text":
        rule, found, correct = "text-among-numbers", f"{name} is {table.example_of_text(name)}", CORRECT
    else:
        row = max(0, pc.index(pc.is_valid(table.data[name]), True).as_py())
        value = str(table.data[name][row].as_py())[:SHOWN]
        found = f"{name} is now a {now}: {value!r} in {table.name_row(row)}"
        rule, correct = "retyped-column", "correct the data"
    return "unfit", error(
        rule,
        name,
        found,
        f"a {kind}, as version 1 took it",
        f"{correct}, or keep the new table under another --name",
    )


def _find_parts(
    table: Table, name: str, request: Request, others: Collection[str]
) -> tuple[list[Column], *tuple[Finding, ...]]:
    """The parts of a column of dates, as in version 1, and a note of them; or a finding if a name is taken."""
    if known := request.parts.get(name):
        return (known,)
    form = table.date_forms.get(name, "")
    parts = date_parts.find_parts(name, table.data[name], form)
    if clash := next((each.name for each in parts if each.name in others), None):
        action = f"rename it, leave it out with --ignore {clash}, or use --no-date-parts"
        found = f"{clash} is a column, and a part of {name}"
        return [], error("name-clash", clash, found, "one column of that name", action)
    if not parts:
        return [], note("date", name, f"{name} has no two dates or times that differ; left out")
    said = f"{name} holds dates or times, of which the model takes {format_names([each.part for each in parts], 4)}"
    said += f", read as {form}" * bool(form)
    said += f"; years from {PIVOT} on are 19{PIVOT} to 1999, and others 20.." * (SHORT_YEAR in DATES[form])
    return parts, note("date", name, said, "--no-date-parts leaves them out")


def _tell_of_parts(table: Table, names: Collection[str]) -> Iterator[Finding]:
    """Report that columns left out by version 1 hold dates, whose parts a model of another name could use."""
    if dates := [name for name in names if name in table.data.column_names and value_kind(table, name) == "date"]:
        found = f"{format_names(sorted(dates), 10)} held dates and stayed left out, as in version 1"
        yield note("date-parts", None, found, "a model under another --name learns from their months, weekdays, hours")


def _find_category(table: Table, name: str, known: Column | None) -> tuple[list[Column], *tuple[Finding, ...]]:
    """The column with its levels, unless there are too many; and a finding about these, or about new levels."""
    old, levels = known.levels if known else (), table.levels(name)
    now = extend_levels(old, levels.names()) if levels.num_used <= MOST_LEVELS else ()
    if (number := max(len(now), levels.num_used)) > MOST_LEVELS:
        action = f"group its values, or leave it out with --ignore {name} (and another --name if a version takes it)"
        found, expected = f"{name} has {number:,} levels", f"at most {MOST_LEVELS:,}"
        return [], error("too-many-levels", name, found, expected, action)
    columns = [Column(name=name, kind="category", levels=now)]
    if known and (new := now[len(old) :]):
        return columns, warning("new-levels", name, f"{name} has new levels: {format_names(new, 10)}")
    return (columns,)
