"""Tables in any format, batch by batch, in the same way for training, ``inspect``, ``evaluate`` and prediction.

Every reader yields record batches. The first has no rows and all columns of the file, so that the columns are known
before any row is read; JSON lines have no header and therefore no such batch. The other batches have the columns that a
``Selection`` takes; those of JSON lines and workbooks have all columns.
"""

import codecs
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from gradmill.rows import EXCEL_ERRORS, NO_SIGN, SIGNS, number_pattern, plain_number, read_missing
from tasks.data.io.discovery import DataFile, broken_file, explain_file_errors
from tasks.data.levels import format_values
from tasks.errors import DataError
from tasks.machine import resources
from tasks.machine.arrays import Array
from tasks.store import regular_files

Kind = Literal["number", "boolean", "text", "date", "null", "unsupported"]
BadRows = Literal["raise", "reject"]
Reader = Callable[[Any, str, "Selection"], Iterator[pa.RecordBatch]]

MISSING = ("", "NA", "N/A", "NaN", "null", *EXCEL_ERRORS)  # in text files, quoted or not
TEXT = pa.dictionary(pa.int32(), pa.string())
CODE = pa.int16()
TRUTH_VALUES = ("false", "true")  # in upper or lower case
MATCHED = b"matched"  # a key in a batch's metadata: texts for missing values that it has, by the user's word
MAX_LEVELS = 2**15  # distinct texts, as many as there are codes; beyond this, a column is kept as plain text
MAX_COLUMNS = 2000
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?[iI]nf(inity)?$|^[+-]?(?i:nan)$"
HEX = r"^0[xX][0-9a-fA-F]{1,15}$"
LEADING_ZERO = r"^\s*0\d+\s*$"  # as in 01234
NULL_LINE = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\n}])\s*null")  # among JSON lines, whatever follows it
JSON_OBJECTS = "one JSON object a line, or one array of objects"
JSON_ESCAPE = re.compile(rb"\\.", re.DOTALL)
JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
KINDS: tuple[tuple[Kind, Callable[[pa.DataType], bool]], ...] = (
    ("null", pa.types.is_null),
    ("boolean", pa.types.is_boolean),
    ("number", pa.types.is_integer),
    ("number", pa.types.is_floating),
    ("number", pa.types.is_decimal),
    ("text", pa.types.is_string),
    ("text", pa.types.is_large_string),
    ("text", pa.types.is_string_view),
    ("date", lambda type_: pa.types.is_temporal(type_) and not pa.types.is_interval(type_)),  # nothing casts these
)
NUMBERS_WITH_TEXT = 0.9  # share of a column's values that read as numbers, from which the others are faults
BATCH_ROWS = 2**17
BUFFER_BYTES = 2**20
SMALL_BUFFER_BYTES = 2**16  # of Parquet that several workers read
MAX_ROWS = 10**12  # that a footer may promise; planning takes memory for each shard

