"""CSV in bounded memory and with all cores: its delimiter, its header, its rows, and those that cannot be read."""

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from gradmill.rows import EXCEL_ERRORS, WHOLE_FORM
from tasks.data.io import headers
from tasks.data.io.discovery import broken_file, explain_file_errors
from tasks.data.io.tabular import (
    LEADING_ZERO,
    MAX_LEVELS,
    PARSED_BYTES,
    TEXT,
    BadRows,
    Selection,
    add_matched,
    find_invalid_utf_8,
    kind_of,
    read_blocks,
    without_rows,
)
from tasks.errors import DataError
from tasks.machine import parallel
from tasks.machine.run_messages import print_message
from tasks.machine.words import pluralize
from tasks.parameters.data import NO_HEADER

DELIMITERS = (";", "\t", "|", ",")  # of equals the first: commas stand in names and numbers, too
SNIFFED_BYTES, SNIFFED_ROWS = 2**18, 100
# What may come before the header: the UTF-8 mark, a line that tells Excel the delimiter, and blank lines.
BEFORE_HEADER = re.compile(rb"(?:\xef\xbb\xbf)?[\r\n]*(?:sep=(.)\r?\n)?[\r\n]*", re.IGNORECASE)
LINE_END = re.compile(rb"\r\n|\n|\r")
DELIMITER = b"delimiter"  # a key in the schema metadata of the batch that has no rows
PADDED_VALUE = b"zero-padded"  # a key there in the metadata of a column: a first value with a leading zero
END = "gradmill.end"  # of a block
ADJACENT = re.compile(rb"[\x80-\xff]{2,}")  # bytes
_ALONE, _END = rb"(?<![\x80-\xff])", rb"(?![\x80-\xff])"
_SIGNS = rb"[\x80\x82\x84\x85\x8b\x91-\x94\x96\x97\x9b\xa0\xab\xb0\xbb]"  # quotes, dashes, …, °, € and no-break spaces
_LETTERS = rb"(?:[\xc0-\xd6\xd8-\xde]{1,3}|[\xc0-\xd6\xd8-\xde]?[\xdf-\xf6\xf8-\xff]{1,3})"
WINDOWS_1252 = re.compile(  # bytes that are adjacent in it, too: in words such as AÇÃO… and „Übung, in ÄÖÜ, and in 5 €
    rb"(?<=[A-Za-z])%(letters)b%(signs)b*%(end)b|%(alone)b(?:(?<![A-Za-z])%(signs)b+)?%(letters)b(?=[A-Za-z])"
    rb"|%(alone)b[\xc4\xc5\xd6\xdc\xe4\xe5\xf6\xfc]+%(end)b|(?<=[A-Za-z0-9])%(signs)b+%(end)b"
    % {b"letters": _LETTERS, b"signs": _SIGNS, b"alone": _ALONE, b"end": _END}
)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # of what is no UTF-8
FAULT = "\0fault"  # a name that no CSV has: the column of reasons why rows could not be read


def csv_batches(stream: Any, name: str, selection: Selection, bad_rows: BadRows = "raise") -> Iterator[pa.RecordBatch]:
    """The rows of a CSV file, after a batch without rows that has all its columns.

    If ``bad_rows`` is ``reject``, every row is there, unreadable ones as nulls, and a column ``FAULT`` has the reason,
    or null; a row with bytes that are not UTF-8 has them replaced, and a reason.

    Raises:
        DataError: it is not such a file; ragged rows that are to ``raise`` are counted up to the end of their block.
    """
    file, blocks = _open_csv(stream, name, selection, bad_rows)
    words = {name: {PADDED_VALUE: value} for name, value in file.padded_values.items()}
    fields = [pa.field(each, pa.null(), metadata=words.get(each)) for each in file.names]
    yield without_rows(pa.schema(fields, {DELIMITER: file.delimiter, **file.header_notes}))
    for table in parallel.read_ahead(map(file.parse, blocks)):
        yield from table.to_batches()


