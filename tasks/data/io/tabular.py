"""Tables in any format, batch by batch: what training, ``inspect``, ``evaluate`` and prediction read alike.

Every reader yields record batches. The first has no rows and all columns of the file, so that whoever reads knows what
is there before any row is; the others have those columns that a ``Selection`` takes.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from tasks.data.levels import format_values
from tasks.errors import DataError, GradmillError
from tasks.machine import cores
from tasks.machine.arrays import Array

Kind = Literal["number", "boolean", "text", "date", "null", "unsupported"]
BadRows = Literal["raise", "reject"]
Reader = Callable[[Any, str, "Selection"], Iterator[pa.RecordBatch]]

MISSING = ("", "NA", "N/A", "NaN", "null")  # in text files, quoted or not
TEXT = pa.dictionary(pa.int32(), pa.string())
MAX_LEVELS = 2**17  # distinct texts beyond which a column is kept as plain text
MAX_COLUMNS = 2000
EXACT = 2**53  # up to which float64 has all whole numbers
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?[iI]nf(inity)?$|^(?i:nan)$"
HEX = r"^[+-]?0[xX][0-9a-fA-F]{1,15}$"
CODES = (pa.int8(), pa.int16(), pa.int32())
BATCH_ROWS = 2**17
BUFFER_BYTES = 2**20

BLOCK_BYTES = 16 * 2**20  # of text at most: a piece for each core, since nothing is done beside the first block
PARSED_BYTES = 4 * 2**20  # by one thread at a time
HEAD_BYTES = 4096
BLANK_BYTES = 64  # that may be nothing but empty lines
MAX_ROW_BYTES = 64 * 2**20
MAX_DEPTH = 64  # of values in values: Arrow's parser and writers call themselves for each
BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\x1f\x8b": "gzip", b"PK": "zip or Excel", b"\x89PNG": "PNG"}


class Selection(NamedTuple):
    """Which columns of a table are read, and as what."""

    as_text: frozenset[str] = frozenset()  # whatever they look like
    as_boolean: frozenset[str] = frozenset()  # where all their values are 0 or 1
    as_number: frozenset[str] = frozenset()  # or text where they are none, in text files; never dates or booleans
    ignore: frozenset[str] = frozenset()
    only: frozenset[str] | None = None  # all that are not to be ignored

    def takes(self, name: str) -> bool:
        """Whether a column is read."""
        return name not in self.ignore and (self.only is None or name in self.only)


def unreadable(name: object, reason: object, expected: str, action: str = "mend it, or leave it out") -> DataError:
    """The error of a file, by path or URL, that is not what it should be."""
    return DataError(f"{name} cannot be read: {reason}", expected, action)


# Columns


def kind_of(type_: pa.DataType) -> Kind:
    """What a type of Arrow is to a model."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    types = pa.types
    tests: list[tuple[Kind, tuple[Callable[[pa.DataType], bool], ...]]] = [
        ("null", (types.is_null,)),
        ("boolean", (types.is_boolean,)),
        ("number", (types.is_integer, types.is_floating, types.is_decimal)),
        ("text", (types.is_string, types.is_large_string, types.is_string_view)),
        ("date", (types.is_date, types.is_timestamp, types.is_time, types.is_duration)),
    ]
    return next((kind for kind, each in tests if any(test(type_) for test in each)), "unsupported")


def normalize(array: pa.Array) -> pa.Array:
    """An array of the one type that its kind has: float64, bool, timestamp of microseconds, or a dictionary of text."""
    kind = kind_of(array.type)
    if pa.types.is_dictionary(array.type):
        if kind == "text":  # views of strings cannot be decoded
            array = pc.cast(array, TEXT)
        if kind != "text" or array.dictionary.null_count:
            array = array.dictionary_decode()
    if kind == "number":
        return pc.cast(array, pa.float64(), safe=False)
    if kind == "date":
        return _to_timestamps(array)
    if kind == "text":
        array = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        return pc.cast(array, TEXT)
    return array