BLOCK_BYTES = 16 * 2**20  # of text at most: a piece for each core, since nothing runs beside the first block
PARSED_BYTES = 4 * 2**20  # by one thread at a time
HEAD_BYTES = 4096
BLANK_BYTES = 64  # which may be nothing but empty lines
MAX_ROW_BYTES = 64 * 2**20
MAX_DEPTH = 64  # of nested values: Arrow's parser and writers recurse for each level
BOM = b"\xef\xbb\xbf"
UTF_16, UTF_32 = (b"\xff\xfe", b"\xfe\xff"), (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\x1f\x8b": "gzip", b"PK": "zip or Excel", b"\x89PNG": "PNG"}


class DateForm(NamedTuple):
    """How a column of dates is read."""

    form: str = ""  # of text, one of ``gradmill.rows.DATES``
    zone: str = ""  # into which dates of other zones are converted; empty: none is
    needs_date: bool = False  # a time of day alone is not enough


class Selection(NamedTuple):
    """Which columns of a table are read, and as which type."""

    as_text: frozenset[str] = frozenset()  # whatever they look like
    as_boolean: frozenset[str] = frozenset()  # where all their values are 0 or 1
    ignore: frozenset[str] = frozenset()
    only: frozenset[str] | None = None  # None: all that are not ignored
    missing: tuple[str, ...] = MISSING  # in CSV
    also_missing: tuple[str, ...] = ()  # by the user's word: texts of CSV, and texts and numbers of all other formats
    raw: frozenset[str] = frozenset()  # text in CSV and JSON is read as text; other formats keep their types
    forms: Mapping[str, str] = {}  # in which text has the numbers of known columns
    finds_forms: bool = False  # of other columns, too
    dates: Mapping[str, DateForm] = {}  # columns that are read as dates
    no_dates: frozenset[str] | None = None  # other columns are dates if their values say so, but these; None: none is
    time_column: str = ""  # of numbers or dates; one that may be of months is read as text
    decimal: str | None = None  # point or comma, where the user says which
    sheet: str = ""  # of a workbook; empty: the first
    header: str = ""  # of text and workbooks: the line of the header, or none; empty: the first
    names: tuple[str, ...] = ()  # of the columns of text and workbooks; empty: as the header says, or c1, c2 …
    encoding: str = ""  # of text; empty: UTF-8, UTF-16 or UTF-32 with its mark, or Windows-1252
    is_again: bool = False  # the same files were read before, and everything worth reporting was reported

    def finds_dates(self, name: str) -> bool:
        """Whether a column is to be one of dates if its values say so."""
        return self.no_dates is not None and name not in self.no_dates | self.as_text

    def reads_text(self, name: str) -> bool:
        """Whether text that looks like a date is kept as text, with its time zone."""
        return name in self.as_text | self.raw or name in self.dates or self.finds_dates(name)

    def list_known(self) -> set[str]:
        """The columns whose kinds are known."""
        return {*self.as_text, *self.as_boolean, *self.forms, *self.dates}

    def takes(self, name: str) -> bool:
        """Whether a column is read."""
        return name not in self.ignore and (self.only is None or name in self.only)


# Columns


def kind_of(type_: pa.DataType) -> Kind:
    """The kind that an Arrow type is to a model."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return next((kind for kind, is_of_kind in KINDS if is_of_kind(type_)), "unsupported")


def normalize(array: pa.Array) -> pa.Array:
    """An array converted to its kind's one type: float64, bool, timestamp of microseconds, or a dictionary of text."""
    kind, is_dictionary = kind_of(array.type), pa.types.is_dictionary(array.type)
    if kind == "text":  # string views cannot be decoded
        array = array if is_dictionary else array.dictionary_encode()
        array = array if array.type == TEXT else pc.cast(array, TEXT)
        return array.dictionary_decode().dictionary_encode() if array.dictionary.null_count else array
    if is_dictionary:
        array = array.dictionary_decode()
    if kind == "number":
        return pc.cast(array, pa.float64(), safe=False)
    if kind == "date":  # times and durations count from zero; null beyond the years that Arrow can name
        type_: pa.DataType = pa.timestamp("us", getattr(array.type, "tz", None))
        if pa.types.is_time(array.type) or pa.types.is_duration(array.type):
            type_ = pa.time64("us") if pa.types.is_time(array.type) else pa.duration("us")
        return pc.cast(pc.cast(pc.cast(array, type_, safe=False), pa.int64()), pa.timestamp("us"))
    return array


def to_text(array: pa.Array) -> pa.DictionaryArray:
    """Numbers, booleans, dates or text as text: each value as the name of its level, integers with all digits."""
    if kind_of(array.type) == "text":
        return normalize(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not pa.types.is_integer(array.type):  # float64 does not hold all their digits
        array = normalize(array)
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    array = array.dictionary_encode()
    return pa.DictionaryArray.from_arrays(array.indices, pa.array(format_values(array.dictionary), pa.string()))


def to_booleans(array: pa.Array) -> pa.Array:
    """Numbers as booleans if all are 0 or 1, texts if all are these, ``true`` or ``false``; otherwise unchanged."""
    values = to_numbers(array, invalid=np.inf)
    is_missing = np.isnan(values)
    is_boolean = (is_missing | (values == 0) | (values == 1)).all()
    return pa.array(values == 1, mask=is_missing) if is_boolean else array


def parse_numbers(texts: pa.Array) -> pa.Array:
    """An array of text as float64: null if not a number, NaN for ``nan``, infinite beyond the range.

    What the CSV reader takes for a number in a column of numbers counts as one here, too.
    """
    try:
        return pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(texts)
        values = pc.cast(pc.if_else(pc.match_substring_regex(trimmed, NUMBER), trimmed, None), pa.float64())
        hexadecimal = pc.if_else(pc.match_substring_regex(trimmed, HEX), trimmed, None)
        return pc.coalesce(values, pc.cast(pc.cast(hexadecimal, pa.int64()), pa.float64()))


def parse_form(texts: pa.Array, form: str) -> pa.Array:
    """Text in a form such as ``$1,234.5`` as float64, null if it is not in it: as ``gradmill.rows.parse_number``."""
    found = pc.extract_regex(pc.utf8_trim_whitespace(pc.cast(texts, pa.string())), number_pattern(form))
    sign, plain, end = found.flatten()
    around = pc.binary_join_element_wise(sign, end, "")
    places = pc.index_in(pc.replace_substring_regex(around, NO_SIGN, ""), pa.array(SIGNS))
    for pattern, replacement in plain_number(form):
        plain = pc.replace_substring_regex(plain, pattern, replacement)
    signed = pc.binary_join_element_wise(pc.take(pa.array(SIGNS.values()), places), plain, "")
    numbers = parse_numbers(signed)
    return pc.divide(numbers, 100.0) if form.endswith("%") else numbers


def to_numbers(
    array: pa.Array,
    is_boolean: bool = True,
    invalid: float = np.nan,
    form: str = "",
    missing: Sequence[str] = (),
) -> Array:
    """Numbers, booleans, dates, or text that reads as a number, as float64 ``(n,)``: NaN is missing.

    A date becomes its microseconds since 1970, far from which it is rounded to the nearest float64. ``invalid``
    replaces text that is not a number (in this ``form``) or, if the column ``is_boolean``, a truth value. Text that is
    a number which ``missing`` names is missing.
    """
    kind = kind_of(array.type)
    if pa.types.is_dictionary(array.type):
        values = np.append(to_numbers(array.dictionary, is_boolean, invalid, form, missing), np.nan)
        codes: Array = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return values[codes]  # -1 picks the last
    if kind == "text":
        texts = pc.cast(array, pa.string())
        array = parse_form(texts, form) if form else parse_numbers(texts)
        is_missing = pc.is_in(pc.add(array, 0.0), pa.array(read_missing(missing, form), pa.float64()))  # -0 becomes 0
        if array.null_count:
            if is_boolean:
                truth = pc.index_in(pc.ascii_lower(texts), pa.array(TRUTH_VALUES))
                array = pc.coalesce(array, pc.cast(truth, pa.float64()))
            is_blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)
            array = pc.if_else(is_blank, None, pc.fill_null(array, invalid))
        array = pc.if_else(is_missing, None, array)
    elif kind == "date":
        array = array.cast(pa.int64())
    return np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))  # null becomes NaN


