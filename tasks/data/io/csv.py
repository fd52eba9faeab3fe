"""CSV in bounded memory and with all cores: its delimiter, its header, its rows, and those that cannot be read."""

import contextlib
import csv
import io
import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from tasks.data.io.tabular import (
    BOM,
    MISSING,
    PARSED_BYTES,
    TEXT,
    BadRows,
    Selection,
    check_names,
    kind_of,
    read_blocks,
    replace_words,
    unreadable,
    without_rows,
)
from tasks.errors import DataError
from tasks.machine import side_by_side
from tasks.machine.words import counted

DELIMITERS = (",", ";", "\t", "|")
SNIFFED_BYTES, SNIFFED_ROWS = 2**18, 100
MAX_LEVELS = 2**15  # of a block's column beyond which its text is not kept as a dictionary
MAX_RAGGED = 100_000  # rows after which nobody wants to know how many more there are: each is a call of Python
EXCEL_SEP_PREFIX = re.compile(rb"(\xef\xbb\xbf)?[\r\n]*sep=.\r?\n", re.IGNORECASE)  # tells Excel the delimiter
END = "gradmill.end"  # of a block
FAULT = "\0fault"  # a name that no CSV has: the column of reasons why rows could not be read


def csv_batches(stream: Any, name: str, selection: Selection, bad_rows: BadRows = "raise") -> Iterator[pa.RecordBatch]:
    """The rows of a CSV file, after a batch without rows that has all its columns.

    Where ``bad_rows`` are to ``reject``, every row is there, those that cannot be read as nulls, and a column ``FAULT``
    has the reason, or null; what is not UTF-8 is replaced.

    Raises:
        DataError: it is no such file; ragged rows that are to ``raise`` are counted first.
    """
    blocks = read_blocks(stream, name)
    first = next(blocks)
    prefix = EXCEL_SEP_PREFIX.match(first)
    first = first[prefix.end() if prefix else len(BOM) if first[: len(BOM)] == BOM else 0 :]
    first = first[len(first) - len(bytes(first).lstrip(b"\r\n")) :]
    if re.search(rb"[\r\n]", first) is None:
        raise unreadable(name, "it ends inside its header", "a header and rows")
    file = _CsvFile(name, first, selection, bad_rows)
    yield without_rows(pa.schema([(each, pa.null()) for each in file.names]))
    for table in side_by_side.ahead(map(file.parse, itertools.chain([first], blocks))):
        for batch in table.to_batches() or [without_rows(table.schema)]:
            arrays = [replace_words(each, MISSING) for each in batch.columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
    file.check_ragged()


class _CsvFile:
    """One CSV file on its way: its header, and what was counted of its rows."""

    def __init__(self, name: str, block: memoryview, selection: Selection, bad_rows: BadRows) -> None:
        self._name, self._bad_rows, self._selection = name, bad_rows, selection
        head = self._decode_head(block)
        self._delimiter = find_delimiter(head)
        self.names = self._parse_header(head)
        is_strict = bad_rows == "raise"  # a comma at the end of each line is no reason not to predict
        check_names([each for each in self.names if is_strict or each.strip()], name)
        self._included = [each for each in self.names if selection.takes(each)]
        if not self._included and selection.only is None:
            raise DataError(f"{name}: every column is ignored", "a column to learn from", "leave out fewer by --ignore")
        self._types = {each: TEXT for each in self._included if each in selection.as_text}
        self._header_rows = 1  # of the next block
        self._rows, self._ragged, self._first_ragged = 0, 0, (0, 0)  # the number of the first, and its fields
        self._ends_with_line = True

    def _decode_head(self, block: memoryview) -> str:
        """The first rows as text."""
        head = bytes(block[:SNIFFED_BYTES])
        if len(block) > SNIFFED_BYTES:
            head = head[: head.rfind(b"\n") + 1] or head
        try:
            return head.decode(errors="replace" if self._bad_rows == "reject" else "strict")
        except UnicodeDecodeError as error:
            raise self._not_utf_8() from error

    def _parse_header(self, head: str) -> list[str]:
        try:
            rows = csv.reader(io.StringIO(head, newline=""), delimiter=self._delimiter, strict=True)
            return next(filter(None, rows))
        except csv.Error as error:
            raise unreadable(
                self._name, f"its header has {error}", "CSV with a header", "see its first line"
            ) from error

    def parse(self, block: memoryview) -> pa.Table:
        """The rows of a block ``(n, columns)``."""
        block, rejects = self._require_utf_8(block), list[Any]()
        if _has_quotes(block) and bytes(block).count(b'"') % 2:
            self._require_closed_quotes(block)
        table = self._parse_or_explain(block, rejects)
        odd = [
            name
            for name, kind in ((field.name, kind_of(field.type)) for field in table.schema)
            if name in self._selection.as_number and kind in ("boolean", "date")
        ]
        if odd:  # a value that is no number is to be told as it was written
            self._types |= dict.fromkeys(odd, TEXT)
            return self.parse(block)
        if rejects and self._bad_rows == "reject":
            rejects = []  # once more by one thread, since rows have no numbers with several
            table = self._parse_or_explain(block, rejects, use_threads=False)
        elif rejects and not self._ragged:
            self._note_first(block)
        self._ragged += len(rejects)
        rows = len(table) + len(rejects)
        if self._bad_rows == "reject":
            table = self._insert_rejected(table, rejects)
        self._header_rows, self._ends_with_line = 0, block[-1] in b"\r\n"
        self._rows += rows
        return table

    def _note_first(self, block: memoryview) -> None:
        """Note the first ragged row, by one thread, since rows have no numbers with several."""
        first: list[Any] = []
        with contextlib.suppress(pa.ArrowException):
            self._parse(block, first, use_threads=False, max_rejects=0)
        self._first_ragged = self._rows + self._number_of(first[0]), first[0].actual_columns

    def _number_of(self, row: Any) -> int:
        """The number of an invalid row within its block, from 0."""
        return int(row.number) - 1 - self._header_rows

    def _parse_or_explain(self, block: memoryview, rejects: list[Any], use_threads: bool = True) -> pa.Table:
        try:
            table = self._parse(block, rejects, use_threads)
        except pa.ArrowException as error:
            if self._ragged + len(rejects) > MAX_RAGGED and self._bad_rows == "raise":
                if not self._ragged:
                    self._note_first(block)
                self._ragged += len(rejects)
                self._rows += max(self._ragged, len(rejects))
                raise self._ragged_error("at least ") from error
            if use_threads:  # a row may be longer than what a thread parses
                rejects.clear()
                return self._parse_or_explain(block, rejects, use_threads=False)
            raise unreadable(self._name, str(error).splitlines()[0], "CSV") from error
        return table

    def _require_utf_8(self, block: memoryview) -> memoryview:
        """The block, where rows are rejected one by one with replacements for what is not UTF-8.

        Arrow would look, too, but not at what it hands to Python of rows that it cannot read.
        """
        if np.frombuffer(block, np.uint8).max(initial=0) < 128:  # a decoder takes longer to find that out
            return block
        try:
            bytes(block).decode()
        except UnicodeDecodeError as error:
            if self._bad_rows == "raise":
                raise self._not_utf_8() from error
            return memoryview(bytearray(bytes(block).decode(errors="replace").encode()))
        return block

    def _require_closed_quotes(self, block: memoryview) -> None:
        """Refuse a quote that opens a field and is never closed: all rows that follow would be one.

        Some that stand inside of fields are of no account: a row is put behind the block, and has to come out as one.
        """
        csv.field_size_limit(2**31 - 1)  # of what may be a whole block
        rows, last = io.StringIO(f"{bytes(block).decode()}\n{END}\n", newline=""), (0, [""])
        for row in enumerate(csv.reader(rows, delimiter=self._delimiter), self._rows - self._header_rows):
            last = row
        if last[1] != [END]:
            reason = f"row {last[0]} (from 0) has a quote that is never closed"
            raise unreadable(self._name, reason, "a second quote where the field ends")

    def _parse(
        self, block: memoryview, rejects: list[Any], use_threads: bool, max_rejects: float | None = None
    ) -> pa.Table:
        most = max_rejects
        if most is None:
            most = math.inf if self._bad_rows == "reject" else MAX_RAGGED - self._ragged

        def note(row: Any) -> str:
            rejects.append(row)
            return "error" if len(rejects) > most else "skip"

        return pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(block)),
            pyarrow.csv.ReadOptions(
                use_threads=use_threads,
                block_size=PARSED_BYTES if use_threads else len(block) + 1,
                column_names=self._unique_names(),
                skip_rows_after_names=self._header_rows,
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=_has_quotes(block), invalid_row_handler=note
            ),
            pyarrow.csv.ConvertOptions(
                column_types=self._types,
                include_columns=self._included,
                null_values=MISSING,  # not of text, where each row is looked at: ``replace_words``
                auto_dict_encode=True,
                auto_dict_max_cardinality=MAX_LEVELS,
                check_utf8=False,
            ),
        )

    def _unique_names(self) -> list[str]:
        """The names of the columns; one that stands twice and is not read has another, which Arrow asks for."""
        return [f"{FAULT}.{at}" if each in self.names[:at] else each for at, each in enumerate(self.names)]

    def _insert_rejected(self, table: pa.Table, rejects: list[Any]) -> pa.Table:
        """All rows of a block at their places, those that were rejected as nulls, and the reasons."""
        rows = len(table) + len(rejects)
        is_rejected = np.zeros(rows, bool)
        is_rejected[[self._number_of(row) for row in rejects]] = True
        reasons = [f"{counted(row.actual_columns, 'field')}, expected {row.expected_columns}" for row in rejects]
        faults = pa.nulls(rows, pa.string())
        if rejects:
            table = table.take(pa.array(np.cumsum(~is_rejected) - 1, pa.int64(), mask=is_rejected))
            faults = pc.replace_with_mask(faults, pa.array(is_rejected), pa.array(reasons))
        return table.append_column(FAULT, faults) if table.num_columns else pa.table({FAULT: faults})

    def check_ragged(self) -> None:
        """Whether all rows have the fields of the header, unless those that have not are rejected.

        Raises:
            DataError: some have not.
        """
        (row, fields), expected = self._first_ragged, len(self.names)
        if not self._ragged or self._bad_rows == "reject":
            return
        if self._ragged == 1 and row == self._rows - 1 and fields < expected and not self._ends_with_line:
            reason = f"it ends inside row {row} (from 0), after {counted(fields, 'field')}"
            raise unreadable(self._name, reason, counted(expected, "field"))
        raise self._ragged_error()

    def _ragged_error(self, at_least: str = "") -> DataError:
        (row, fields), expected = self._first_ragged, len(self.names)
        return DataError(
            f"{at_least}{counted(self._ragged, 'row')} of {self._rows:,} in {self._name} with more or fewer fields "
            f"than the header: the first is row {row}, with {fields} (rows count from 0)",
            counted(expected, "field"),
            "remove what stands above the header"
            if self._ragged == self._rows
            else "quote fields that contain the delimiter, and write the file again",
        )

    def _not_utf_8(self) -> DataError:
        return unreadable(self._name, "it is not UTF-8", "UTF-8", "save it as CSV in UTF-8")


def _has_quotes(block: memoryview) -> bool:
    return bytearray.find(block.obj, b'"') >= 0  # type: ignore[arg-type]  # of which the block is all but a row


def find_delimiter(head: str) -> str:
    """What stands between fields, by a file's first rows."""
    return max(DELIMITERS, key=lambda each: _score_delimiter(head, each))


def _score_delimiter(head: str, delimiter: str) -> tuple[float, int]:
    """How well a delimiter explains the first rows: the share of rows like the header, and the number of fields."""
    try:
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        widths = [len(row) for row, _ in zip(rows, range(SNIFFED_ROWS), strict=False) if row]
    except csv.Error:
        return 0.0, 0
    return (widths.count(widths[0]) / len(widths), widths[0]) if widths and widths[0] > 1 else (0.0, 0)