def _to_timestamps(array: pa.Array) -> pa.Array:
    """Microseconds since 1970, of times and durations since zero; null beyond the years that Arrow can name."""
    if pa.types.is_time(array.type):
        type_: pa.DataType = pa.time64("us")
    elif pa.types.is_duration(array.type):
        type_ = pa.duration("us")
    else:
        type_ = pa.timestamp("us", getattr(array.type, "tz", None))
    return pc.cast(pc.cast(pc.cast(array, type_, safe=False), pa.int64()), pa.timestamp("us"))


def replace_words(array: pa.Array, words: tuple[str, ...]) -> pa.Array:
    """An array, null where it is text that is one of some words; of a dictionary only its levels are compared."""
    if pa.types.is_string(array.type):
        return pc.if_else(pc.is_in(array, pa.array(words)), None, array)
    if not pa.types.is_dictionary(array.type):
        return array
    is_word = pc.is_in(array.dictionary, pa.array(words))
    if not pc.any(is_word).as_py():
        return array
    remaining = array.dictionary.filter(pc.invert(is_word))
    return pa.DictionaryArray.from_arrays(pc.index_in(array.dictionary, remaining).take(array.indices), remaining)


def to_text(array: pa.Array) -> pa.DictionaryArray:
    """Numbers, booleans, dates or text as text: each value as the level that it is, whole numbers with all digits."""
    if kind_of(array.type) in ("text", "date"):
        array = normalize(array)
        if pa.types.is_dictionary(array.type):
            return array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        array = pc.cast(array, pa.float64(), safe=False)
        array = pc.if_else(pc.is_nan(array), None, array)
    array = array.dictionary_encode()
    return pa.DictionaryArray.from_arrays(array.indices, pa.array(format_values(array.dictionary), pa.string()))


def to_booleans(array: pa.Array) -> pa.Array:
    """Numbers as booleans where all are 0 or 1, texts where all are that, ``true`` or ``false``; else as they are."""
    if kind_of(array.type) == "text":
        texts = pc.ascii_lower(pc.cast(array, pa.string()))
        codes = pc.index_in(texts, value_set=pa.array(["0", "false", "1", "true"]))
        return pc.greater(codes, 1) if codes.null_count == texts.null_count else array
    values = normalize(array)
    values = pc.if_else(pc.is_nan(values), None, values)
    is_boolean = pc.all(pc.is_in(values, value_set=pa.array([0.0, 1.0, None]))).as_py()
    return pc.equal(values, 1) if is_boolean else array


def parse_numbers(texts: pa.Array) -> pa.Array:
    """float64 of an array of text, null where it is no number; NaN of ``nan``, infinite beyond the range.

    What the reader of CSV takes for a number in a column of numbers is one here, too.
    """
    try:
        return pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(texts)
        values = pc.cast(pc.if_else(pc.match_substring_regex(trimmed, NUMBER), trimmed, None), pa.float64())
        is_hex = pc.match_substring_regex(trimmed, HEX)
        if pc.any(is_hex).as_py():
            values = pc.coalesce(values, pc.cast(pc.cast(pc.if_else(is_hex, trimmed, None), pa.int64()), pa.float64()))
        return values


def has_inexact(array: pa.Array) -> bool:
    """Whether whole numbers are so large that float64 has not all of them."""
    if not pa.types.is_int64(array.type) and not pa.types.is_uint64(array.type):
        return False
    bounds = pc.min_max(array)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return low is not None and (low < -EXACT or high > EXACT)


