"""CSV to Parquet in one pass and bounded memory; a row that cannot be read keeps its place, with the reason."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from tasks import atomic
from tasks.errors import DataError

FAULT = "gradmill.fault"  # the column of reasons
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
FIRST_ROW = 2  # by pyarrow's count of a file's rows, where 1 is the header; empty lines are no rows


def csv_to_parquet(path: Path, target: Path, columns: tuple[str, ...]) -> None:
    """Write the named columns as float64, null where a value is missing or no number, and ``FAULT``.

    Raises:
        DataError: the file is not CSV with a header that names the columns.
    """
    skipped: dict[int, str] = {}  # rows without the right number of fields: row (from 0) to reason

    def note(row: pyarrow.csv.InvalidRow) -> str:
        skipped[row.number - FIRST_ROW] = f"{row.actual_columns} fields, expected {row.expected_columns}"
        return "skip"

    target.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([*((name, pa.float64()) for name in columns), (FAULT, pa.string())])
    try:
        reader = pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),  # with threads rows have no numbers
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string()), check_utf8=False
            ),
        )
        with atomic.replacing(target) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for table in _in_place(reader, skipped, schema):
                writer.write_table(table)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(
            f"{path} cannot be read: {str(error).splitlines()[0]}",
            f"CSV with a header and columns {', '.join(columns)}",
            "write it again, or name the columns in the model's order with --columns",
        ) from error


def _in_place(reader: pyarrow.csv.CSVStreamingReader, skipped: dict[int, str], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows that were read, as numbers, and those that were skipped, where they stood; a table for each block."""
    row = 0
    for batch in reader:
        numbers = _as_numbers(batch, schema)
        parts = []
        done = 0
        while done < numbers.num_rows:
            if row in skipped:
                parts.append(_empty(skipped.pop(row), schema))
            else:
                until = min((each for each in skipped if each > row), default=row + numbers.num_rows)
                parts.append(numbers.slice(done, until - row))
                done += parts[-1].num_rows
            row += parts[-1].num_rows
        yield pa.Table.from_batches(parts, schema)
    yield pa.Table.from_batches([_empty(skipped[each], schema) for each in sorted(skipped)], schema)


def _empty(reason: str, schema: pa.Schema) -> pa.RecordBatch:
    values = [pa.nulls(1, field.type) for field in schema][:-1]
    return pa.RecordBatch.from_arrays([*values, pa.array([reason])], schema=schema)


def _as_numbers(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    numbers = [_numbers(column) for column in batch.columns]
    faults = np.full(batch.num_rows, None, dtype=object)
    for name, texts, values in zip(batch.schema.names, batch.columns, numbers, strict=True):
        for row in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)):
            text = texts[int(row)].as_buffer().to_pybytes().decode(errors="replace").strip()[:40]
            faults[row] = f"{name} is {text!r}, not a number" if text else f"{name} is missing"
    return pa.RecordBatch.from_arrays([*numbers, pa.array(faults, pa.string())], schema=schema)


def _numbers(texts: pa.Array) -> pa.Array:
    """The values of a column of texts, null where a text is no number."""
    trimmed = pc.utf8_trim_whitespace(texts)
    is_number = pc.match_substring_regex(trimmed, NUMBER).fill_null(False)
    return pc.cast(pc.if_else(is_number, trimmed, None), pa.float64())