class LevelCodes:
    """The distinct texts of a column across its batches, until there are too many."""

    def __init__(self) -> None:
        self._values = pa.array([], pa.string())
        self._are_too_many = False

    def encode(self, array: pa.DictionaryArray) -> pa.Array:
        """The codes of a batch among all levels so far, or its text once there are too many."""
        if not self._are_too_many:
            codes = pc.index_in(array.dictionary, value_set=self._values)
            if codes.null_count:
                self._values = pa.concat_arrays([self._values, array.dictionary.filter(codes.is_null())])
                codes = pc.index_in(array.dictionary, value_set=self._values)
            self._are_too_many = len(self._values) > MAX_LEVELS
        if self._are_too_many:
            return array.dictionary_decode()
        # arrays without nulls come from pyarrow itself, or were checked by the reader
        return pc.take(codes.cast(CODE), array.indices, boundscheck=bool(array.null_count))

    def decode(self, array: pa.Array) -> pa.Array:
        """What ``encode`` returned, in the form in which the whole column is kept: a dictionary, or text."""
        if not self._are_too_many:
            return pa.DictionaryArray.from_arrays(array, self._values, safe=False)
        return self._values.take(array) if array.type == CODE else array


# Formats that keep the types of columns


def parquet_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file.

    Raises:
        DataError: the file is broken.
    """
    with explain_file_errors(name):
        file = pq.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER_BYTES)
        check_names(list(filter(selection.takes, file.schema_arrow.names)), name, may_be_blank=True)
        yield without_rows(file.schema_arrow)
        for batch in file.iter_batches(BATCH_ROWS, columns=_list_supported(file.schema_arrow, selection)):
            yield validate_text(batch)


def count_promised(file: DataFile) -> int:
    """The rows that the footer of a local Parquet file promises; 0 where nothing is known before it is read."""
    if file.suffix == ".parquet" and (file.copy or not file.is_remote):
        with suppress(Exception), file.open() as stream:  # whatever is wrong is reported when it is read
            return int(pq.read_metadata(stream).num_rows)
    return 0


@contextmanager
def open_parquet(path: Path, max_rows: int = MAX_ROWS, dictionaries: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """A Parquet file that is read one buffer at a time: neither mapped, nor by whole columns of a row group.

    Raises:
        DataError: it is not Parquet, or claims another number of rows than its row groups have, or more than
            ``max_rows``.
    """
    regular_files.open_regular(path).close()
    with explain_file_errors(path):
        file = pq.ParquetFile(path, buffer_size=SMALL_BUFFER_BYTES, pre_buffer=False, read_dictionary=[*dictionaries])
        rows = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        if min(rows, default=0) < 0 or sum(rows) != file.metadata.num_rows or sum(rows) > max_rows:
            raise broken_file(path, f"it promises {file.metadata.num_rows} rows, and row groups of {sum(rows)}")
    with file:
        yield file


def read_parquet(
    path: Path,
    columns: list[str],
    start: int,
    stop: int,
    most_rows: int,
    most_bytes: int,
    dictionaries: Sequence[str] = (),
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Parquet's rows from ``start`` to ``stop`` and the number of the first, in batches of bounded length and size.

    Raises:
        DataError: the file is broken; a damaged page is only noticed here.
    """
    with open_parquet(path, dictionaries=dictionaries) as file, explain_file_errors(path):
        groups = [file.metadata.row_group(at) for at in range(file.num_row_groups)]
        bounds = np.cumsum([0, *(group.num_rows for group in groups)]).tolist()
        used = [at for at in range(len(groups)) if bounds[at] < min(stop, bounds[at + 1]) and bounds[at + 1] > start]
        widest = max((groups[at].total_byte_size / groups[at].num_rows for at in used), default=0)
        size = max(1, min(most_rows, int(most_bytes / max(1, widest))))  # rows may be far larger than what is read
        first = bounds[used[0]] if used else 0
        for batch in file.iter_batches(size, used, columns, use_threads=False):
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                yield first + low, validate_text(batch.slice(low, high - low))
            first += batch.num_rows
    if first < stop:
        raise broken_file(path, f"it ends at row {first}, and its footer promises more")