class LevelCodes:
    """The distinct texts of a column over its batches, until they are too many."""

    def __init__(self) -> None:
        self.values = pa.array([], pa.string())
        self.are_too_many = False

    def encode(self, array: pa.DictionaryArray) -> pa.Array:
        """Codes of a batch by all levels so far, as small as these are few; its text once they are too many."""
        if not self.are_too_many:
            codes = pc.index_in(array.dictionary, value_set=self.values)
            if codes.null_count:
                new = array.dictionary.filter(codes.is_null())
                self.values = pa.concat_arrays([self.values, new])
                codes = pc.index_in(array.dictionary, value_set=self.values)
            self.are_too_many = len(self.values) > MAX_LEVELS
        if self.are_too_many:
            return array.dictionary_decode()
        codes = codes.cast(self._type)
        if array.null_count:
            return codes.take(array.indices)
        return pc.take(codes, array.indices, boundscheck=False)  # pyarrow's own, or checked by the reader

    def decode(self, array: pa.Array) -> pa.Array:
        """What ``encode`` gave, as the whole column is kept in the end: a dictionary, or text."""
        if not self.are_too_many:
            return pa.DictionaryArray.from_arrays(array.cast(self._type), self.values, safe=False)
        return self.values.take(array) if array.type in CODES else array

    @property
    def _type(self) -> pa.DataType:
        """The smallest type that has a code for each."""
        return next(each for each in CODES if len(self.values) <= 1 << (each.bit_width - 1))


def make_constant(value: str | None, rows: int, is_number: bool) -> pa.Array:
    """A column of one value."""
    if value is None:
        return pa.nulls(rows)
    if is_number:
        return pa.array(np.full(rows, float(value)))
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


# Formats that keep their types


def parquet_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file.

    Raises:
        DataError: the file is broken.
    """
    with reading_whole(name, "Parquet"):
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER_BYTES)
        yield without_rows(file.schema_arrow)
        for batch in file.iter_batches(BATCH_ROWS, columns=_supported(file.schema_arrow, selection)):
            yield validate_text(batch)


def arrow_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of an Arrow file or stream, which Feather is.

    Raises:
        DataError: the file is broken, or Feather's first version.
    """
    with reading_whole(name, "Arrow or Feather"):
        try:
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        except pa.ArrowInvalid:
            stream.seek(0)
            file = batches = pa.ipc.open_stream(stream)
        yield without_rows(file.schema)
        columns = _supported(file.schema, selection)
        for batch in batches:
            for first in range(0, batch.num_rows, BATCH_ROWS):  # a file may be one batch
                yield validate_text(batch.select(columns).slice(first, BATCH_ROWS))


def validate_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, once its text is known to be UTF-8 and its codes to be levels that it has: no file promises that.

    Raises:
        Exception: of any kind; it is not so.
    """
    for column in batch.columns:
        if kind_of(column.type) == "text":
            column.validate(full=True)
    return batch


def without_rows(schema: pa.Schema) -> pa.RecordBatch:
    """No rows of all columns."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _supported(schema: pa.Schema, selection: Selection) -> list[str]:
    return [field.name for field in schema if selection.takes(field.name) and kind_of(field.type) != "unsupported"]


@contextlib.contextmanager
def reading_whole(name: object, kind: str) -> Iterator[None]:
    """Take whatever a parser raises in the block for the file's fault: their exceptions have no end of kinds.

    Raises:
        DataError: something was raised.
    """
    try:
        yield
    except GradmillError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise unreadable(name, reason, f"a whole {kind} file") from error


def describe_schema(schema: pa.Schema) -> str:
    """The columns of a file with their types."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


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


# Text


def json_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of a file of JSON objects, one a line; a column that only some have is missing in the other batches.

    Raises:
        DataError: it is no such file.
    """
    rows, as_text = 0, selection.as_text
    for block in read_blocks(stream, name, _check_json_head):
        _check_json_block(block, name, rows)
        try:
            table, as_text = _parse_json(block, as_text)
        except pa.ArrowException as error:
            reason = _count_from(rows, str(error).splitlines()[0])
            raise unreadable(name, reason, "one JSON object a line, with values of one kind a column") from error
        rows += len(table)
        yield from table.to_batches()


