"""Tables: Parquet by row group, and what has no middle to start from and is made into Parquet first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.data.readers import formats, named, unpacking
from tasks.data.readers.columnar import OF_BATCHES
from tasks.data.readers.csv import header as csv_header
from tasks.data.readers.formats import Format, Piece, Wanted, broken, reading
from tasks.data.recipe import Columns

TOLERATED_PERCENT = 1
BUFFER_BYTES = 2**16


def _count(path: Path, wanted: Wanted) -> int:
    with _opened(path) as file:
        named.check(path, file.schema_arrow, wanted)
        return _num_rows(path, file.metadata)


def _unpacked_count(path: Path, wanted: Wanted) -> int:
    with _opened(path) as file:
        return _num_rows(path, file.metadata)


def _num_rows(path: Path, metadata: Any) -> int:
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if min(groups, default=0) < 0 or sum(groups) != metadata.num_rows:
        raise broken(path, f"it promises {metadata.num_rows} rows, and row groups of {sum(groups)}")
    return int(metadata.num_rows)


def _opened(path: Path, wanted: Wanted | None = None) -> pq.ParquetFile:
    """A file that is read a buffer at a time: neither mapped (see ``stored``), nor by whole columns of a row group.

    Categories are read as the dictionaries that Parquet keeps anyway.
    """
    categories = named.categories(wanted) if wanted and isinstance(wanted.recipe, Columns) else None
    with reading(path):
        return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False, read_dictionary=categories)


def _pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
    with _opened(path, wanted) as file:
        columns = named.check(path, file.schema_arrow, wanted)
        for first, rows in _rows(path, file, columns, start, stop, wanted.chunk_rows):
            yield named.piece(first, rows, wanted)


def _json_pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
    """The rows of what a JSON file was unpacked into, all of them text."""
    with _opened(path, wanted) as file:
        for first, rows in _rows(path, file, None, start, stop, wanted.chunk_rows):
            yield named.piece(first, rows, wanted)


def _csv_pieces(path: Path, start: int, stop: int, wanted: Wanted) -> Iterator[Piece]:
    """The same of CSV, with the faults of rows as the last column."""
    with _opened(path, wanted) as file:
        for first, rows in _rows(path, file, None, start, stop, wanted.chunk_rows):
            yield named.piece(first, rows.select(range(rows.num_columns - 1)), wanted, rows.column(-1))


def _rows(
    path: Path, file: pq.ParquetFile, columns: list[str] | None, start: int, stop: int, at_most: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows from ``start`` to ``stop`` and the number of the first, at most so many and so large at a time.

    Raises:
        DataError: the file is broken, which for a damaged page shows only here.
    """
    groups, first = _row_groups(file.metadata, start, stop)
    with reading(path):
        batches = file.iter_batches(min(at_most, _most_rows(file.metadata, groups)), groups, columns, use_threads=False)
    while True:
        with reading(path):
            batch = next(batches, None)
        if batch is None:
            break
        low, high = max(start - first, 0), min(stop - first, batch.num_rows)
        if low < high:
            yield first + low, batch.slice(low, high - low)
        first += batch.num_rows
    if first < stop:
        raise broken(path, f"it ends at row {first}, and its footer promises more")


def _most_rows(metadata: Any, groups: list[int]) -> int:
    """How many rows of the widest group fit a chunk: they may be far larger than those that the model takes."""
    widest = max(metadata.row_group(group).total_byte_size / metadata.row_group(group).num_rows for group in groups)
    return max(1, int(formats.CHUNK_BYTES / max(1, widest)))


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows from ``start`` to ``stop``, and the number of their first row."""
    groups: list[int] = []
    first, total = 0, 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if total < stop and total + rows > start:
            first = first if groups else total
            groups.append(group)
        total += rows
    return groups, first


def _parquet_header(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.schema_arrow.names)


PARQUET = Format("parquet", (".parquet",), _count, _pieces, tolerated_percent=TOLERATED_PERCENT, header=_parquet_header)
CSV, ARROW, JSON = (
    Format(
        name,
        suffixes,
        _unpacked_count,
        pieces,
        tolerated_percent=TOLERATED_PERCENT,
        unpack=unpack,
        unpacked_suffix=".parquet",
        header=header,
    )
    for name, suffixes, pieces, unpack, header in (
        ("csv", (".csv", ".tsv", ".csv.gz", ".tsv.gz"), _csv_pieces, unpacking.of_csv, csv_header),
        ("arrow", tuple(OF_BATCHES), _pieces, unpacking.of_batches, unpacking.header),
        ("json", unpacking.JSON_LINES, _json_pieces, unpacking.of_json, unpacking.header),
    )
)