def arrow_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of an Arrow file or stream, including Feather.

    Raises:
        DataError: the file is broken, or Feather's first version.
    """
    with explain_file_errors(name):
        try:
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        except pa.ArrowInvalid:
            stream.seek(0)
            file = batches = pa.ipc.open_stream(stream)
        check_names(list(filter(selection.takes, file.schema.names)), name, may_be_blank=True)
        yield without_rows(file.schema)
        columns = _list_supported(file.schema, selection)
        for batch in batches:
            for first in range(0, batch.num_rows, BATCH_ROWS):  # the file may be a single batch
                yield validate_text(batch.select(columns).slice(first, BATCH_ROWS))


def validate_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, after checking that its text is UTF-8 and its codes are valid: no file guarantees that.

    Raises:
        Exception: of any kind; a check fails.
    """
    for column in batch.columns:
        if kind_of(column.type) == "text":
            column.validate(full=True)
    return batch


def without_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch with all columns and no rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _list_supported(schema: pa.Schema, selection: Selection) -> list[str]:
    return [field.name for field in schema if selection.takes(field.name) and kind_of(field.type) != "unsupported"]


def write_batch(sink: pa.NativeFile, batch: pa.RecordBatch) -> None:
    """Add a batch to a file of batches that may each have different columns."""
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)