def _parse_json(block: memoryview, as_text: frozenset[str]) -> tuple[pa.Table, frozenset[str]]:
    """The rows of a block, and the columns that may be read as text: those of numbers or booleans may not."""
    options = pa.json.ReadOptions(block_size=PARSED_BYTES)

    def parse(schema: pa.Schema | None) -> pa.Table:
        return pa.json.read_json(
            pa.BufferReader(pa.py_buffer(block)), options, pa.json.ParseOptions(explicit_schema=schema)
        )

    try:
        table = parse(pa.schema([(column, pa.string()) for column in sorted(as_text)]))
    except pa.ArrowException:
        kinds = {field.name: kind_of(field.type) for field in parse(None).schema}
        as_text = frozenset(each for each in as_text if kinds.get(each, "text") in ("text", "date", "null"))
        table = parse(pa.schema([(column, pa.string()) for column in sorted(as_text)]))
    empty = [each for each in as_text if table[each].null_count == len(table)]
    text = bytes(block) if empty else b""
    return table.drop_columns([each for each in empty if not _is_named(each, text)]), as_text


def _count_from(rows: int, said: str) -> str:
    """What Arrow says of a row of a block, which follows so many rows of the file."""
    return re.sub(r"in row (\d+)", lambda match: f"in row {rows + int(match[1])}", said)


def _is_named(column: str, text: bytes) -> bool:
    """Whether a column stands in a block: if not, the schema has brought it in."""
    return any(json.dumps(column, ensure_ascii=escaped).encode() in text for escaped in (False, True))


