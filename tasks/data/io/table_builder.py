"""A whole table as one Arrow table in bounded anonymous memory, from any files; kinds are inferred from it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gradmill.rows import EXCEL_ERRORS, WHOLE_FORM, read_missing
from tasks.data.io import date_parts, number_forms, tabular
from tasks.data.io.batches import is_csv, locate_row, table_batches
from tasks.data.io.csv import DELIMITER, PADDED_VALUE
from tasks.data.io.discovery import DataFile, DataFiles
from tasks.data.io.headers import HEADERLESS, RENAMED, headerless_error
from tasks.data.io.tabular import CODE, MAX_COLUMNS, DateForm, Kind, LevelCodes, Selection, kind_of
from tasks.data.levels import Levels, find_levels
from tasks.data.report import Finding, error, note, warning
from tasks.errors import DataError
from tasks.machine import resources
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_names, pluralize

BYTES_PER_ROW = 88  # of memory, where every row has an equal one
MUCH_MEMORY = 2**30  # which is said before it is taken
SHOWN = 40  # characters of a value that are shown
CORRECT = "correct the value, name it with --missing if it stands for a missing one"  # the beginning of advice
KIND_WORDS: dict[Kind, str] = {"number": "a number", "boolean": "true or false", "text": "text", "date": "a date"}


@dataclass(frozen=True)
class Table:
    """All rows, file after file in an order that depends on their contents: row numbers depend on no file name.

    Columns are float64 (numbers), bool, timestamp (dates and times), null (not a value, or not supported: see
    ``findings``) or text: a dictionary of strings, or plain strings if there are more than ``tabular.MAX_LEVELS``
    distinct ones. Missing values are null, or NaN in numbers.
    """

    data: pa.Table
    files: DataFiles
    starts: NDArray[np.int64]  # (files + 1,) first row of each file, and the number of all rows
    findings: tuple[Finding, ...]
    selection: Selection  # with which they were read
    forms: Mapping[str, str] = field(default_factory=dict)  # forms of text that was read as columns of numbers
    header: tuple[str, ...] = ()  # all columns that a model can take, whether read or not
    date_forms: Mapping[str, str] = field(default_factory=dict)  # forms of text that was read as columns of dates
    durations: frozenset[str] = frozenset()  # columns that are not dates, although they are timestamps here
    typed_texts: frozenset[str] = frozenset()  # columns that are text in a file with types
    padded_values: Mapping[str, str] = field(default_factory=dict)  # columns of CSV: a value with a leading zero
    missing: tuple[str, ...] = ()  # texts for missing values, by the user's word
    matched: frozenset[str] = frozenset()  # those, and errors of Excel, that the files have
    _levels: dict[str, Levels] = field(default_factory=dict)  # of dictionaries, once they have been counted
    _limits: dict[str, tuple[float, float]] = field(default_factory=dict)

    def name_row(self, row: int) -> str:
        """A row in words: its line or number in its file, from 1, and the file."""
        file = int(np.searchsorted(self.starts, row, side="right")) - 1
        place = locate_row(self.files.files[file], row - int(self.starts[file]), self.selection)
        return f"{place} of {self.files.files[file].path}"

    def is_text(self, name: str) -> bool:
        """Whether a column is text, a dictionary or not."""
        return kind_of(self.data[name].type) == "text"

    def levels(self, name: str) -> Levels:
        """The levels of a column."""
        if name in self._levels:
            return self._levels[name]
        found = find_levels(self.data[name])
        if pa.types.is_dictionary(self.data[name].type):  # for others it would be one more array
            self._levels[name] = found
        return found

    def limits(self, name: str) -> tuple[float, float]:
        """The smallest and the largest value of a column of numbers or booleans; NaN if there is none."""
        if name not in self._limits:
            chunks = map(tabular.to_numbers, self.data[name].chunks)
            found = [(np.fmin.reduce(each), np.fmax.reduce(each)) for each in chunks if len(each)] or [(np.nan, np.nan)]
            low, high = np.fmin.reduce(found)[0], np.fmax.reduce(found)[1]
            self._limits[name] = float(low) + 0.0, float(high) + 0.0  # turns -0 into 0
        return self._limits[name]

    def number_share(self, name: str) -> float:
        """The share of a text column's values that read as numbers; 0 where it has none."""
        levels = self.levels(name)
        is_number = tabular.parse_numbers(levels.values).is_valid().to_numpy(zero_copy_only=False)
        return float(levels.counts[is_number].sum() / max(1, levels.counts.sum()))

    def example_of_text(self, name: str) -> str:
        """The first value of a text column that does not read as a number, and where it is; empty if all do."""
        levels = self.levels(name)
        is_text = levels.take(np.append(tabular.parse_numbers(levels.values).is_null(), False))
        row = int(is_text.argmax())
        return f"{str(self.data[name][row])[:SHOWN]!r} in {self.name_row(row)}" if is_text[row] else ""