def find_line(stream: Any, name: str, selection: Selection, row: int) -> int:
    """The line, from 1, in which a row begins that is number ``row``, from 0, in ``csv_batches``.

    Raises:
        DataError: it is not such a file.
    """
    file, blocks = _open_csv(stream, name, selection, "reject")
    return file.find_line(blocks, row)


def _open_csv(
    stream: Any, name: str, selection: Selection, bad_rows: BadRows
) -> tuple["_CsvFile", Iterator[memoryview]]:
    """A file whose header has been read, and its blocks from there on."""
    blocks = read_blocks(stream, name, selection.encoding)
    first = next(blocks)
    start, excel_delimiter = 0, ""  # of the header; as a line above it says
    if selection.header not in ("", NO_HEADER):
        start = _find_line(first, int(selection.header), name)
    if prefix := BEFORE_HEADER.match(first[start:]):
        start, excel_delimiter = start + prefix.end(), (prefix[1] or b"").decode(errors="replace")
    above, first = first[:start], first[start:]
    if LINE_END.search(first) is None:
        raise broken_file(name, "it ends inside its header", "a header and rows")
    file = _CsvFile(name, first, selection, bad_rows, excel_delimiter, len(LINE_END.findall(above)))
    return file, itertools.chain([first], blocks)


class Ragged(NamedTuple):
    """Rows of a block that have more or fewer fields than the header."""

    rows: NDArray[np.int64]  # (n,) numbers among the block's rows, from 0
    fields: NDArray[np.int64]  # (n,) how many each has