def check_text(head: bytes, name: str) -> None:
    """Whether the first bytes of a file are text in UTF-8, as far as they tell.

    Raises:
        DataError: they are something else.
    """
    if not head.strip(BOM + b" \t\r\n"):
        raise unreadable(name, "it is empty", "a table with a header")
    if found := next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None):
        raise unreadable(name, f"it is a {found} file", "text, such as CSV", "name it by what it is, or save it as CSV")
    if head.lstrip(BOM + b" \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise unreadable(name, "it is a page of the web or XML", "a table", "see it in a browser")
    if head.startswith(UTF_16) or 0.3 < head.count(b"\0") / len(head) < 0.7:
        raise unreadable(name, "it is UTF-16", "UTF-8", "save it as CSV in UTF-8")
    if b"\0" in head:
        raise unreadable(name, "it holds NUL bytes", "UTF-8 text", "it may be a binary file: name it by what it is")


def _check_json_head(head: bytes, name: str) -> None:
    check_text(head, name)
    if head.lstrip(BOM + b" \t\r\n").startswith(b"["):
        raise unreadable(name, "it is one array", "one JSON object a line", "write it as JSON lines")


def _check_json_block(block: memoryview, name: str, rows: int) -> None:
    """Refuse what ends Arrow's parser by a segmentation fault, or comes out of it as no text."""
    text = bytes(block)
    if not is_ascii(block):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            line = rows + text.count(b"\n", 0, error.start)
            raise unreadable(name, f"row {line} is not UTF-8", "UTF-8", "save it in UTF-8") from error
    if null := re.search(rb"(?:\A|\})\s*null\s*(?:\Z|[{n])", text):
        line = rows + text.count(b"\n", 0, text.index(b"null", null.start()))
        raise unreadable(name, f"row {line} is null", "one JSON object a line")
    if text.count(b"{") + text.count(b"[") > text.count(b"\n") + MAX_DEPTH and _depth(block) > MAX_DEPTH:
        raise unreadable(name, f"values are nested more than {MAX_DEPTH} deep", "one value a column")


def _depth(block: memoryview) -> int:
    """How deep values of a block are nested, brackets in strings left out."""
    text = np.frombuffer(re.sub(rb'"(?:[^"\\]|\\.)*"', b"", bytes(block)), np.uint8)
    steps = np.isin(text, [ord("{"), ord("[")]).astype(np.int32) - np.isin(text, [ord("}"), ord("]")])
    return int(np.cumsum(steps).max(initial=0))


def is_ascii(block: memoryview) -> bool:
    """Whether text needs no second look, which takes a tenth of the time of reading it."""
    return bool(np.frombuffer(block, np.uint8).max(initial=0) < 128)


def read_blocks(stream: Any, name: str, check: Callable[[bytes, str], None] = check_text) -> Iterator[memoryview]:
    """Whole rows, a bounded number of bytes at a time; a block holds until the next is asked for.

    Raises:
        DataError: the file is empty, or no text, or has a row of more than ``MAX_ROW_BYTES``.
    """
    buffer, filled, is_first = bytearray(min(BLOCK_BYTES, PARSED_BYTES * max(2, cores.available()))), 0, True
    while True:
        start = filled
        try:
            while filled < len(buffer) and (count := stream.readinto(memoryview(buffer)[filled:])):
                filled += count
        except Exception as error:  # of a decompressor or a network, which have no end of kinds
            raise unreadable(name, error, "a whole file") from error
        if is_first:
            check(bytes(buffer[: min(filled, HEAD_BYTES)]), name)
        if buffer.find(b"\0", start, filled) >= 0:
            raise unreadable(name, "it holds NUL bytes", "UTF-8 text")
        is_last = filled < len(buffer)
        end = filled if is_last else _end_of_rows(buffer)
        if end > BLANK_BYTES or buffer[:end].strip():
            yield memoryview(buffer)[:end]
        if is_last:
            return
        is_first, rest = False, buffer[end:]
        filled = len(rest)
        buffer[:filled] = rest
        if filled == len(buffer):
            if filled >= MAX_ROW_BYTES and b"\n" not in buffer:
                reason = f"it has a row of more than {MAX_ROW_BYTES:,} bytes"
                raise unreadable(name, reason, "lines that end with a line feed")
            buffer = buffer + bytearray(len(buffer))


def _end_of_rows(block: bytearray) -> int:
    """Where the last row ends: a line feed with an even number of quotes before it; 0 where none does yet."""
    end = block.rfind(b"\n") + 1
    if (
        block.find(b'"') < 0 or block.count(b'"', 0, end) % 2 == 0 or len(block) > MAX_ROW_BYTES
    ):  # by then of a quote that opens nothing
        return end
    text = np.frombuffer(block, np.uint8)
    is_quoted = np.bitwise_xor.accumulate((text == ord('"')).view(np.uint8))
    ends = np.flatnonzero((text == ord("\n")) & (is_quoted == 0))
    return int(ends[-1]) + 1 if len(ends) else 0


# Numbers of a column, for training and prediction alike


def to_numbers(array: pa.Array, is_boolean: bool = False, invalid: float = np.nan) -> Array:
    """Numbers, booleans, or text that reads as either, as float64 ``(n,)``: NaN is missing.

    ``invalid`` stands for text that is no number, or, where the column ``is_boolean``, neither that nor a truth value.
    """
    kind = kind_of(array.type)
    if kind == "null":
        return np.full(len(array), np.nan)
    if kind != "text":
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        values = pc.cast(array, pa.float64(), safe=False)
        values = values.fill_null(np.nan) if values.null_count else values
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pa.types.is_dictionary(array.type):
        values = np.append(_parse_texts(pc.cast(array.dictionary, pa.string()), is_boolean, invalid), np.nan)
        numbers: Array = values[array.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        return numbers
    return _parse_texts(pc.cast(array, pa.string()), is_boolean, invalid)


def _parse_texts(texts: pa.Array, is_boolean: bool, invalid: float) -> Array:
    values = parse_numbers(texts)
    if is_boolean:
        codes = pc.index_in(pc.ascii_lower(texts), pa.array(["false", "true"]))
        values = pc.coalesce(values, pc.cast(codes, pa.float64()))
    is_blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)
    return np.asarray(pc.if_else(is_blank, np.nan, pc.fill_null(values, invalid)).to_numpy(zero_copy_only=False))
