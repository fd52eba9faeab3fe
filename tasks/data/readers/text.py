"""Text files of a table for training, read in blocks that end with a row, and JSON lines among them.

pyarrow finds types block by block, with all cores: what a column is over all blocks decides whoever gathers them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from tasks.data.readers.columns import Selection
from tasks.data.readers.formats import broken_table as broken
from tasks.errors import DataError
from tasks.machine import cores

BLOCK_BYTES = 16 * 2**20  # at most: a piece for each core, since nothing is done beside the first block
PARSED_BYTES = 4 * 2**20  # by one thread at a time
HEAD_BYTES = 4096
BLANK = 64  # bytes that may be nothing but empty lines
LONGEST_ROW = 64 * 2**20
MARK = b"\xef\xbb\xbf"  # of UTF-8, which some editors write
MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\x1f\x8b": "gzip", b"PK": "zip or Excel", b"\x89PNG": "PNG"}
NO_TEXT = re.compile(r"Column\(/(.+)\) changed from string to")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def json_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of a file of JSON objects, one a line, of all columns that are not to be ignored.

    Raises:
        DataError: it is no such file.
    """
    rows = 0
    for block in blocks(stream, name, _check_json):
        try:
            table = _json(block, selection.as_text)
        except pa.ArrowException as error:
            said = _counted_from(rows, str(error).splitlines()[0])
            raise broken(name, said, "one JSON object a line, with values of one kind a column") from error
        rows += len(table)
        yield from table.drop_columns([each for each in table.column_names if each in selection.ignore]).to_batches()


def _json(block: memoryview, as_text: frozenset[str]) -> pa.Table:
    options = pa.json.ReadOptions(block_size=PARSED_BYTES)
    schema = pa.schema([(column, pa.string()) for column in sorted(as_text)])
    source = pa.BufferReader(pa.py_buffer(block))
    try:
        table = pa.json.read_json(source, options, pa.json.ParseOptions(explicit_schema=schema))
    except pa.ArrowException as error:
        no_text = NO_TEXT.search(str(error))
        if no_text is None or no_text[1] not in as_text:
            raise
        return _json(block, as_text - {no_text[1]})  # of numbers, whose names are made later
    empty = [each for each in schema.names if table[each].null_count == len(table)]
    text = bytes(block) if empty else b""
    return table.drop_columns([each for each in empty if not _is_named(each, text)])


def _is_named(column: str, text: bytes) -> bool:
    """Whether a column stands in a block: if not, the schema has brought it in."""
    return any(json.dumps(column, ensure_ascii=escaped).encode() in text for escaped in (False, True))


def _counted_from(rows: int, said: str) -> str:
    """What pyarrow says of a row of a block, which follows so many rows of the file."""
    return re.sub(r"in row (\d+)", lambda found: f"in row {rows + int(found[1])}", said)


def check_text(head: bytes, name: str) -> None:
    """Whether the first bytes of a file are text in UTF-8, as far as they tell.

    Raises:
        DataError: they are something else.
    """
    if not head.strip(MARK + b" \t\r\n"):
        raise broken(name, "it is empty", "a table with a header")
    if found := next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None):
        raise broken(name, f"it is a {found} file", "text, such as CSV", "name it by what it is, or save it as CSV")
    if head.lstrip(MARK + b" \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise broken(name, "it is a page of the web or XML", "a table", "see it in a browser")
    if head.startswith(UTF_16) or 0.3 < head.count(b"\0") / len(head) < 0.7:
        raise broken(name, "it is UTF-16", "UTF-8", "save it as CSV in UTF-8")
    if b"\0" in head:
        raise broken(name, "it holds NUL bytes", "UTF-8 text", "it may be a binary file: name it by what it is")


def _check_json(head: bytes, name: str) -> None:
    check_text(head, name)
    if head.lstrip(MARK + b" \t\r\n").startswith(b"["):
        raise broken(name, "it is one array", "one JSON object a line", "write it as JSON lines")


def blocks(stream: Any, name: str, check: Callable[[bytes, str], None] = check_text) -> Iterator[memoryview]:
    """Whole rows, a bounded number of bytes at a time; a block holds until the next is asked for.

    Raises:
        DataError: the file is empty, or no text, or has a row of more than ``LONGEST_ROW`` bytes.
    """
    buffer, filled, first = bytearray(min(BLOCK_BYTES, PARSED_BYTES * max(2, cores.available()))), 0, True
    while True:
        start = filled
        try:
            while filled < len(buffer) and (count := stream.readinto(memoryview(buffer)[filled:])):
                filled += count
        except Exception as error:  # of a decompressor or a network, which have no end of kinds
            raise broken(name, error, "a whole file") from error
        if first:
            check(bytes(buffer[: min(filled, HEAD_BYTES)]), name)
        if buffer.find(b"\0", start, filled) >= 0:
            raise broken(name, "it holds NUL bytes", "UTF-8 text")
        is_last = filled < len(buffer)
        end = filled if is_last else _end_of_rows(buffer)
        if end > BLANK or buffer[:end].strip():
            yield memoryview(buffer)[:end]
        if is_last:
            return
        first, rest = False, buffer[end:]
        filled = len(rest)
        buffer[:filled] = rest
        if filled == len(buffer):
            if filled >= LONGEST_ROW and b"\n" not in buffer:
                raise broken(
                    name, f"it has a row of more than {LONGEST_ROW:,} bytes", "lines that end with a line feed"
                )
            buffer = buffer + bytearray(len(buffer))


def _end_of_rows(block: bytearray) -> int:
    """Where the last row ends: a line feed with an even number of quotes before it; 0 where none does yet."""
    end = block.rfind(b"\n") + 1
    if (
        block.find(b'"') < 0 or block.count(b'"', 0, end) % 2 == 0 or len(block) > LONGEST_ROW
    ):  # by then of a quote that opens nothing
        return end
    text = np.frombuffer(block, np.uint8)
    is_quoted = np.bitwise_xor.accumulate((text == ord('"')).view(np.uint8))
    ends = np.flatnonzero((text == ord("\n")) & (is_quoted == 0))
    return int(ends[-1]) + 1 if len(ends) else 0


def none(schema: pa.Schema) -> pa.RecordBatch:
    """No rows of all columns."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def check_names(names: list[str], file: str) -> None:
    """Whether each column has a name of its own.

    Raises:
        DataError: some have none, or share one.
    """
    faults = [f"column {at + 1} has no name" for at, name in enumerate(names) if not name.strip()]
    faults += [f"{name!r} stands {times} times" for name, times in Counter(names).items() if times > 1 and name.strip()]
    if faults:
        raise DataError(
            f"{file}: {'; '.join(faults[:10])}",
            "a header with one name for each column",
            "rename or remove them" + (" (pandas: index=False)" if names[0] == "" else ""),
        )