class _CsvFile:
    """One CSV file being read: its header, and what was counted in its rows."""

    def __init__(
        self,
        name: str,
        block: memoryview,
        selection: Selection,
        bad_rows: BadRows,
        delimiter: str,
        lines_above: int,
    ) -> None:
        self._name, self._is_strict = name, bad_rows == "raise"
        self._is_windows, self._may_be_windows = False, True  # Windows-1252; so far nothing is UTF-8 only
        head = bytes(self._require_utf_8(block)[:SNIFFED_BYTES])
        text = (head.rpartition(b"\n")[0] or head).decode(errors="replace")
        self.delimiter = delimiter if delimiter in DELIMITERS else find_delimiter(text)
        self._is_spaced = len(_drop_spaces(memoryview(head), self.delimiter)) < len(
            head
        )  # a search in all rows is slow
        with explain_file_errors(name, "CSV with a header", "see its first line"):
            next(filter(None, _read_rows(text, self.delimiter, strict=True)))
        self._head, self._lines_above = text, lines_above
        lines, rows = zip(*self._read_head(self.delimiter, SNIFFED_ROWS), strict=True)
        self.names, is_there, self.header_notes = headers.read_header_row(rows, lines, name, selection)
        self._header_rows = int(is_there)  # of the next block
        is_first = selection.finds_forms and not selection.is_again
        self.padded_values = self._find_padded_values(selection.also_missing) if is_first else {}
        self._included = [each for each in self.names if selection.takes(each)]
        if not self._included and selection.only is None:
            raise DataError(f"{name}: every column is ignored", "a column to learn from", "leave out fewer by --ignore")
        texts = (
            selection.as_text
            | selection.raw
            | selection.dates.keys()
            | {name for name, form in selection.forms.items() if form not in ("", WHOLE_FORM)}
        )
        self._types = {each: TEXT for each in self._included if each in texts}
        self._whole = {each for each in self._included if selection.forms.get(each) == WHOLE_FORM} - texts
        self._was_said = selection.is_again  # that it is Windows-1252
        self._missing = (*selection.missing, *selection.also_missing)
        self._sought = {*EXCEL_ERRORS, *selection.also_missing} if self._is_strict and not selection.is_again else set()
        self._rows = 0  # before the next block
        self._line = lines_above + 1  # with which the next block begins
        self._is_damaged = False  # bytes that are not UTF-8 were replaced

    def _find_padded_values(self, missing: tuple[str, ...]) -> dict[str, str]:
        """By column, its first value with leading zeros, which are lost when numbers are read; of the first rows."""
        has_zeros, padded = re.compile(LEADING_ZERO).match, dict[str, str]()
        if re.search(r'[\s,;|"]0\d+(?:[\s,;|"]|$)', self._head) is None:  # which takes a sixth of the time
            return padded
        for _, row in itertools.islice(self._read_head(self.delimiter), self._header_rows, None):
            for name, value in zip(self.names, row, strict=False):
                if has_zeros(value) and value not in missing:
                    padded.setdefault(name, value)
        return padded

    def _read_head(self, delimiter: str, num_rows: int | None = None) -> Iterator[tuple[int, list[str]]]:
        """The first rows and the lines in which they begin, up to one that cannot be read: that is reported later."""
        rows, line = _read_rows(self._head, delimiter), self._lines_above + 1
        with contextlib.suppress(csv.Error):
            for row in itertools.islice(rows, num_rows):
                if row:
                    yield line, row
                line = self._lines_above + rows.line_num + 1

    def parse(self, block: memoryview) -> pa.Table:
        """The rows of a block ``(n, columns)``."""
        block = self._require_utf_8(block)
        if self._is_spaced:
            block = _drop_spaces(block, self.delimiter)
        if self._is_windows and not self._was_said:
            print_message(f"{self._name} is not UTF-8 and is read as Windows-1252")
            self._was_said = True
        if _has_quotes(block) and bytes(block).count(b'"') % 2:
            self._require_closed_quotes(block)
        ragged = Ragged(np.empty(0, np.int64), np.empty(0, np.int64))
        try:
            table = self._read(block)
        except pa.ArrowException:
            table, ragged = self._read_around(block)
        count = len(table) + len(ragged.rows)
        if self._is_strict and len(ragged.rows):
            is_cut = block[-1] not in b"\r\n" and ragged.rows.tolist() == [count - 1]
            raise self._describe_ragged(ragged, block, self._rows + count, is_cut)
        self._header_rows = 0
        self._rows += count
        self._line += _count_lines(block)
        matched = self._find_missing(block)
        self._sought -= matched
        table = table.replace_schema_metadata(add_matched(table.schema, matched))
        if self._is_strict:
            return table
        table = _insert_rejected(table, ragged, len(self.names))
        return _reject_replaced(table) if self._is_damaged else table

    def _read_around(self, block: memoryview) -> tuple[pa.Table, Ragged]:
        """The rows of a block that have as many fields as the header, and the others.

        Arrow hands ragged rows to Python one by one, which takes far longer than to read them. It does so only where
        quotes stand inside of fields. One thread knows the numbers of rows, and reads those of any length.
        """
        if found := _find_ragged(block, self.delimiter, len(self.names), self._header_rows):
            ragged, rest = found
            with contextlib.suppress(pa.ArrowException):
                is_empty = not bytes(rest).strip(b"\r\n")
                nothing = pa.table({name: pa.nulls(0) for name in self._included})
                return nothing if is_empty else self._read(rest), ragged
        rejects = list[Any]()
        with explain_file_errors(self._name, "CSV"):
            table = self._read(block, rejects)
        rows = [int(row.number) - 1 - self._header_rows for row in rejects]
        fields = [row.actual_columns for row in rejects]
        return table, Ragged(np.array(rows, np.int64), np.array(fields, np.int64))

    def find_line(self, blocks: Iterable[memoryview], row: int) -> int:
        """The line, from 1, in which a row of these blocks, the next ones, begins."""
        lines, row = itertools.chain.from_iterable(map(self._list_lines, blocks)), row + self._header_rows
        return next(itertools.islice(lines, row, None), self._line + row)

    def _list_lines(self, block: memoryview) -> Iterator[int]:
        """The lines in which the rows of the next block begin, up to one that Python does not read."""
        rows, line = _read_rows(bytes(block).decode(errors="replace"), self.delimiter), self._line
        with contextlib.suppress(csv.Error):
            for row in rows:
                if row:
                    yield line
                line = self._line + rows.line_num
        self._line += _count_lines(block)

    def _find_missing(self, block: memoryview) -> set[str]:
        """The texts for missing values, of those not seen before, that are whole fields in a block."""
        content: Any = block.obj  # of which the block is all except one row
        errors = EXCEL_ERRORS if b"#" in content else ()
        sought = [text for text in self._sought if text in errors or text not in EXCEL_ERRORS]
        return {text for text in sought if text.encode() in content and self._has_field(block, text)}

    def _has_field(self, block: memoryview, text: str) -> bool:
        ends = f'{self.delimiter}"\r\n'.encode()
        places = re.finditer(re.escape(text.encode()) + rb"(?=[" + re.escape(ends) + rb"]|\Z)", block)
        return any(bytes(block[max(0, place.start() - 1) : place.start()]) in ends for place in places)

    def _require_utf_8(self, block: memoryview) -> memoryview:
        """The block in UTF-8: either it is UTF-8 already, or the whole file is Windows-1252.

        If neither holds, invalid bytes are replaced where rows are rejected one by one, as theirs will be. Arrow would
        check too, but not the rows that it cannot read and hands to Python.
        """
        error = find_invalid_utf_8(block)
        if error is None and not self._is_windows:
            self._may_be_windows &= np.frombuffer(block, np.uint8).max(initial=0) < 128
            return block
        text = bytes(block).decode(errors="replace")
        # a file that is UTF-8 in part is damaged UTF-8
        self._may_be_windows &= text.replace(REPLACEMENT, "").isascii() and not _has_words_of_high_bytes(block)
        if self._may_be_windows:
            with contextlib.suppress(UnicodeDecodeError):
                windows = bytes(block).decode("cp1252").encode()
                self._is_windows = True
                return memoryview(windows)
        self._may_be_windows = False
        if self._is_strict:
            found, expected = "it is neither UTF-8 nor Windows-1252", "text in one of them"
            raise broken_file(
                self._name,
                found,
                expected,
                "save it as CSV in UTF-8, or name its encoding with --encoding where the model is trained",
            ) from error
        self._is_damaged = True
        return memoryview(text.encode())

    def _require_closed_quotes(self, block: memoryview) -> None:
        """Refuse a quote that opens a field and is never closed: all following rows would become one.

        Quotes inside of fields do not matter: a row is appended to the block, and must come out as one row.
        """
        text = io.StringIO(f"{bytes(block).decode()}\n{END}\n", newline="")
        rows, line, following, last = csv.reader(text, delimiter=self.delimiter), 0, 0, [""]
        limit = csv.field_size_limit(2**31 - 1)  # a setting of the whole process: a field may be a whole block
        try:
            for row in rows:
                line, last, following = following, row, rows.line_num
        finally:
            csv.field_size_limit(limit)
        if last != [END]:
            reason = f"line {self._line + line} has a quote that is never closed"
            raise broken_file(self._name, reason, "a second quote where the field ends")

    def _read(self, block: memoryview, rejects: list[Any] | None = None) -> pa.Table:
        """The rows of a block; ragged ones are added to ``rejects``, by one thread.

        Raises:
            pyarrow.ArrowException: a row cannot be read, or is ragged and there is no list for it.
        """

        def reject(row: Any) -> str:
            if rejects is None:
                return "error"
            rejects.append(row)
            return "skip"

        use_threads = rejects is None
        # Arrow requires distinct names; several may be blank, and these columns are not read
        names = [f"{FAULT}.{at}" if each in self.names[:at] else each for at, each in enumerate(self.names)]
        table = pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(block)),
            pyarrow.csv.ReadOptions(
                use_threads=use_threads,
                block_size=PARSED_BYTES if use_threads else len(block) + 1,
                column_names=names,
                skip_rows_after_names=self._header_rows,
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=_has_quotes(block), invalid_row_handler=reject
            ),
            pyarrow.csv.ConvertOptions(
                column_types=self._types,
                include_columns=self._included,
                null_values=self._missing,
                strings_can_be_null=True,
                auto_dict_encode=True,
                auto_dict_max_cardinality=MAX_LEVELS,
                check_utf8=False,
            ),
        )
        if with_points := {each for each in self._whole if pa.types.is_floating(table.schema.field(each).type)}:
            self._whole -= with_points
            self._types |= dict.fromkeys(with_points, TEXT)
            if rejects is not None:
                rejects.clear()
            return self._read(block, rejects)
        return table

    def _find_header_line(self) -> int:
        """The line of the first row that has as many fields as most rows, if a title is above it."""
        delimiter = find_delimiter(self._head, skips_titles=True)
        lines, rows = zip(*self._read_head(delimiter, SNIFFED_ROWS), strict=True)
        return int(lines[headers.find_header_row(rows)])

    def _describe_ragged(self, ragged: Ragged, block: memoryview, rows: int, is_cut: bool) -> DataError:
        """The error for rows of a block whose fields do not match the header."""
        line, fields, expected = self.find_line([block], int(ragged.rows[0])), int(ragged.fields[0]), len(self.names)
        if is_cut and fields < expected:
            reason = f"it ends inside line {line}, after {pluralize(fields, 'field')}"
            return broken_file(self._name, reason, pluralize(expected, "field"))
        action = "quote fields that contain the delimiter, and write the file again"
        is_usual = 2 * len(ragged.rows) > rows
        ends = [row.endswith(self.delimiter) for row in self._head.splitlines()[1:]]
        if is_usual and fields == expected + 1 and 2 * sum(ends) > len(ends):
            action = "remove the delimiter at the end of the rows, or add one at the end of the header"
        elif is_usual:
            action = (
                f"if the first line is not the header, name its line, as with --header {self._find_header_line()}; if "
                f"the header has no name for the first column, as R writes it, add one; otherwise {action}"
            )
        num_ragged = pluralize(len(ragged.rows), "row")
        return DataError(
            f"{num_ragged} of {rows:,} in {self._name} with more or fewer fields than the header: "
            f"the first is in line {line}, with {fields}",
            pluralize(expected, "field"),
            action,
        )