def build_table(files: DataFiles, selection: Selection, buffer_file: Path) -> Table:
    """Read all rows of the columns selected into ``buffer_file``, whose name is removed afterwards.

    Numbers read as text get the names of levels. A column that is a number in some rows of a file and text in others is
    text in all. Text with numbers in another form (``number_forms``) is read as numbers.

    Raises:
        DataError: no row can be read, or there are more than fit into memory. Everything else that is wrong is in
            ``findings``.
    """
    _check_memory(num_promised := sum(tabular.count_promised(file) for file in files.files))
    if (size := num_promised * BYTES_PER_ROW) > MUCH_MEMORY:
        print_message(f"{num_promised:,} rows take about {size / 2**30:.1f} GiB of memory")
    first = reader = _TableReader(files.by_content(), selection, buffer_file)
    kinds = {name: set[Kind]().union(*by_file.values()) for name, by_file in reader.kinds.items()}
    may_be_dates = {name for name, each in kinds.items() if each == {"date", "text"} and selection.finds_dates(name)}
    mixed = {name for name, each in kinds.items() if len(each) > 1} - may_be_dates
    if mixed - selection.as_text:
        reader = reader.read_again(as_text=selection.as_text | mixed)
    table = reader.map_table()
    time = selection.time_column
    if time in table.data.column_names and _find_date_form(table, time, set()) == date_parts.MONTHS:
        reader = reader.read_again(raw=reader.selection.raw | {time})
        table = reader.map_table()
    may_have_dates = [name for name in table.data.column_names if selection.finds_dates(name)]
    chosen = {name: _find_date_form(table, name, first.zoned_texts) for name in may_have_dates}
    if months := {
        name for name, form in chosen.items() if form == date_parts.MONTHS
    }:  # only their text shows whether they are
        texts = reader.read_again(raw=reader.selection.raw | months).map_table()
        chosen |= {name: _find_date_form(texts, name, months) if texts.is_text(name) else None for name in months}
    findings = [each for each in chosen.values() if isinstance(each, Finding)]
    dates = {name: form for name, form in chosen.items() if isinstance(form, DateForm)}
    unread = {*dates}
    if may_be_dates or any("number" in kinds[name] for name in dates):  # then numbers are others than they seemed
        as_text = reader.selection.as_text | (may_be_dates - dates.keys())
        reader, unread = reader.read_again(as_text=as_text, dates=dict(selection.dates) | dates), set[str]()
        table = reader.map_table()
    forms, whole = dict[str, str](), dict[str, str]()
    if selection.finds_forms:
        known = selection._replace(as_text=selection.as_text | unread | {time})
        candidates, delimiters = _find_candidates(table, known), first.delimiters
        decimal = selection.decimal or number_forms.find_decimal(candidates, ",", delimiters)
        numbers = frozenset(name for name, kinds in reader.kinds.items() if {"number"} in kinds.values())
        decimal = decimal or ("." if reader.has_decimal_points else None)
        may_be_either = decimal is None and "," not in delimiters
        texts = table
        if delimiters and (decimal == "," or (may_be_either and (candidates or reader.possible_thousands))):
            texts = reader.read_again(raw=reader.selection.raw | numbers).map_table()
        if decimal == ",":  # then 1.234 is another number than it seemed
            candidates |= _find_candidates(texts, known, decimals=",")
            others = _find_candidates(texts, known, decimals=".").keys() - candidates.keys()
            findings += number_forms.warn_of_points({name: texts.data[name] for name in sorted(others)})
        elif may_be_either:
            undecided = _find_candidates(texts, known, decimals=".,")
            decimal = number_forms.find_decimal(undecided, ".", delimiters)
            if decimal is None:
                candidates |= {name: each for name, each in undecided.items() if each.has_separators}
        found = {name: number_forms.choose_form(name, each, decimal, delimiters) for name, each in candidates.items()}
        findings += [each for each in found.values() if isinstance(each, Finding)]
        forms = {name: each for name, each in found.items() if isinstance(each, str)}
        is_undecided = may_be_either and decimal is None
        if delimiters and is_undecided and not any(each.has_separators for each in candidates.values()):
            whole = dict.fromkeys(numbers - forms.keys(), WHOLE_FORM)  # a later 1.234 may be either
    if forms or unread:
        reader = reader.read_again(
            as_text=reader.selection.as_text - forms.keys(),
            forms=dict(selection.forms) | forms,
            dates=dict(selection.dates) | dates,
        )
        table = reader.map_table()
    table = replace(table, forms={**table.forms, **whole})
    read = {**reader.selection.dates, **reader.selection.forms}
    of_files = {name: each for name, each in first.kinds.items() if not read.get(name)}
    findings += [*reader.find_faults(), *_find_retyped(table, of_files), *number_forms.tell_forms(table.forms)]
    matched = frozenset(first.matched | reader.matched)
    if errors := matched.intersection(EXCEL_ERRORS):
        said = f"errors of Excel, such as {min(errors)}, are read as missing values"
        findings.append(note("excel-errors", None, said, "correct the formulas, if these should have values"))
    return replace(table, findings=tuple(findings), padded_values=first.padded_values, matched=matched)