def map_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """All batches of such a file, mapped; its content stays until the last array that lies in it is gone."""
    mapped = pa.memory_map(str(path))
    end = mapped.size()
    while mapped.tell() < end:
        yield from pa.ipc.open_stream(mapped)


def describe_schema(schema: pa.Schema) -> str:
    """The columns of a file with their types, as far as these are known."""
    return ", ".join(field.name if field.type == pa.null() else f"{field.name} ({field.type})" for field in schema)


def drop_missing(batch: pa.RecordBatch, selection: Selection) -> pa.RecordBatch:
    """The batch without the values that the user's texts for missing values name.

    In a column of text these are equal texts, or in a category those that name the same level, whatever their type; in
    a column of numbers, the numbers that the texts are in its form. Numbers and dates in text are left to their reader.
    """
    texts, matched = selection.also_missing, list_matched(batch)
    for at, name in enumerate(batch.schema.names):
        column, form = batch.column(at), selection.forms.get(name, "")
        kind = kind_of(column.type)
        if kind == "text" or (name in selection.as_text and kind in ("number", "boolean")):
            plain = to_text(column).dictionary_decode() if kind == "text" else column
            values, sought = (plain, pa.array(texts)) if form else (_name_levels(column), _name_levels(pa.array(texts)))
            names = [*texts]
        elif kind == "number":
            plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            numbers = [(text, number) for text in texts for number in read_missing([text], form)]
            names, sought = [text for text, _ in numbers], pa.array([number for _, number in numbers], pa.float64())
            if pa.types.is_floating(plain.type):  # float32 has no -999.9, but one nearest to it
                sought = sought.cast(plain.type, safe=False).cast(pa.float64())
            values = pc.add(pc.cast(plain, pa.float64(), safe=False), 0.0)  # turns -0 into 0
        else:
            continue
        is_missing = pc.is_in(values, sought, skip_nulls=True)
        if pc.any(is_missing).as_py():
            batch = batch.set_column(at, name, pc.if_else(is_missing, None, plain))
            is_there = pc.is_in(sought, values.filter(is_missing).unique())
            matched |= {text for text, there in zip(names, is_there.to_pylist(), strict=True) if there}
    return batch.replace_schema_metadata(add_matched(batch.schema, matched))