def _find_line(block: memoryview, line: int, name: str) -> int:
    """Where a line of the first block begins; the first is line 1.

    Raises:
        DataError: it has not so many.
    """
    starts = [0, *(end.end() for end in itertools.islice(LINE_END.finditer(block), line - 1))]
    if len(starts) < line:
        found = f"{name} has {pluralize(len(starts) - 1, 'line')} at its beginning, and no line {line}"
        raise DataError(found, "a header in that line", "check --header")
    return starts[-1]


def _count_lines(block: memoryview) -> int:
    text = bytes(block)
    return text.count(b"\n") or text.count(b"\r")


def _read_rows(text: str, delimiter: str, strict: bool = False) -> Any:
    """Python's reader of rows; spaces after a delimiter are no part of a value."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)


def _drop_spaces(block: memoryview, delimiter: str) -> memoryview:
    """The block without spaces that come after a delimiter, which are no part of a value unless it is in quotes."""
    text = np.frombuffer(block, np.uint8)
    spaces = np.flatnonzero(text == ord(" "))
    if not len(spaces):
        return block
    begins_run = text[spaces - 1] != ord(" ")
    begins_run[0] = True
    is_after_delimiter = text[spaces[begins_run] - 1] == ord(delimiter)
    spaces = spaces[is_after_delimiter[np.cumsum(begins_run) - 1]]
    if len(spaces) and _has_quotes(block):
        is_quoted = np.bitwise_xor.accumulate((text == ord('"')).view(np.uint8))
        spaces = spaces[is_quoted[spaces] == 0]
    return memoryview(np.delete(text, spaces).tobytes()) if len(spaces) else block


def _find_ragged(
    block: memoryview, delimiter: str, num_fields: int, header_rows: int
) -> tuple[Ragged, memoryview] | None:
    """The rows of a block that have another number of fields, and the block without them.

    None where a quote stands inside of a field, of which this would be misled.
    """
    text = np.frombuffer(block, np.uint8)
    is_outside = np.ones(len(text), bool)
    if _has_quotes(block):
        quotes = np.flatnonzero(text == ord('"'))
        around = np.concatenate([[ord("\n")], text, [ord("\n")]])
        outside = np.concatenate([around[quotes[::2]], around[quotes[1::2] + 2]])
        if not np.isin(outside, [ord(delimiter), ord('"'), *b"\r\n"]).all():
            return None
        is_outside = np.bitwise_xor.accumulate((text == ord('"')).view(np.uint8)) == 0
    is_end = (text == ord("\n")) & is_outside
    is_end[:-1] |= (text[:-1] == ord("\r")) & (text[1:] != ord("\n")) & is_outside[:-1]
    is_end[-1] = True
    ends = np.flatnonzero(is_end) + 1
    starts = np.append(0, ends[:-1])
    is_delimiter = (text == ord(delimiter)) & is_outside
    fields = np.add.reduceat(is_delimiter, starts, dtype=np.int64) + 1
    is_row = ~np.isin(text[starts], [*b"\r\n"])  # Arrow skips empty lines
    is_ragged = is_row & (fields != num_fields)
    is_ragged[np.flatnonzero(is_row)[:header_rows]] = False
    rest = text[~np.repeat(is_ragged, ends - starts)]
    return Ragged(np.flatnonzero(is_ragged[is_row]) - header_rows, fields[is_ragged]), memoryview(rest.tobytes())


def _insert_rejected(table: pa.Table, ragged: Ragged, num_fields: int) -> pa.Table:
    """All rows of a block in their places, with rejected rows as nulls, and the reasons."""
    num_rows = len(table) + len(ragged.rows)
    faults = pa.nulls(num_rows, pa.string())
    if len(ragged.rows):
        is_rejected = np.zeros(num_rows, bool)
        is_rejected[ragged.rows] = True
        counts, places = np.unique(ragged.fields, return_inverse=True)
        reasons = pa.array([f"{pluralize(count, 'field')}, expected {num_fields}" for count in counts.tolist()])
        table = table.take(pa.array(np.cumsum(~is_rejected) - 1, pa.int64(), mask=is_rejected))
        faults = pc.replace_with_mask(faults, pa.array(is_rejected), reasons.take(pa.array(places)))
    return table.append_column(FAULT, faults)


def _reject_replaced(table: pa.Table) -> pa.Table:
    """The rows of a block, with a reason for each that has replaced bytes in a column to read."""
    faults = table[FAULT]
    for name in table.column_names:
        if kind_of(table[name].type) == "text" and name != FAULT:
            is_replaced = pc.match_substring(table[name].cast(pa.string()), REPLACEMENT).fill_null(False)
            faults = pc.if_else(is_replaced, f"{name} has bytes that are not UTF-8", faults)
    return table.set_column(table.column_names.index(FAULT), FAULT, faults)


def _has_words_of_high_bytes(block: memoryview) -> bool:
    """Whether most non-ASCII bytes are adjacent, as in Chinese, Japanese, Russian or Greek, and unlike in Köln.

    Those that Windows-1252 has side by side, as in Größe, do not count.
    """
    num_high = np.count_nonzero(np.frombuffer(block, np.uint8) >= 128)
    if not num_high:
        return False
    num_adjacent = sum(map(len, ADJACENT.findall(block)))
    num_adjacent -= sum(len(run) for run in WINDOWS_1252.findall(block) if len(run) > 1)
    return bool(2 * num_adjacent > num_high)


def _has_quotes(block: memoryview) -> bool:
    return b'"' in block.obj  # type: ignore[operator]  # the block is all of this except one row


def find_delimiter(head: str, skips_titles: bool = False) -> str:
    """The delimiter of fields: with it, most first rows match the header, and have the most fields.

    With ``skips_titles``, the header is not the first row, but one of as many fields as most rows have.
    """
    scores: dict[str, tuple[float, int]] = {}
    for delimiter in DELIMITERS:
        rows = _read_rows(head, delimiter)
        with contextlib.suppress(csv.Error):
            widths = [len(row) for row in itertools.islice(rows, SNIFFED_ROWS) if row]
            width = max(widths, key=widths.count, default=0) if skips_titles else next(iter(widths), 0)
            if width > 1:
                scores[delimiter] = widths.count(width) / len(widths), width
    return max(scores, key=scores.__getitem__, default=",")