def _find_most_rows() -> int:
    return resources.memory_limit() // BYTES_PER_ROW


def _check_memory(num_rows: int) -> None:
    """Refuse more rows than this machine can hash, before memory is taken for them.

    Raises:
        DataError: there are too many rows.
    """
    if num_rows > (most := _find_most_rows()):
        expected = f"at most {most:,} rows, which the {resources.memory_limit() / 2**30:.3g} GiB of memory here take"
        action = "name fewer files with --data, or use a machine with more memory"
        raise DataError(f"{num_rows:,} rows", expected, action)


def _find_date_form(table: Table, name: str, zoned_texts: set[str]) -> DateForm | Finding | None:
    """The form of a column's dates, if they are to be read from text; or what is wrong with them."""
    if not table.is_text(name):
        if table.data[name].type == pa.float64():
            form = date_parts.find_form_of_numbers(table.data[name], *table.limits(name))
            return DateForm(form, needs_date=True) if form else None
        return date_parts.ISO_8601 if name in zoned_texts else None
    column = table.data[name]
    if not pa.types.is_dictionary(column.type) and not date_parts.find_likely_forms(column.chunk(0)):
        return None  # distinct texts need not be counted
    return date_parts.find_form(table.levels(name), name)


def _find_candidates(table: Table, selection: Selection, decimals: str = "") -> dict[str, number_forms.Candidates]:
    """The forms that numbers in text columns may have, for columns that are not requested as text."""
    texts = [name for name in table.data.column_names if name not in selection.as_text and table.is_text(name)]
    found = {name: number_forms.find_candidates(table.data[name], decimals) for name in texts}
    return {name: each for name, each in found.items() if each.shares}


def _find_retyped(table: Table, kinds: dict[str, dict[str, set[Kind]]]) -> Iterator[Finding]:
    """Columns whose kind in some file differs from that in the first file that has values in them."""
    for name, files in kinds.items():
        # a column with several kinds within a file is text there
        by_file = {path: min(each) if len(each) == 1 else "text" for path, each in sorted(files.items()) if each}
        first = next(iter(by_file), "")
        other = next((path for path in by_file if by_file[path] != by_file[first]), None)
        if other is None:
            continue
        said = f"{name} is {KIND_WORDS[by_file[first]]} in {first}, and {KIND_WORDS[by_file[other]]} in {other}"
        if {by_file[first], by_file[other]} == {"number", "text"} and table.is_text(name):
            said += f", such as {example}" if (example := table.example_of_text(name)) else ""
        yield _differ("retyped-column", name, said, "one kind of value in all files", "write it alike in all of them")


