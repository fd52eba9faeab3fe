"""CSV to Parquet in one pass and bounded memory; a row that cannot be read keeps its place, with the reason."""

import codecs
import contextlib
import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tasks.data.readers import delimited
from tasks.data.readers.formats import Array, unpacked
from tasks.data.readers.text import HEAD_BYTES, check_text
from tasks.errors import DataError
from tasks.machine.words import counted
from tasks.store import atomic

FAULT = "gradmill.fault"  # the last column, of reasons
FIRST_ROW = 2  # by pyarrow's count of a file's rows, where 1 is the header; empty lines are no rows


def header(path: Path) -> list[str]:
    """The names of the columns.

    Raises:
        DataError: the file has no header.
    """
    with _opened(path, _Skipped()) as reader:
        return list(reader.schema.names)


def csv_to_parquet(path: Path, target: Path, needed: Callable[[list[str]], list[str]]) -> None:
    """Write the columns that are ``needed`` of all as text, null where a value is missing, and ``FAULT``.

    Raises:
        DataError: the file is not CSV with a header that names nothing twice.
    """
    skipped = _Skipped()
    target.parent.mkdir(parents=True, exist_ok=True)
    names = header(path)
    columns = needed(names)
    schema = pa.schema([*((name, pa.string()) for name in columns), (FAULT, pa.string())])
    for name, times in Counter(names).items():
        if times > 1 and (name or name in columns):  # an empty field, as of a comma at the end, is no name
            raise _no_csv(path, f"its header names {name!r} {times} times")
    types = dict.fromkeys(columns, pa.string())
    with (
        _opened(path, skipped, include_columns=columns, column_types=types) as reader,
        atomic.replacing(target) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        for batch in _in_place(reader, skipped, schema):
            writer.write_batch(batch)


@contextlib.contextmanager
def _opened(path: Path, skipped: "_Skipped", **conversion: Any) -> Iterator[pyarrow.csv.CSVStreamingReader]:
    try:
        with unpacked(path) as stream:
            head = stream.read(delimited.SNIFFED_BYTES)
        check_text(head[:HEAD_BYTES], str(path))
        above = delimited.excels_line(head)
        delimiter = delimited.delimiter(head[above:].decode(errors="replace"))
        with unpacked(path) as stream:
            stream.read(above)
            yield pyarrow.csv.open_csv(
                pa.TransformInputStream(stream, _as_utf_8()),
                read_options=pyarrow.csv.ReadOptions(use_threads=False),  # with threads rows have no numbers
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skipped.note
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    strings_can_be_null=True, null_values=delimited.MISSING, **conversion
                ),
            )
    except pa.ArrowInvalid as error:
        raise _no_csv(path, str(error).splitlines()[0]) from error


def _no_csv(path: Path, found: str) -> DataError:
    expected = "CSV with a header that names nothing twice"
    return DataError(f"{path} cannot be read: {found}", expected, "write it again")


def _as_utf_8() -> Callable[[bytes], bytes]:
    """Replaces, block by block, what is not UTF-8, which pyarrow cannot hand to ``_Skipped.note``."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return lambda block: decoder.decode(block, final=not len(block)).encode()


class _Skipped:
    """The rows without the right number of fields, in order, until they are written."""

    def __init__(self) -> None:
        self._rows, self._reasons = array("q"), list[str]()

    def note(self, row: pyarrow.csv.InvalidRow) -> str:
        """Called by pyarrow, which reads ahead of the block that it gives."""
        self._rows.append(row.number - FIRST_ROW)
        self._reasons.append(intern(f"{counted(row.actual_columns, 'field')}, expected {row.expected_columns}"))
        return "skip"

    def take(self, first: int, rows: int) -> tuple[Array, list[str]]:
        """Those that stand among ``rows`` good ones, or right after, counted from row ``first``; and the reasons."""
        places = np.array(self._rows, np.int64) - first
        count = int(np.searchsorted(places - np.arange(len(places)), rows, side="right"))
        reasons = self._reasons[:count]
        del self._rows[:count], self._reasons[:count]
        return places[:count], reasons


def _in_place(reader: pyarrow.csv.CSVStreamingReader, skipped: _Skipped, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows that were read, and those that were skipped, where they stood; block by block."""
    row = 0
    nothing = pa.RecordBatch.from_pylist([], schema)  # for what stands after the last good row
    for texts in itertools.chain((_without_faults(batch, schema) for batch in reader), [nothing]):
        places, reasons = skipped.take(row, texts.num_rows)
        whole = _with_gaps(texts, places, reasons) if reasons else texts
        row += whole.num_rows
        yield whole


def _without_faults(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([*batch.columns, pa.nulls(batch.num_rows, pa.string())], schema=schema)


def _with_gaps(texts: pa.RecordBatch, places: Array, reasons: list[str]) -> pa.RecordBatch:
    """``texts`` moved apart so that the row at each of ``places`` is empty, with its reason."""
    is_gap = np.zeros(texts.num_rows + len(places), bool)
    is_gap[places] = True
    apart = texts.take(pa.array(np.cumsum(~is_gap) - 1, pa.int64(), mask=is_gap))
    *columns, faults = apart.columns
    faults = pc.replace_with_mask(faults, pa.array(is_gap), pa.array(reasons))
    return pa.RecordBatch.from_arrays([*columns, faults], schema=texts.schema)
