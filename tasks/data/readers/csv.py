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

from tasks.data.readers.formats import Array
from tasks.errors import DataError
from tasks.machine.words import counted
from tasks.store import atomic, regular_files

FAULT = "gradmill.fault"  # the last column, of reasons
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
FIRST_ROW = 2  # by pyarrow's count of a file's rows, where 1 is the header; empty lines are no rows


def csv_to_parquet(path: Path, target: Path, columns: tuple[str, ...]) -> None:
    """Write the named columns as float64, null where a value is missing or no number, and ``FAULT``.

    Raises:
        DataError: the file is not CSV with a header that names each of the columns, and nothing twice.
    """
    skipped = _Skipped()
    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([*((name, pa.float64()) for name in columns), (FAULT, pa.string())])
    try:
        with _opened(path, _Skipped()) as header:
            names = header.schema.names
        for name, times in Counter(names).items():
            if times > 1 and (name or name in columns):  # an empty field, as of a comma at the end, is no name
                raise pa.ArrowInvalid(f"its header names {name!r} {times} times")
        with (
            _opened(path, skipped, include_columns=columns, column_types=dict.fromkeys(columns, pa.string())) as reader,
            atomic.replacing(target) as temporary,
            pq.ParquetWriter(temporary, schema) as writer,
        ):
            for batch in _in_place(reader, skipped, schema):
                writer.write_batch(batch)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            f"CSV with a header that names nothing twice, and columns {', '.join(columns)}",
            "write it again, or name the columns in the model's order with --columns",
        ) from error


@contextlib.contextmanager
def _opened(path: Path, skipped: "_Skipped", **conversion: Any) -> Iterator[pyarrow.csv.CSVStreamingReader]:
    with regular_files.opened(path) as stream:
        yield pyarrow.csv.open_csv(
            pa.TransformInputStream(pa.PythonFile(stream, mode="r"), _as_utf_8()),
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # with threads rows have no numbers
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skipped.note),
            convert_options=pyarrow.csv.ConvertOptions(**conversion),
        )


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
    """The rows that were read, as numbers, and those that were skipped, where they stood; block by block."""
    row = 0
    nothing = pa.RecordBatch.from_pylist([], schema)  # for what stands after the last good row
    for numbers in itertools.chain((_as_numbers(batch, schema) for batch in reader), [nothing]):
        places, reasons = skipped.take(row, numbers.num_rows)
        whole = _with_gaps(numbers, places, reasons) if reasons else numbers
        row += whole.num_rows
        yield whole


def _with_gaps(numbers: pa.RecordBatch, places: Array, reasons: list[str]) -> pa.RecordBatch:
    """``numbers`` moved apart so that the row at each of ``places`` is empty, with its reason."""
    is_gap = np.zeros(numbers.num_rows + len(places), bool)
    is_gap[places] = True
    apart = numbers.take(pa.array(np.cumsum(~is_gap) - 1, pa.int64(), mask=is_gap))
    *columns, faults = apart.columns
    faults = pc.replace_with_mask(faults, pa.array(is_gap), pa.array(reasons))
    return pa.RecordBatch.from_arrays([*columns, faults], schema=numbers.schema)


def _as_numbers(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    numbers = [_numbers(column) for column in batch.columns]
    faults = np.full(batch.num_rows, None, dtype=object)
    for name, texts, values in zip(batch.schema.names, batch.columns, numbers, strict=True):
        for row in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)):
            text = (texts[int(row)].as_py() or "").strip()[:40]
            faults[row] = f"{name} is {text!r}, not a number" if text else f"{name} is missing"
    return pa.RecordBatch.from_arrays([*numbers, pa.array(faults, pa.string())], schema=schema)


def _numbers(texts: pa.Array) -> pa.Array:
    """The values of a column of texts, null where a text is no number."""
    trimmed = pc.ascii_trim_whitespace(texts)
    is_number = pc.match_substring_regex(trimmed, NUMBER).fill_null(False)
    return pc.cast(pc.if_else(is_number, trimmed, None), pa.float64())