def _differ(rule: str, name: str, found: str, expected: str, remedy: str) -> Finding:
    action = f"{remedy}, or leave it out with --ignore {name} (and another --name if a version takes it)"
    return error(rule, name, found, expected, action)


class _TableReader:
    """Files that were read into a file of batches: each column as one type, and everything wrong with them."""

    def __init__(self, files: DataFiles, selection: Selection, path: Path) -> None:
        """Write all rows of all files to ``path``; a file's fault is kept for later.

        Raises:
            DataError: there is no row, or no file is intact.
        """
        self.selection, self._files, self._path = selection, files, path
        self.delimiters: set[str] = set()  # of CSV files
        self.has_decimal_points = False  # in CSV not delimited by commas: in a number like 63.2
        self.possible_thousands: set[str] = set()  # there: columns whose points may set thousands apart, as in 1.234
        self.zoned_texts: set[str] = set()  # CSV columns of dates with a time zone, which Arrow converts to UTC
        self._zones: dict[str, set[str]] = {}  # of times that are read as written
        self.padded_values: dict[str, str] = {}  # by CSV column: a first value with a leading zero
        self.durations: set[str] = set()
        self.typed_texts: set[str] = set()
        self.starts = [0]  # the number of rows up to each file
        self.kinds: dict[str, dict[str, set[Kind]]] = {}  # for each column, in each file that has it
        self.header: dict[str, None] = {}  # all columns, whether read or not
        self._faults: dict[str, DataError] = {}  # by file
        self._headerless: dict[str, DataError] = {}  # by file: its first row is no header
        self.matched = set[str]()  # texts for missing values that the files have
        self._renamed: dict[str, None] = {}  # columns without a name of their own
        self._nested: dict[str, Finding] = {}  # by column
        self._misfits: dict[str, Finding] = {}  # by column: the first number in another form
        self._levels: dict[str, LevelCodes] = {}
        most_rows = _find_most_rows()
        with pa.OSFile(str(path), "wb") as sink:
            for file in files.files:
                self.starts.append(self.starts[-1])
                try:
                    for batch in table_batches(file, selection):
                        columns = self._convert(file, batch) or {"": pa.nulls(batch.num_rows)}
                        if batch.num_rows:
                            tabular.write_batch(sink, pa.RecordBatch.from_pydict(columns))
                            self.starts[-1] += batch.num_rows
                            if self.starts[-1] > most_rows:
                                break
                except DataError as fault:
                    self._faults[file.path] = fault
                _check_memory(self.starts[-1])
        if self._faults and (len(self._faults) == len(files.files) or not self.starts[-1]):
            raise self._faults[min(self._faults)]
        if not self.starts[-1]:
            found, action = f"{files.source} holds no rows", "name data with at least one row"
            raise DataError(found, "rows below the header", action)

    def _convert(self, file: DataFile, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        """The columns of a batch that are read and that a model can take; for text, its codes."""
        self.header |= dict.fromkeys(batch.schema.names)
        if DELIMITER in (words := batch.schema.metadata or {}):
            self.delimiters.add(words[DELIMITER].decode())
            padded = {each.name: each.metadata[PADDED_VALUE].decode() for each in batch.schema if each.metadata}
            self.padded_values = padded | self.padded_values
        known = self.selection.list_known()
        if HEADERLESS in words and (self.selection.finds_forms or known.isdisjoint(batch.schema.names)):
            self._headerless[file.path] = headerless_error(file.path, words[HEADERLESS])
        if RENAMED in words:
            self._renamed |= dict.fromkeys(json.loads(words[RENAMED]))
        self.matched |= tabular.list_matched(batch)
        both = zip(batch.schema.names, batch.columns, strict=True)
        arrays = {name: array for name, array in both if self.selection.takes(name)}  # of two with one name the last
        if len(arrays) > MAX_COLUMNS:
            found = f"{file.path} has {len(arrays):,} columns"
            raise DataError(found, f"at most {MAX_COLUMNS:,}", "leave some out with --ignore")
        columns = {name: self._convert_column(file, name, array) for name, array in arrays.items()}
        return {name: column for name, column in columns.items() if column is not None}

    def _convert_column(self, file: DataFile, name: str, array: pa.Array) -> pa.Array | None:
        selection, kind, path = self.selection, kind_of(array.type), file.path
        kinds = self.kinds.setdefault(name, {}).setdefault(path, set())
        if kind == "text" and not is_csv(file):
            self.typed_texts.add(name)
        if kind == "unsupported":
            said, action = f"{name} holds {array.type}", f"leave it out with --ignore {name}"
            finding = error("nested-column", name, said, "numbers, text, booleans or dates", action)
            self._nested.setdefault(name, finding)
            return None
        if name in selection.dates or (kind == "date" and selection.finds_dates(name)):
            array = self._read_dates(file, name, array)
        elif kind == "text" and (form := selection.forms.get(name)):
            array = self._read_form(file, name, array, form)
        elif selection.finds_forms and not self.has_decimal_points and self.delimiters - {","} and is_csv(file):
            self._look_for_points(name, array)
        if name in selection.as_text and kind in ("number", "boolean"):
            array = tabular.to_text(array)
        elif name in selection.as_boolean - selection.as_text and kind in ("number", "text"):
            array = tabular.to_booleans(array)
        kind = kind_of(array.type)
        if len(array) > array.null_count:
            kinds.add(kind)
            if pa.types.is_duration(array.type):
                self.durations.add(name)
        array = tabular.normalize(array)
        return self._levels.setdefault(name, LevelCodes()).encode(array) if kind == "text" else array

    def _read_dates(self, file: DataFile, name: str, values: pa.Array) -> pa.Array:
        """Dates in their form as timestamps, durations unchanged; the first value that is not a date is remembered.

        Times are read as they are written, whatever their zone, unless version 1 fixed one.
        """
        if pa.types.is_duration(values.type) and name not in self.selection.dates:
            return values
        read_as = self.selection.dates.get(name, date_parts.ISO_8601)
        missing = self.selection.also_missing
        self.matched |= date_parts.find_missing(values, read_as, missing)
        moments, is_invalid, zones = date_parts.read_dates(values, read_as, missing)
        if len(values) > values.null_count and not read_as.zone:
            self._zones.setdefault(name, set()).update(zones)
        if is_csv(file) and getattr(values.type, "tz", None):
            self.zoned_texts.add(name)
        rule, expected = "text-among-dates", f"a date written like {read_as.form or '2024-12-31'}"
        self._note_misfit(file, name, values, np.flatnonzero(is_invalid), (rule, expected))
        return pa.array(moments)

    def _look_for_points(self, name: str, array: pa.Array) -> None:
        """See whether numbers that were read with decimal points could be meant without."""
        if pa.types.is_floating(array.type):
            may_have_thousands = number_forms.may_have_thousands(tabular.to_numbers(array))
            self.possible_thousands |= {name} if may_have_thousands else set()
            self.has_decimal_points |= not may_have_thousands

    def _read_form(self, file: DataFile, name: str, texts: pa.Array, form: str) -> pa.Array:
        """Text in a form as float64; the first value that is not in this form is remembered."""
        missing = self.selection.also_missing
        numbers = tabular.to_numbers(texts, is_boolean=False, invalid=np.inf, form=form)
        self.matched |= {text for text in missing if np.isin(numbers, read_missing([text], form)).any()}
        numbers = np.where(np.isin(numbers, read_missing(missing, form)), np.nan, numbers)
        is_misfit = np.isinf(numbers)
        fault = "text-among-numbers", f"a number written like {form}"
        self._note_misfit(file, name, texts, np.flatnonzero(is_misfit), fault)
        return pa.array(np.where(is_misfit, np.nan, numbers), from_pandas=True)  # Arrow's memory cannot be written to

    def _note_misfit(
        self, file: DataFile, name: str, values: pa.Array, rows: NDArray[Any], fault: tuple[str, str]
    ) -> None:
        """Remember the first of some rows that do not fit, the rule that says so, and what was expected."""
        if len(rows) and name not in self._misfits:
            row = self.starts[-1] - self.starts[-2] + int(rows[0])
            try:
                shown = values.slice(int(rows[0]), 1).cast(pa.string())[0].as_py()[:SHOWN]  # Python knows no year 0
            except Exception:  # a moment in an unknown time zone
                shown = f"of type {values.type}"
            found = f"{name} is {shown!r} in {locate_row(file, row, self.selection)} of {file.path}"
            others = f"make the column a category with --category {name}, or leave it out with --ignore {name}"
            if not self.selection.finds_forms:
                others = "or keep the new table under another --name"
            self._misfits[name] = error(fault[0], name, found, fault[1], f"{CORRECT}, {others}")

    def find_faults(self) -> Iterator[Finding]:
        """The faults that were collected from the files."""
        for _, fault in sorted(self._faults.items()):
            yield error("unreadable-file", None, fault.found, fault.expected, fault.action)
        for _, fault in sorted(self._headerless.items()):
            yield error("no-header", None, fault.found, fault.expected, fault.action)
        if self._renamed and self.selection.finds_forms:
            found = f"columns without a name of their own are called {format_names([*self._renamed], 10)}"
            yield note("renamed-columns", None, found, "--names gives all columns other names")
        yield from (*self._nested.values(), *self._misfits.values())
        for name, zones in self._zones.items():
            if len(zones) > 1:
                shown = format_names([zone or "none" for zone in sorted(zones)], 5)
                found = f"{name} has times of several zones ({shown}), all read as they are written"
                yield warning("mixed-zones", name, found, "if they should be on one clock, write them in one zone")
        paths = {file.path for file in self._files.files} - self._faults.keys() - self._headerless.keys()
        for name, by_file in self.kinds.items():
            if without := sorted(paths - by_file.keys()):
                said = f"{pluralize(len(without), 'file')} without column {name}, the first is {without[0]}"
                expected, remedy = "the same columns in all files", "add it, leave the files out"
                yield _differ("missing-column", name, said, expected, remedy)

    def read_again(self, **changes: Any) -> "_TableReader":
        """The same files, read with another selection."""
        return _TableReader(self._files, self.selection._replace(is_again=True, **changes), self._path)

    def map_table(self) -> Table:
        """The table, mapped from the file that was written, whose name is removed."""
        data = self._map_columns()
        header = [name for name in self.header if name in data.column_names or not self.selection.takes(name)]
        forms = {name: form for name, form in self.selection.forms.items() if form and name in data.column_names}
        date_forms = {name: read_as.form for name, read_as in self.selection.dates.items()}
        starts = np.array(self.starts, np.int64)
        return Table(
            data,
            self._files,
            starts,
            findings=(),
            selection=self.selection,
            forms=forms,
            header=tuple(header),
            date_forms=date_forms,
            durations=frozenset(self.durations),
            typed_texts=frozenset(self.typed_texts),
            missing=self.selection.also_missing,
        )

    def _map_columns(self) -> pa.Table:
        names = [name for name in self.kinds if name not in self._nested]
        chunks: dict[str, list[pa.Array]] = {name: [] for name in names}
        for batch in tabular.map_batches(self._path):
            arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
            for name in names:
                chunks[name].append(arrays.get(name, pa.nulls(batch.num_rows)))
        self._path.unlink()
        return pa.table({name: self._join(name, chunks.pop(name)) for name in names})

    def _join(self, name: str, chunks: list[pa.Array]) -> pa.ChunkedArray:
        """One column of one type: text if its files disagree, null in files that do not have it."""
        types = {each.type for each in chunks} - {pa.null()}
        if text := types & {CODE, pa.string()}:
            decode = self._levels[name].decode
            return pa.chunked_array(
                [decode(each if each.type in text else pa.nulls(len(each), CODE)) for each in chunks]
            )
        type_ = types.pop() if len(types) == 1 else pa.null()
        return pa.chunked_array([each if each.type == type_ else pa.nulls(len(each), type_) for each in chunks])
