"""CSV for training, in bounded memory and with all cores."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from tasks.data.readers import columns
from tasks.data.readers.columns import Selection
from tasks.data.readers.formats import broken_table as broken
from tasks.data.readers.text import MARK, PARSED_BYTES, blocks, check_names, none
from tasks.errors import DataError
from tasks.machine import side_by_side
from tasks.machine.words import counted

MISSING = ("", "NA", "N/A", "NaN", "null")  # in CSV, quoted or not
DELIMITERS = (",", ";", "\t", "|")
SNIFFED_BYTES, SNIFFED_ROWS = 2**18, 100
LEVELS = 2**15  # of a block's column beyond which its text is not kept as a dictionary
TEXT = pa.dictionary(pa.int32(), pa.string())
EXCELS = re.compile(rb"(\xef\xbb\xbf)?[\r\n]*sep=.\r?\n", re.IGNORECASE)  # a first line that tells Excel the delimiter


def csv_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV file, and first none, with the columns that are not selected, but for those to ignore.

    Raises:
        DataError: it is no such file; ragged rows are counted to the end first.
    """
    rest = blocks(stream, name)
    first = next(rest)
    first = first[excels_line(first) or (len(MARK) if first[: len(MARK)] == MARK else 0) :]
    first = first[next(at for at, byte in enumerate(first) if byte not in b"\r\n") :]
    if re.search(rb"[\r\n]", first) is None:
        raise broken(name, "it ends inside its header", "a header and rows")
    file = _Csv(name, first, selection)
    yield file.header(selection.ignore)
    for table in side_by_side.ahead(map(file.table, itertools.chain([first], rest))):
        for batch in table.to_batches() or [none(table.schema)]:
            arrays = [columns.text_without(each, MISSING) for each in batch.columns]
            yield pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
    file.check_ragged()


class _Csv:
    """One CSV file on its way: its header, and what was counted of its rows."""

    def __init__(self, name: str, block: memoryview, selection: Selection) -> None:
        self._name = name
        head = _head(block, name)
        self._delimiter = delimiter(head)
        self._names = _names(head, self._delimiter, name)
        check_names(self._names, name)
        self._kept = [each for each in self._names if selection.takes(each)]
        if not self._kept and selection.only is None:
            raise DataError(f"{name}: every column is ignored", "a column to learn from", "leave out fewer by --ignore")
        self._types = {each: TEXT for each in self._kept if each in selection.as_text}
        self._header = 1  # rows of the next block that are none of data
        self._rows, self._ragged, self._first_ragged = 0, 0, (0, 0)  # the number of the first, and its fields
        self._is_ended = True  # by a line's end

    def header(self, ignore: frozenset[str]) -> pa.RecordBatch:
        """No rows of all columns that are not to ``ignore``."""
        return none(pa.schema([(each, pa.null()) for each in self._names if each not in ignore]))

    def table(self, block: memoryview) -> pa.Table:
        """The rows of a block."""
        rejects: list[Any] = []
        try:
            table = self._parse(block, rejects)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            if "UTF8" in str(error) or isinstance(error, UnicodeDecodeError):
                raise self._no_utf_8() from error
            raise broken(self._name, str(error).splitlines()[0], "CSV") from error
        if any(columns.kind_of(kind) == "unfit" for kind in table.schema.types):  # bytes, in a dictionary or not
            raise self._no_utf_8()
        if rejects and not self._ragged:
            self._note_first(block)
        self._ragged += len(rejects)
        self._rows += len(table) + len(rejects)
        self._header, self._is_ended = 0, block[-1] in b"\r\n"
        return table

    def _parse(self, block: memoryview, rejects: list[Any], use_threads: bool = True) -> pa.Table:
        def skip(row: Any) -> str:
            rejects.append(row)
            return "skip"

        return pyarrow.csv.read_csv(
            pa.BufferReader(pa.py_buffer(block)),
            pyarrow.csv.ReadOptions(
                use_threads=use_threads,
                block_size=PARSED_BYTES if use_threads else len(block) + 1,
                column_names=self._names,
                skip_rows_after_names=self._header,
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self._delimiter,
                newlines_in_values=_has_quotes(block),
                invalid_row_handler=skip,
            ),
            pyarrow.csv.ConvertOptions(
                column_types=self._types,
                include_columns=self._kept,
                null_values=MISSING,  # not of text, where that is asked of each row: ``text_without``
                auto_dict_encode=True,
                auto_dict_max_cardinality=LEVELS,
                check_utf8=not _is_ascii(block),
            ),
        )

    def _note_first(self, block: memoryview) -> None:
        """Read a block once more, by one thread, since rows have no numbers with more."""
        rejects: list[Any] = []
        self._parse(block, rejects, use_threads=False)
        self._first_ragged = self._rows + rejects[0].number - 1 - self._header, rejects[0].actual_columns

    def check_ragged(self) -> None:
        """Whether all rows have the fields of the header.

        Raises:
            DataError: some have not.
        """
        (row, fields), expected = self._first_ragged, len(self._names)
        if self._ragged == 1 and row == self._rows - 1 and fields < expected and not self._is_ended:
            reason = f"it ends inside row {row} (from 0), after {counted(fields, 'field')}"
            raise broken(self._name, reason, counted(expected, "field"))
        if self._ragged:
            raise DataError(
                f"{counted(self._ragged, 'row')} of {self._rows:,} in {self._name} with more or fewer fields than "
                f"the header: the first is row {row}, with {fields} (rows count from 0)",
                counted(expected, "field"),
                "remove what stands above the header"
                if self._ragged == self._rows
                else "quote fields that contain the delimiter, and write the file again",
            )

    def _no_utf_8(self) -> DataError:
        return broken(self._name, "it is not UTF-8", "UTF-8", "save it as CSV in UTF-8")


def _has_quotes(block: memoryview) -> bool:
    return bytearray.find(block.obj, b'"') >= 0  # type: ignore[arg-type]  # of which the block is all but a row


def _is_ascii(block: memoryview) -> bool:
    """Whether text needs no second look, which takes a tenth of the time of reading it."""
    return bool(np.frombuffer(block, np.uint8).max() < 128)


def _head(block: memoryview, name: str) -> str:
    """The first rows as text."""
    head = bytes(block[:SNIFFED_BYTES])
    if len(block) > SNIFFED_BYTES:
        head = head[: head.rfind(b"\n") + 1] or head
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        raise broken(name, "it is not UTF-8", "UTF-8", "save it as CSV in UTF-8") from error


def _names(head: str, delimiter: str, name: str) -> list[str]:
    try:
        return next(filter(None, csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, strict=True)))
    except csv.Error as error:
        raise broken(name, f"its header has {error}", "CSV with a header", "see its first line") from error


def excels_line(head: bytes | memoryview) -> int:
    """The bytes of the line before the header that tells Excel the delimiter; 0 where there is none."""
    found = EXCELS.match(head)
    return found.end() if found else 0


def delimiter(head: str) -> str:
    """What stands between fields, by a file's first rows."""
    return max(DELIMITERS, key=lambda each: _fit(head, each))


def _fit(head: str, delimiter: str) -> tuple[float, int]:
    """How well a delimiter explains the first rows: the share of rows like the header, and the number of fields."""
    try:
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        widths = [len(row) for row, _ in zip(rows, range(SNIFFED_ROWS), strict=False) if row]
    except csv.Error:
        return 0.0, 0
    return (widths.count(widths[0]) / len(widths), widths[0]) if widths and widths[0] > 1 else (0.0, 0)