def drop_errors(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch without text that is an error of Excel."""
    matched = list_matched(batch)
    for at, column in enumerate(batch.columns):
        if kind_of(column.type) != "text":
            continue
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        texts = pc.cast(values, pa.large_string()) if pa.types.is_string_view(values.type) else values
        if not pc.any(pc.starts_with(texts, "#")).as_py():  # which takes a fifth of the time
            continue
        texts = to_text(column).dictionary_decode()
        is_error = pc.is_in(texts, pa.array(EXCEL_ERRORS))
        matched |= {*texts.filter(is_error).unique().to_pylist()}
        batch = batch.set_column(at, batch.schema.names[at], pc.if_else(is_error, None, texts))
    return batch.replace_schema_metadata(add_matched(batch.schema, matched)) if matched else batch


def _name_levels(array: pa.Array) -> pa.Array:
    """The name of each value's level."""
    levels = to_text(array)
    return pc.take(pa.array(format_values(levels.dictionary), pa.string()), levels.indices)


def list_matched(batch: pa.RecordBatch) -> set[str]:
    """The texts that a batch has as missing values."""
    return {*json.loads((batch.schema.metadata or {}).get(MATCHED, "[]"))}


def add_matched(schema: pa.Schema, matched: Iterable[str]) -> dict[bytes, bytes]:
    """A schema's metadata with such texts."""
    return {**(schema.metadata or {}), MATCHED: json.dumps(sorted(matched)).encode()}


def check_names(names: list[str], file: str, may_be_blank: bool = False) -> None:
    """Check that each column has a name of its own; names may be blank if ``may_be_blank``.

    Raises:
        DataError: columns have no name, or share one.
    """
    blank = [at for at, name in enumerate(names) if not name.strip() and not may_be_blank]
    faults = [f"column {at + 1} has no name" for at in blank]
    faults += [f"{name!r} occurs {times} times" for name, times in Counter(names).items() if times > 1 and name.strip()]
    if faults:
        raise DataError(
            f"{file}: {'; '.join(faults[:10])}",
            "a header with one name for each column",
            "rename or remove them",
        )


# Text


def json_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of JSON objects, one per line or all in one array; a column that only some have is not in all batches.

    Raises:
        DataError: it is not such a file.
    """
    line = 1
    for block in read_blocks(stream, name, selection.encoding, is_json=True):
        _check_json_block(block, name, line)
        try:
            table = _parse_json(block)
            dates = [each for each in table.schema if selection.reads_text(each.name) and kind_of(each.type) == "date"]
            if dates:  # text that looks like dates
                table = _parse_json(block, pa.schema([(each.name, pa.string()) for each in dates]))
        except pa.ArrowException as error:
            reason = _find_json_fault(block, line) or str(error).splitlines()[0]
            raise broken_file(name, reason, f"{JSON_OBJECTS}, with values of one kind a column") from error
        line += bytes(block).count(b"\n")
        yield from table.to_batches()


def find_json_line(stream: Any, name: str, selection: Selection, row: int) -> int:
    """The line, or the place in the array, from 1, of what is number ``row``, from 0, in ``json_batches``.

    Raises:
        DataError: it is not such a file.
    """
    blocks = read_blocks(stream, name, selection.encoding, is_json=True)
    lines = enumerate((line for block in blocks for line in bytes(block).splitlines()), 1)
    return next(itertools.islice((at for at, line in lines if line.strip()), row, None), row + 1)


def _parse_json(block: memoryview, schema: pa.Schema | None = None, parsed_bytes: int = PARSED_BYTES) -> pa.Table:
    options, source = pa.json.ReadOptions(block_size=parsed_bytes), pa.BufferReader(pa.py_buffer(block))
    return pa.json.read_json(source, options, pa.json.ParseOptions(explicit_schema=schema))


def _find_json_fault(block: memoryview, line: int) -> str:
    """What is wrong in a block that begins with this line; Arrow counts rows from where it began to parse."""
    try:
        _parse_json(block, parsed_bytes=len(block) + 1)
    except pa.ArrowException as error:
        said = str(error).splitlines()[0]
        return re.sub(r"in row (\d+)", lambda match: f"in row {line + int(match[1])}", said)
    return ""


def check_text(head: bytes, name: str) -> None:
    """Check that the first bytes of a file are text in UTF-8, as far as they show it.

    Raises:
        DataError: they are something else.
    """
    if not head.strip(BOM + b" \t\r\n"):
        raise broken_file(name, "it is empty", "a table with a header")
    if found := next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None):
        raise broken_file(
            name, f"it is a {found} file", "text, such as CSV", "give it the suffix of its format, or save it as CSV"
        )
    if head.lstrip(BOM + b" \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise broken_file(name, "it is a web page or XML", "a table", "open it in a browser")
    if 0.3 < head.count(b"\0") / len(head) < 0.7:
        encoding = "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
        action = f"name it with --encoding {encoding} where the model is trained, or save it in UTF-8"
        raise broken_file(name, "it is UTF-16 without its mark", "UTF-8", action)
    if b"\0" in head:
        raise broken_file(
            name, "it holds NUL bytes", "UTF-8 text", "it may be a binary file: give it the suffix of its format"
        )


def _check_json_block(block: memoryview, name: str, line: int) -> None:
    """Refuse input that crashes Arrow's parser with a segmentation fault, or that it does not turn into text."""
    text = bytes(block)
    if error := find_invalid_utf_8(block):
        line += text.count(b"\n", 0, error.start)
        action = "save it in UTF-8, or name its encoding with --encoding where the model is trained"
        raise broken_file(name, f"row {line} is not UTF-8", "UTF-8", action) from error
    if NULL_LINE.search(text) and (null := NULL_LINE.search(without_strings := JSON_STRING.sub(b"", text))):
        line += without_strings.count(b"\n", 0, without_strings.index(b"null", null.start()))
        raise broken_file(name, f"row {line} is null", JSON_OBJECTS)
    if text.count(b"{") + text.count(b"[") > text.count(b"\n") + MAX_DEPTH and _depth(block) > MAX_DEPTH:
        raise broken_file(name, f"values are nested more than {MAX_DEPTH} deep", "one value a column")


def _depth(block: memoryview) -> int:
    """How deeply the values of a block are nested, ignoring brackets in strings."""
    text = np.frombuffer(JSON_STRING.sub(b"", bytes(block)), np.uint8)
    steps = np.isin(text, [ord("{"), ord("[")]).astype(np.int32) - np.isin(text, [ord("}"), ord("]")])
    return int(np.cumsum(steps).max(initial=0))


def find_invalid_utf_8(block: memoryview) -> UnicodeDecodeError | None:
    """The error in text that is not UTF-8, or None."""
    if np.frombuffer(block, np.uint8).max(initial=0) >= 128:  # a decoder takes longer to find this out
        try:
            bytes(block).decode()
        except UnicodeDecodeError as error:
            return error
    return None


class _Translated(io.RawIOBase):
    """What becomes of the pieces of a text: of its ``head``, and of the rest of a stream."""

    def __init__(self, head: bytes, stream: Any, translate: Callable[[bytes], bytes]) -> None:
        self._head, self._stream, self._translate = head, stream, translate
        self._ready = b""

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or a part of it; 0 bytes are the end.

        Raises:
            ValueError: the text cannot be translated.
        """
        while not self._ready:
            content, self._head = self._head or self._stream.read(BUFFER_BYTES), b""
            self._ready = self._translate(content)
            if not content:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _recode(encoding: str) -> Callable[[bytes], bytes]:
    """A function that turns pieces of text in an encoding, the last of which is empty, into UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    return lambda content: decoder.decode(content, final=not content).encode()


class _ArrayLines:
    """Turns the pieces of a JSON array, the last of which is empty, into lines with one of its values each."""

    def __init__(self) -> None:
        self._depth, self._num_quotes, self._has_ended, self._cut = 0, 0, False, b""

    def __call__(self, content: bytes) -> bytes:
        """The lines of a piece of text; a backslash at its end waits for the next piece.

        Raises:
            ValueError: the array does not end, or something comes after it.
        """
        if not content and not self._has_ended:
            raise ValueError("it ends inside its array")
        content = self._cut + content
        is_cut = (len(content) - len(content.rstrip(b"\\"))) % 2
        content, self._cut = content[: len(content) - is_cut], content[len(content) - is_cut :]
        text = np.frombuffer(JSON_ESCAPE.sub(b"__", content), np.uint8)
        num_quotes = self._num_quotes + np.cumsum(text == ord('"'))
        is_outside = num_quotes % 2 == 0
        is_opening = np.isin(text, [ord("["), ord("{")]) & is_outside
        is_closing = np.isin(text, [ord("]"), ord("}")]) & is_outside
        depth = self._depth + np.cumsum(is_opening.astype(np.int64) - is_closing)
        ends = np.flatnonzero(is_closing & (depth == 0))
        if content[0 if self._has_ended else ends[0] + 1 if len(ends) else len(content) :].strip():
            raise ValueError("something comes after its array")
        lines = np.frombuffer(content, np.uint8).copy()
        lines[np.isin(text, [ord("\n"), ord("\r")])] = ord(" ")
        lines[is_opening & (depth == 1)] = ord(" ")
        lines[((text == ord(",")) & is_outside & (depth == 1)) | (is_closing & (depth == 0))] = ord("\n")
        if len(text):
            self._depth, self._num_quotes = int(depth[-1]), int(num_quotes[-1]) % 2
        self._has_ended |= len(ends) > 0
        return lines.tobytes()


def read_blocks(stream: Any, name: str, encoding: str = "", is_json: bool = False) -> Iterator[memoryview]:
    """Whole rows in UTF-8, a bounded number of bytes at a time; a block is valid until the next one is requested.

    Text without a mark that says otherwise is in the ``encoding``; if it is empty, its bytes are passed on. The values
    of a JSON array become lines.

    Raises:
        DataError: the file is empty, or no text, or has a row of more than ``MAX_ROW_BYTES``.
    """
    buffer, filled, is_first = bytearray(min(BLOCK_BYTES, PARSED_BYTES * max(2, resources.count_cores()))), 0, True
    expected = "a whole file"
    with explain_file_errors(name, expected):
        head = stream.read(HEAD_BYTES)
    if head.startswith((*UTF_16, *UTF_32)):
        encoding = "utf-32" if head.startswith(UTF_32) else "utf-16"
    if encoding and not head.startswith(BOM):
        stream, expected = _Translated(head, stream, _recode(encoding)), f"text in {encoding}"
        with explain_file_errors(name, expected):
            head = stream.read(HEAD_BYTES)
    if is_json and (array := head.removeprefix(BOM)).lstrip().startswith(b"["):
        stream, head, expected = _Translated(array, stream, _ArrayLines()), b"", JSON_OBJECTS
    filled = len(head)
    buffer[:filled] = head
    while True:
        start = 0 if is_first else filled
        with explain_file_errors(name, expected):
            while filled < len(buffer) and (count := stream.readinto(memoryview(buffer)[filled:])):
                filled += count
        if is_first:
            check_text(bytes(buffer[: min(filled, HEAD_BYTES)]), name)
        if buffer.find(b"\0", start, filled) >= 0:
            raise broken_file(name, "it holds NUL bytes", "UTF-8 text")
        is_last = filled < len(buffer)
        end = filled if is_last else buffer.rfind(b"\n") + 1 if is_json else _end_of_rows(buffer)
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
                raise broken_file(name, reason, "lines that end with a line feed")
            buffer = buffer + bytearray(len(buffer))


def _end_of_rows(block: bytearray) -> int:
    """The end of the last row: a line feed after an even number of quotes; 0 if there is none yet."""
    end = block.rfind(b"\n") + 1
    if (
        block.find(b'"') < 0 or block.count(b'"', 0, end) % 2 == 0 or len(block) > MAX_ROW_BYTES
    ):  # by then from a quote that opens nothing
        return end
    text = np.frombuffer(block, np.uint8)
    is_quoted = np.bitwise_xor.accumulate((text == ord('"')).view(np.uint8))
    ends = np.flatnonzero((text == ord("\n")) & (is_quoted == 0))
    return int(ends[-1]) + 1 if len(ends) else 0
