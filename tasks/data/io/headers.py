"""The names of a table's columns: from its header, or where it has none.

Rows count as lines of the file: the first is 1.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.data.io.tabular import Selection
from tasks.errors import DataError
from tasks.machine.words import pluralize
from tasks.parameters.data import NO_HEADER

HEADERLESS = b"headerless"  # a key in the schema metadata of the batch that has no rows: a first row that is no header
RENAMED = b"renamed"  # a key there: the names of columns that had none of their own
SNIFFED_ROWS = 100
MOSTLY = 0.9  # share of a column's values that have one kind, from which the column has it
SHOWN = 5  # fields
NUMBER = re.compile(r"[-+($€£¥\s]*(\d[\d.,'\s]*|\.\d+)([eE][-+]?\d+)?[%€$£¥)\s]*-?")
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([ T].*)?|\d{1,2}:\d{2}(:\d{2}.*)?")
YEARS = range(1900, 2101)


class Header(NamedTuple):
    """The columns of a text file or a sheet."""

    names: list[str]
    is_there: bool = True  # the first row has the names, and is no data
    notes: Mapping[bytes, bytes] = {}  # for the schema's metadata: ``RENAMED`` and ``HEADERLESS``


def read_header_row(rows: Sequence[list[str]], lines: Sequence[int], file: str, selection: Selection) -> Header:
    """The names of the columns of a file that begins with these rows, which are in these lines of it.

    A file of a name without a header may have one: its first row has the names in order, or only some of them.

    Raises:
        DataError: the names that are given are not as many as the fields.
    """
    first, given = rows[0], [*selection.names]
    if selection.header == NO_HEADER:
        given = given or [f"c{place}" for place in range(1, len(first) + 1)]
        is_part = len(first) < len(given) and len({*first}.intersection(given)) == len(first)
        if first == given or is_part:
            return Header(name_columns(first))
    if given and len(given) != len(first):
        fields, words = pluralize(len(first), "field"), pluralize(len(given), "name")
        found = f"{file} has {fields} in its first row, and {words} given"
        raise DataError(found, "one name for each column", "check --names")
    own = given or first
    names, notes = name_columns(own), dict[bytes, bytes]()
    if renamed := [name for name, before in zip(names[1:], own[1:], strict=True) if name != before]:
        notes[RENAMED] = json.dumps(renamed).encode()
    if given:
        return Header(names, is_there=selection.header != NO_HEADER, notes=notes)
    if not selection.header:
        row = find_header_row(rows)
        is_title = 2 * _count_texts(first) < _count_texts(rows[row])
        if is_title or reads_as_data(first, rows[1:], selection.missing):
            notes[HEADERLESS] = json.dumps([lines[row] if is_title else None, first]).encode()
    return Header(names, notes=notes)


def name_columns(header: Sequence[str]) -> list[str]:
    """Distinct names, as pandas has them: ``Unnamed: 2`` for a column without one, ``a.1`` for a second ``a``."""
    names, times = list[str](), Counter[str]()
    for place, given in enumerate(header):
        name = unique = given if given.strip() else f"Unnamed: {place}"
        while unique in names or (unique != name and unique in header):
            times[name] += 1
            unique = f"{name}.{times[name]}"
        names.append(unique)
    return names


def headerless_error(file: str, note: bytes, has_options: bool = True) -> DataError:
    """The error for a file whose first row is no header, as the ``note`` in its metadata says.

    ``has_options``: the command has --header and --names.
    """
    header_line, row = json.loads(note)
    fields = ", ".join(row[:SHOWN]) + (", …" if len(row) > SHOWN else "")
    found = f"{file} has no header: its first row reads as data ({fields})"
    action = "write the names of the columns above its rows"
    if header_line:
        found = f"{file} names few of its columns in its first row ({fields})"
        action = "remove what is above the header"
    if has_options:
        use = f"--header {header_line}" if header_line else "--header none, and --names A,B,C for the names"
        action = f"use {use}; or --header 1 if the first row does name the columns"
    return DataError(found, "the names of the columns in the first row", action)


def find_header_row(rows: Sequence[Sequence[str]]) -> int:
    """The first row in which as many fields have text as in most rows."""
    counts = [_count_texts(row) for row in rows]
    usual = Counter(counts).most_common(1)[0][0]
    return next(place for place, count in enumerate(counts) if count >= usual)


def _count_texts(row: Sequence[str]) -> int:
    return sum(bool(field.strip()) for field in row)


def reads_as_data(first: Sequence[str], rows: Sequence[Sequence[str]], missing: Sequence[str]) -> bool:
    """Whether a table's first row looks like the ``rows`` below it, and not like names of columns.

    Either each of its fields has the kind of its column, and at least one is a number or date; or all are text, and
    some are equal, as in most rows. Years in a row, and 0, 1, 2 …, are names.
    """
    rows = [row for row in rows if len(row) == len(first)]
    if not rows:
        return False
    columns = zip(*rows, strict=True)
    num_alike = 0
    for field, values in zip(first, columns, strict=True):
        kind = _find_column_kind(values, missing)
        if kind == "text" or field.strip() in missing:
            continue
        if _find_kind(field) != kind:
            return False
        num_alike += 1
    if num_alike:
        return not _is_series(first)
    return _has_equals(first) and 2 * sum(map(_has_equals, rows)) > len(rows)


def _find_column_kind(values: Sequence[str], missing: Sequence[str]) -> str:
    kinds = Counter(_find_kind(value) for value in values if value.strip() not in missing)
    if not kinds:
        return "text"  # which any name fits
    kind, times = kinds.most_common(1)[0]
    return kind if times >= MOSTLY * kinds.total() else "text"


def _find_kind(value: str) -> str:
    if NUMBER.fullmatch(value.strip()):
        return "number"
    return "date" if DATE.fullmatch(value.strip()) else "text"


def _is_series(fields: Sequence[str]) -> bool:
    """Whether numbers among names are years in a row, or count the columns."""
    numbers = [int(field) for field in fields if field.strip().isascii() and field.strip().isdecimal()]
    if len(numbers) < 2 or len({after - before for before, after in itertools.pairwise(numbers)}) > 1:
        return False
    counts_columns = numbers[:2] in ([0, 1], [1, 2]) and len(numbers) >= len(fields) - 1
    return counts_columns or (numbers[0] != numbers[1] and all(number in YEARS for number in numbers))


def _has_equals(fields: Sequence[str]) -> bool:
    named = [field for field in fields if field.strip()]
    return len({*named}) < len(named)
